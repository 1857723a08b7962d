"""Arguments → marks and an exit code: a program for tests of `tests.fixtures.children`."""

from __future__ import annotations

import signal
import sys

from replicator.marks import mark


def walk(args: list[str]) -> int:
    """`walk COUNT CODE`: so many steps, then the code."""
    count, code = map(int, args)
    for number in range(1, count + 1):
        mark("step", number=number)
    print("walked", count)
    print("no complaint", file=sys.stderr)
    return code


def stay(args: list[str]) -> None:
    """Until told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
    mark("there")
    signal.pause()


def fall(args: list[str]) -> None:
    raise ValueError("fell")
