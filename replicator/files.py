"""The files that a configuration names → what they say, read again when an operator asks for it.

A file that is wrong when it is read again changes nothing: that is told, and what was read before stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from replicator import logs
from replicator.config import Config, effective, load
from replicator.ehr.mapping import load_mapping
from replicator.ehr.model import RecordMapping
from replicator.errors import ReplicatorError
from replicator.marks import mark
from replicator.rules.model import Rules
from replicator.rules.parse import load_rules

#: What can be other than it was while everything goes on; the rest takes a restart.
_RELOADED = {"rules", "ehr.mapping", "run.log_level", "run.stop_timeout"}


class Files:
    """The configuration, the rules and the mapping, as they were read last."""

    def __init__(self, path: Path | None, environ: Mapping[str, str]) -> None:
        self._path, self._environ = path, environ
        self.config = load(path, environ)
        #: What the parts that run here need; None: they do not need it.
        self.rules: Rules | None = None
        self.mapping: RecordMapping | None = None
        #: Set when one of the two is another than it was; whoever waits clears it.
        self.renewed = asyncio.Event()

    def read_for(self, part: str) -> None:
        """Read what a part needs."""
        if part == "replicate":
            self.rules = load_rules(self.config.rules_path)
        if part == "work" or (part == "replicate" and self.config.ehr.url is not None):
            self.mapping = load_mapping(self.config.ehr.mapping_path)

    def reload(self) -> bool:
        """Read everything again; False if that cannot be done, and nothing has changed."""
        try:
            config = load(self._path, self._environ)
            rules = None if self.rules is None else load_rules(config.rules_path)
            mapping = None if self.mapping is None else load_mapping(config.ehr.mapping_path)
        except ReplicatorError as error:
            mark("reload refused", level=logging.ERROR, why=error.what, hint=error.hint)
            return False
        logs.set_level(config.run.log_level)
        is_other = (rules and rules.text) != (self.rules and self.rules.text) or mapping != self.mapping
        ignored = ", ".join(sorted(_other(self.config, config) - _RELOADED))
        mark(
            "reloaded",
            level=logging.INFO,
            changed=is_other,
            **({"needs_restart": ignored} if ignored else {}),
        )
        self.rules, self.mapping = rules, mapping
        if is_other:
            self.renewed.set()
        return True


def _other(before: Config, after: Config) -> set[str]:
    """The keys that are not what they were."""
    old, new = dict(_flat("", effective(before))), dict(_flat("", effective(after)))
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def _flat(prefix: str, keys: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in keys.items():
        if isinstance(value, dict) and not prefix:
            yield from _flat(f"{name}.", value)
        else:
            yield f"{prefix}{name}", value
