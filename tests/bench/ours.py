"""What is to be done → our own reader or pipeline, doing it in a process of its own; and what that took.

A process of its own, so that its memory and its processor time are nobody else's. It is told what to do on
its standard input, says what it took on its standard output, and ends when its parent does.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from replicator import marks
from replicator.buckets.read import position
from replicator.config import Config
from replicator.database import Connection, connected, migrate
from replicator.rules.parse import parse_rules
from replicator.supervise import first_to_end, run_replicate
from replicator.wal.fast import decode_all
from replicator.wal.lsn import Lsn
from replicator.wal.stream import Stream
from replicator.wal.transactions import Assembler
from tests.bench import workload
from tests.bench.machine import memory_peak_mb

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done."""

    verb: Literal["read", "replicate"]
    dsn: str
    slot: str
    #: How many rows there are.
    rows: int
    #: Where to store them.
    schema: str = ""
    #: The first row counts from when copying begins, not from when the stream does: there is none yet.
    is_copy: bool = False
    #: A mapping: every row is to become a job, too.
    mapping: str = ""
    #: How many ops are stored already.
    before: int = 0


@dataclass(frozen=True, slots=True)
class Took:
    """What it took."""

    seconds: float
    #: Processor time of our process alone.
    cpu_s: float
    memory_mb: float


# -- In the process that measures ------------------------------------------------------------------


def run(order: Order) -> Took:
    """Have it done, and wait."""
    said = {name: getattr(order, name) for name in Order.__slots__}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.ours"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None, "both are pipes"
        try:
            process.stdin.write(json.dumps(said).encode())
            process.stdin.flush()
            answer = process.stdout.readline()
        finally:
            process.stdin.close()
    if not answer:
        raise RuntimeError(f"the process that was to {order.verb} ended with code {process.returncode}")
    return Took(**json.loads(answer))


# -- In a process of its own -----------------------------------------------------------------------


class Clock:
    """Started at once, or by the first mark of a name: before it comes what no number of rows changes."""

    def __init__(self, mark: str | None = None) -> None:
        self._mark = mark
        self._begun = _now()
        marks.listeners.append(self._hear)

    def _hear(self, name: str, fields: dict[str, object]) -> None:
        if name == self._mark:
            self._mark, self._begun = None, _now()

    def took(self) -> Took:
        wall, cpu = self._begun
        return Took(time.perf_counter() - wall, time.process_time() - cpu, memory_peak_mb())


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


async def read(order: Order) -> Took:
    """Decode and assemble every row of a slot, keep none, and acknowledge."""
    clock = Clock()
    assembler, seen = Assembler(), 0
    async with Stream(order.dsn, order.slot, workload.PUBLICATION, Lsn(0), timeout_s=60) as stream:
        while seen < order.rows or assembler.in_transaction:
            assembled = assembler.assemble(decode_all(await stream.receive()))
            for piece in assembled.transactions:
                seen += len(piece.changes)
                if piece.end_lsn is not None:
                    stream.acknowledge(piece.end_lsn)
        return clock.took()


async def replicate(order: Order) -> Took:
    """The whole pipeline, until readers of the buckets can see every row."""
    given: dict[str, Any] = {
        "source": {"dsn": order.dsn, "slot": order.slot, "publication": workload.PUBLICATION},
        "storage": {"schema": order.schema},
    }
    if order.mapping:
        given["ehr"] = {"mapping": order.mapping, "url": "http://127.0.0.1:9/nowhere"}
    config = Config.model_validate(given)
    rules = parse_rules(workload.RULES, "the workload")
    await migrate(order.dsn, order.schema)
    clock = Clock("copying" if order.is_copy else "streaming")
    stop, stored = asyncio.Event(), asyncio.Event()
    took: list[Took] = []

    def hear(name: str, fields: dict[str, object]) -> None:
        if (
            name == "stored"
            and isinstance(op_id := fields["op_id"], int)
            and op_id >= order.before + order.rows
        ):
            stored.set()

    async def watch() -> None:
        async with connected(order.dsn, "bench", schema=order.schema) as connection:
            await stored.wait()
            while not await _is_shown(connection, order):
                await asyncio.sleep(0.002)
            took.append(clock.took())
            stop.set()
            await asyncio.Event().wait()  # the pipeline ends by itself

    marks.listeners.append(hear)
    await first_to_end(run_replicate(config, rules, stop), watch())
    return took[0]


async def _is_shown(connection: Connection, order: Order) -> bool:
    stands = await position(connection, order.slot)
    shown = stands.shown if stands is not None else None
    return shown is not None and shown.op_id >= order.before + order.rows


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # there is nothing more to come but its end
    os._exit(1)


def main() -> None:
    order = Order(**json.loads(os.read(sys.stdin.fileno(), 1 << 16)))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    took = asyncio.run(read(order) if order.verb == "read" else replicate(order))
    print(json.dumps({name: getattr(took, name) for name in Took.__slots__}), flush=True)


if __name__ == "__main__":
    main()
