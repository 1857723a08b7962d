"""A slot's log → how fast our reader turns it into transactions, and in how much memory."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench import ours
from tests.bench.bench import Bench
from tests.bench.place import source
from tests.bench.result import Result, at_least, at_most
from tests.bench.yardsticks import RECVLOGICAL, drain_s

_MEMORY_MB = 150


def reader(bench: Bench) -> Iterator[Result]:
    """Rows in transactions of 1,000; transactions of one row; and one transaction of very many."""
    rows, transactions = bench.count(200_000, 20_000), bench.count(20_000, 2_000)
    values, yardstick, memory = _read(bench, rows, 1000)
    yield Result("reader", values, "rows/s", RECVLOGICAL, yardstick, at_least(0.6))
    yield Result("reader.memory", memory, "MB", "limit", [_MEMORY_MB], at_most(1))
    values, yardstick, _ = _read(bench, transactions, 1)
    yield Result("reader.single", values, "transactions/s", RECVLOGICAL, yardstick, at_least(0.5))
    if not bench.is_quick:
        yield _one_transaction(bench, 2_000_000)


def _read(bench: Bench, rows: int, per_transaction: int) -> tuple[list[float], list[float], list[float]]:
    """Our rate, the yardstick's, and our memory, of each run."""
    values, yardstick, memory = [], [], []
    with source(bench.serve(), "bench_reader") as db:
        for run in range(1, bench.runs + 1):
            db.create_slot(f"yardstick_{run}")
            db.create_slot(f"ours_{run}")
        bench.say(f"reader: writing {rows:,} rows, {per_transaction:,} a transaction")
        end = db.write(rows, per_transaction=per_transaction)
        for run in bench.each("reader"):
            yardstick.append(rows / drain_s(db, f"yardstick_{run}", end))
            db.settle()
            took = ours.run(ours.Order("read", db.dsn, f"ours_{run}", rows))
            values.append(rows / took.seconds)
            memory.append(took.memory_mb)
    return values, yardstick, memory


def _one_transaction(bench: Bench, rows: int) -> Result:
    with source(bench.serve(), "bench_reader") as db:
        db.create_slot("ours")
        bench.say(f"reader: writing {rows:,} rows in one transaction, then reading them")
        db.write(rows, per_transaction=rows)
        took = ours.run(ours.Order("read", db.dsn, "ours", rows))
    return Result("reader.memory.large", [took.memory_mb], "MB", "limit", [_MEMORY_MB], at_most(1))
