"""A file with a time in it → a replicator in a process of its own, for which it is that time."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path

from tests.fixtures.children import At, Child, StartChild
from tests.oracle import tight
from tests.oracle.running import Outside

#: The environment variable that tells the process which file.
VARIABLE = "REPLICATOR_TEST_CLOCK"


class Clock:
    """The time, which a test drives; the file is replaced as a whole."""

    def __init__(self, path: Path, now: float) -> None:
        self.path = path
        self.set(now)

    def set(self, now: float) -> None:
        self.now = now
        new = self.path.with_suffix(".new")
        new.write_text(repr(now), encoding="utf-8")
        new.replace(self.path)


class Driven(Outside):
    """A replicator that knows no other clock."""

    def __init__(
        self,
        children: StartChild,
        path: Path,
        bounds: Mapping[str, float],
        clock: Clock,
        kill_at: At | None = None,
    ) -> None:
        env = {tight.VARIABLE: json.dumps(dict(bounds)), VARIABLE: str(clock.path)}
        target = f"{__name__}:main"
        self.child: Child = children("run", "--config", path, target=target, env=env, kill_at=kill_at)


def main(argv: list[str]) -> object:
    """The command line of the replicator, with the clock of the environment."""
    from replicator import supervise

    path = Path(os.environ.pop(VARIABLE))

    def now() -> float:
        return float(path.read_text(encoding="utf-8"))

    given = {name: functools.partial(getattr(supervise, name), now=now) for name in ("replicate", "tick")}
    for name, function in given.items():
        setattr(supervise, name, function)
    return tight.main(argv)
