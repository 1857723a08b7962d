"""A few constants → so small that little traffic meets every bound of the code.

Production reads a thousand rows of a table at first, and drains a quarter of a megabyte at a time: tables of
eighty rows would be copied in one chunk, and no transaction would come in two pieces.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

#: The environment variable that carries the bounds to a child process.
VARIABLE = "REPLICATOR_TEST_BOUNDS"
TIGHT: Mapping[str, float] = {
    "replicator.copying.copier._FIRST_ROWS": 7,
    "replicator.copying.copies.HOLES_MAX": 20,
    "replicator.copying.copier._HOLES_AT_ONCE": 3,
    "replicator.copying.copier._ASKED_S": 0.05,
    "replicator.copying.copier.LOOK_S": 0.5,
    "replicator.wal.snapshot.CHUNK_BYTES": 30_000,
    "replicator.wal.snapshot.CHUNK_ROWS_MAX": 12,
    "replicator.wal.window.REMEMBERED": 20,
    "replicator.wal.window.TOUCHED_MAX": 60,
    "replicator.wal.stream._DRAIN_BYTES": 2_000,
    "replicator.wal.stream._HANDED_BYTES": 3_000,
    "replicator.buckets.inflow._WAITING_BYTES": 2_000,
    "replicator.buckets.inflow._TURN_BYTES": 500,
    "replicator.buckets.numbers._MOST": 4,
    "replicator.buckets.write._ROUTED": 5,
    "replicator.buckets.held._NUMBERED": 3,
    "replicator.rules.route._FEW": 1,
    "replicator.rules.route._LEFT": 1,
    "replicator.buckets.write._BYTES_HELD": 5_000,
    "replicator.wal.progress.QUIET_BYTES": 20_000,
    "replicator.buckets.lookups.WIDE": 3,
    "replicator.buckets.lookups.PAGE": 2,
    "replicator.buckets.entries._HELD": 5,
    "replicator.buckets.changed.SUMMED_UP": 8,
    "replicator.buckets.changed.MOST_TOLD": 6,
    "replicator.buckets.compact.STEP_OPS": 7,
    "replicator.buckets.compact.ROUND_OPS": 40,
    "replicator.buckets.merge.MERGED_MAX": 5,
    "replicator.buckets.kept.GENERATION_BYTES": 3_000,
    "replicator.buckets.rows.MOST_BYTES": 20_000,
    "replicator.buckets.ticking._LOOK_S": 0.05,
    "replicator.buckets.retire._LOOK_S": 0.05,
    "replicator.buckets.retire.STEP": 3,
    "replicator.supervise._HEARD_S": 0.05,
}
#: What is over stays: the oracle may still have to look at it.
KEEP: Mapping[str, float] = {"replicator.buckets.retire.GRACE_S": 1e9}


def _place(name: str) -> tuple[ModuleType, str]:
    module, _, constant = name.rpartition(".")
    return import_module(module), constant


@contextmanager
def bounded(bounds: Mapping[str, Any]) -> Iterator[None]:
    """These constants, by their full names, have other values meanwhile."""
    places = {name: _place(name) for name in bounds}
    before = {name: getattr(module, constant) for name, (module, constant) in places.items()}
    try:
        for name, (module, constant) in places.items():
            setattr(module, constant, bounds[name])
        yield
    finally:
        for name, (module, constant) in places.items():
            setattr(module, constant, before[name])


def main(argv: list[str]) -> object:
    """The command line of the replicator, within the bounds of the environment."""
    from replicator.cli import main as replicator

    with bounded(json.loads(os.environ.pop(VARIABLE))):
        return replicator(argv)
