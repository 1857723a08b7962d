"""Rows in a source → how fast they become ops under a checkpoint, from its log and from its tables."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench import ours
from tests.bench.bench import Bench
from tests.bench.place import Source, source
from tests.bench.result import Result, at_least
from tests.bench.workload import Identity
from tests.bench.yardsticks import RECVLOGICAL, SUBSCRIPTION, apply_s, drain_s, subscriber


def stream(bench: Bench) -> Iterator[Result]:
    """Transactions of 1,000 rows, from the log to a committed checkpoint."""
    rows = bench.count(200_000, 20_000)
    values, yardstick, applied = _stream(bench, "stream", rows, 1000, "full", with_subscription=True)
    yield Result("stream", values, "rows/s", RECVLOGICAL, yardstick, at_least(0.35))
    yield Result("stream.subscription", values, "rows/s", SUBSCRIPTION, applied, at_least(0.6))
    values, yardstick, applied = _stream(
        bench, "stream, replica identity default", rows, 1000, "default", with_subscription=True
    )
    yield Result("stream.default", values, "rows/s", RECVLOGICAL, yardstick, at_least(0.175))
    yield Result("stream.default.subscription", values, "rows/s", SUBSCRIPTION, applied, at_least(0.3))


def single(bench: Bench) -> Iterator[Result]:
    """Transactions of one row, from the log to a committed checkpoint."""
    rows = bench.count(20_000, 2_000)
    values, yardstick, _ = _stream(bench, "single", rows, 1, "full")
    yield Result("single", values, "transactions/s", RECVLOGICAL, yardstick, at_least(0.3))
    values, yardstick, _ = _stream(bench, "single, replica identity default", rows, 1, "default")
    yield Result("single.default", values, "transactions/s", RECVLOGICAL, yardstick, at_least(0.15))


def snapshot(bench: Bench) -> Iterator[Result]:
    """The first copy of a table that is there already."""
    rows = bench.count(1_000_000, 20_000)
    values, yardstick = [], []
    with source(bench.serve(), "bench_snapshot") as db:
        for run in range(1, bench.runs + 1):
            db.create_slot(f"yardstick_{run}")
        bench.say(f"snapshot: writing {rows:,} rows")
        end = db.write(rows, per_transaction=1000)
        for run in bench.each("snapshot"):
            yardstick.append(rows / drain_s(db, f"yardstick_{run}", end))
            order = ours.Order("replicate", db.dsn, f"ours_{run}", rows, f"ours_{run}", is_copy=True)
            values.append(_replicate(db, order))
    yield Result("snapshot", values, "rows/s", RECVLOGICAL, yardstick, at_least(0.3))


def _stream(
    bench: Bench,
    name: str,
    rows: int,
    per_transaction: int,
    identity: Identity,
    *,
    with_subscription: bool = False,
) -> tuple[list[float], list[float], list[float]]:
    """Our rate, pg_recvlogical's, and the subscription's, of each run."""
    values, yardstick, applied = [], [], []
    with source(bench.serve(), "bench_stream", identity) as db, subscriber(db) as applying:
        orders = []
        for run in range(1, bench.runs + 1):
            db.create_slot(f"yardstick_{run}")
            db.create_slot(f"subscription_{run}")
            orders.append(ours.Order("replicate", db.dsn, f"ours_{run}", rows, f"ours_{run}"))
            _begin(orders[-1])
        bench.say(f"{name}: writing {rows:,} rows, {per_transaction:,} a transaction")
        end = db.write(rows, per_transaction=per_transaction)
        for run in bench.each(name):
            yardstick.append(rows / drain_s(db, f"yardstick_{run}", end))
            if with_subscription:
                applied.append(rows / apply_s(db, applying, f"subscription_{run}", rows))
            values.append(_replicate(db, orders[run - 1]))
    return values, yardstick, applied


def _begin(order: ours.Order) -> None:
    """The first start, while the table is empty: the slot is made, and there is nothing to copy."""
    ours.run(ours.Order(order.verb, order.dsn, order.slot, 0, order.schema))


def _replicate(db: Source, order: ours.Order) -> float:
    """Rows a second; what was stored goes again, so that each run finds the same disk."""
    db.settle()
    took = ours.run(order)
    stored = db.count_ops(order.schema)
    if stored != order.rows:
        raise RuntimeError(f"{stored} ops were stored of {order.rows} rows: this measured something else")
    db.drop_schema(order.schema)
    return order.rows / took.seconds
