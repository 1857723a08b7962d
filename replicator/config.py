"""replicator.yaml and the environment → Config, or everything that is wrong with it at once.

The order of things: references to variables are hidden, the text becomes a tree, the tree becomes plain
values, the models (settings/keys.py) check those, and what they refuse is told at the place it was written.
A value that could not be made out travels along as `Refused`, so that its own problem is told and no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError
from yaml import MappingNode, Node, SequenceNode

from replicator.dsn import describe_dsn, is_dsn
from replicator.errors import ConfigError
from replicator.settings.keys import CREDENTIAL, LOADED, Config, Section, effective, names
from replicator.settings.variables import Variables
from replicator.text.file import read
from replicator.text.nodes import Problem, Problems, dotted, is_null, nearest, parse

__all__ = ["Config", "describe_dsn", "effective", "load"]

Location: TypeAlias = tuple[str | int, ...]

HINT = "config/replicator.yaml shows every key with its default."
#: The variable that a connection string is taken from when its key is left out.
DSN_VARIABLE = {"source": "SOURCE_DSN", "storage": "STORAGE_DSN"}
#: Where tokens and rows could be read on their way.
EXPOSED = (
    "other machines could reach this, and it would speak to them without TLS: write tls_cert_file and "
    "tls_key_file; or without_tls: behind_proxy, where a proxy that speaks TLS stands before it; or "
    "without_tls: anywhere"
)
#: What pydantic calls an error → what we call it.
WORDS = {
    "model_type": "must be a mapping: lines of the form `key: value`",
    "dict_type": "must be a mapping, such as {{name: value}}",
    "tuple_type": "must be a list, such as [a, b]",
    "literal_error": "must be {expected}",
}


@dataclass(frozen=True, slots=True)
class Refused:
    """Stands for a value that could not be made out."""

    what: str
    #: The variables it lacks, if that is why.
    unset: tuple[str, ...] = ()


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The configuration of a file, else of the file REPLICATOR_CONFIG names, else the defaults."""
    if path is None and environ.get("REPLICATOR_CONFIG"):
        path = Path(environ["REPLICATOR_CONFIG"])
    if path is None:
        return _Reading("", None, environ).config()
    text = read(path, "Pass --config FILE or set REPLICATOR_CONFIG.")
    return _Reading(text, path, environ).config()


class _Reading:
    """One file on its way to a Config."""

    def __init__(self, text: str, path: Path | None, environ: Mapping[str, str]) -> None:
        self.path = path
        self.folder = Path() if path is None else path.parent
        self.environ = environ
        try:
            self.variables = Variables(text)
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from None
        self.document = parse(self.variables.text, str(path or "environment"))
        #: Where each value stands: its key (or itself, in a list) and itself.
        self.nodes: dict[Location, tuple[Node, Node]] = {}
        #: The key that named a connection string, if it was not its own.
        self.dsn_from: dict[Location, Location] = {}

    def config(self) -> Config:
        data = dict(self._entries((), self.document.root))
        for section in DSN_VARIABLE:
            self._choose_dsn(section, data)
        try:
            config = Config.model_validate(data)
        except ValidationError as error:
            self._refuse_all(error)
            raise Problems(self.document.problems, HINT) from None
        if config.sync.is_exposed:
            self._refuse(("sync", "listen"), EXPOSED)
        self.document.settle(HINT)
        return config.beside(self.folder)

    # The tree → plain values.

    def _entries(self, at: Location, node: MappingNode) -> Iterator[tuple[str, Any]]:
        for name, key, value in self.document.entries(node):
            if self.variables.inside(name):
                what = "variables are replaced in values, not in keys"
                self.document.refuse(key, dotted("", *at), what)
                continue
            self.nodes[(*at, name)] = key, value
            yield name, self._value((*at, name), value)

    def _value(self, at: Location, node: Node) -> Any:
        match node:
            case MappingNode():
                return dict(self._entries(at, node))
            case SequenceNode():
                self.nodes |= {(*at, n): (item, item) for n, item in enumerate(node.value)}
                return [self._value((*at, n), item) for n, item in enumerate(node.value)]
        return None if is_null(node) else self._revealed(str(node.value))

    def _revealed(self, scalar: str) -> str | Refused:
        try:
            text, unset = self.variables.reveal(scalar, self.environ)
        except ValueError as error:
            return Refused(str(error))
        if not unset:
            return text
        missing = ", ".join(dict.fromkeys(unset))
        return Refused(f"not set: {missing}; or write ${{{unset[0]}:-default}}", unset)

    # Connection strings: from the key, a file, or the environment.

    def _choose_dsn(self, section: str, data: dict[str, Any]) -> None:
        if data.get(section) is None:
            data[section] = {}
        if isinstance(keys := data[section], dict):
            keys["dsn"] = self._dsn(section, keys)

    def _dsn(self, section: str, keys: dict[str, Any]) -> Any:
        found, file = keys.get("dsn", ""), keys.get("dsn_file")
        unset = found.unset if isinstance(found, Refused) else ()
        if isinstance(file, str) and file:
            self.dsn_from[section, "dsn"] = (section, "dsn_file")
            if found and not unset:
                return Refused("dsn and dsn_file are both given: leave one out")
            return self._dsn_of_file(file)
        if file:
            return ""  # the model refuses that key; nothing is known about this one
        # Storage needs none: a reference to its own variable means what leaving the key out means.
        variable = DSN_VARIABLE[section]
        if "dsn" not in keys or (section == "storage" and set(unset) == {variable}):
            found = self.environ.get(variable, "")
        if section == "source" and found in (None, ""):
            return Refused("no database to read from: set SOURCE_DSN, or write dsn or dsn_file")
        return found

    def _dsn_of_file(self, written: str) -> str | Refused:
        if is_dsn(written):
            return Refused("a connection string stands where a file's path is expected: use dsn")
        path, missing = self.folder / written, ""
        if written.startswith(CREDENTIAL):
            directory = self.environ.get("CREDENTIALS_DIRECTORY", "")
            path = Path(directory, name := written.removeprefix(CREDENTIAL))
            if not directory or not name or "/" in name or name == "..":
                what = "needs a name without /, and CREDENTIALS_DIRECTORY, which systemd sets"
                return Refused(f"{CREDENTIAL}NAME {what}")
            missing = f"; {LOADED.format(name=name)}"
        try:
            return read(path).strip() or Refused(f"{path}: is empty")
        except ConfigError as error:
            return Refused(error.what + missing)

    # What the models refuse → problems at the place it was written.

    def _refuse_all(self, errors: ValidationError) -> None:
        for error in errors.errors(include_url=False):
            at, value, details = error["loc"], error["input"], error.get("ctx", {})
            if error["type"] == "extra_forbidden":
                self.document.refuse(self.nodes[at][0], dotted("", *at), _unknown_key(at))
            elif isinstance(value, Refused):
                self._refuse(at, value.what)
            elif error["type"] == "value_error":
                self._refuse(at, str(details["error"]))
            else:
                self._refuse(at, WORDS.get(error["type"], "cannot be used here").format_map(details))

    def _refuse(self, at: Location, what: str) -> None:
        while at not in self.nodes and len(at) > 1 and at[1] != "dsn":
            at = at[:-1]  # such as one text that stands for a list of one
        at = self.dsn_from.get(at, at)
        if at in self.nodes:
            self.document.refuse(self.nodes[at][1], dotted("", *at), what)
        else:
            self._refuse_variable(at, DSN_VARIABLE[str(at[0])], what)

    def _refuse_variable(self, at: Location, variable: str, what: str) -> None:
        """A connection string left to the environment: told at its section, if there is a file."""
        if self.path is None:
            problem = Problem(self.document.file, 0, 0, variable, what)
            self.document.problems.append(problem)
            return
        key, _ = self.nodes.get(at[:1], (None, None))
        if self.environ.get(variable):
            what = f"{what} (from the variable {variable})"
        self.document.refuse(key, dotted("", *at), what)


def _unknown_key(at: Location) -> str:
    """What to write instead: the same key where it belongs, or the one that is spelt most like it."""
    name = str(at[-1])
    sections = names(Config)
    inside: type[Section] = Config
    for outer in at[:-1]:
        inside = names(inside).get(str(outer)) or inside
    here = names(inside)
    homes = [name] if name in sections else []
    homes += [f"{other}.{name}" for other, keys in sections.items() if keys and name in names(keys)]
    if homes:
        return f"unknown key here, did you mean {homes[0]}?"
    return "unknown key" + nearest(name, here)
