"""A history → the room it takes, and whether going on costs more where there is more of it."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench import ours
from tests.bench.bench import Bench
from tests.bench.place import Source, source
from tests.bench.result import Result, at_least, at_most

GOAL = "the goal"
ALONE = "the same with little stored"
THOUSAND = "the same ops in 1,000 buckets"

#: What is stored already, as if it had been brought by the same rows: of so many users, so many ops. Buckets'
#: names say of which rules they are: of the first.
_BUCKETS = """
INSERT INTO {schema}.buckets (name)
SELECT '1#user_data["' || md5('user ' || n)::uuid || '"]' FROM generate_series(0, {users} - 1) n
"""
_OPS = """
INSERT INTO {schema}.ops
SELECT n, 1 + n * 48271 % {users}, hashint8(n), 'PUT', 'vital_signs',
       md5('old ' || n)::uuid, '1/' || md5('old ' || n)::uuid,
       json_build_object('id', md5('old ' || n)::uuid, 'notes', rpad('measured ' || n, 270, 'before '))
FROM generate_series({after}::bigint + 1, {after}::bigint + {ops}) n
"""
_SUMS = """
INSERT INTO {schema}.totals
SELECT bucket, max(op_id), sum(checksum::bigint & 4294967295) % 4294967296, count(*)
FROM {schema}.ops GROUP BY bucket
"""
_ROOM = """
SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c
WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'r'
"""


def storage(bench: Bench) -> Iterator[Result]:
    """What 1,000,000 ops take; and what others cost beside 1 to 10 million, and in a million buckets."""
    rows = bench.count(200_000, 20_000)
    million = bench.count(1_000_000, 20_000)
    room = []
    with source(bench.serve(), "bench_room") as db:
        order = _order(db, "room", million)
        db.write(million, per_transaction=1000)
        ours.run(order)
        db.session.execute(f"VACUUM {order.schema}.ops".encode())
        taken = db.session.execute(_ROOM.format(schema=order.schema).encode()).fetchone()
        assert taken is not None
        room.append(float(taken[0]) / 1e6 * 1_000_000 / million)
    yield Result("storage.room", room, "MB a million ops", GOAL, [600.0], at_most(1))
    alone = [_rate(bench, "alone", rows, 0, 1000, 1000) for _ in bench.each("storage, little stored")]
    history = {}
    for times in (1, 5, 10):
        history[times] = [
            _rate(bench, f"history_{times}", rows, times * million, 1000, 1000)
            for _ in bench.each(f"storage, {times * million:,} ops stored")
        ]
        yield Result(f"storage.history.{times}", history[times], "rows/s", ALONE, alone, at_least(0.8))
    rates = [
        _rate(bench, "buckets", rows, million, million, million)
        for _ in bench.each(f"storage, {million:,} buckets")
    ]
    # Each row is the first one of its bucket here. As much is stored in both: they differ in buckets alone.
    yield Result("storage.buckets", rates, "rows/s", THOUSAND, history[1], at_least(0.8))
    yield Result("storage.buckets.alone", rates, "rows/s", ALONE, alone, at_least(0.8))


def _order(db: Source, name: str, rows: int, before: int = 0) -> ours.Order:
    ours.run(ours.Order("replicate", db.dsn, f"ours_{name}", 0, f"ours_{name}"))
    return ours.Order("replicate", db.dsn, f"ours_{name}", rows, f"ours_{name}", before=before)


def _rate(bench: Bench, name: str, rows: int, before: int, users: int, stored_users: int) -> float:
    """Rows a second with so much stored before."""
    with source(bench.serve(), f"bench_{name}") as db:
        order = _order(db, name, rows, before)
        if before:
            _fill(bench, db, order.schema, before, stored_users)
        db.write(rows, per_transaction=1000, users=users)
        db.settle()
        return rows / ours.run(order).seconds


def _fill(bench: Bench, db: Source, schema: str, ops: int, users: int) -> None:
    bench.say(f"storage: storing {ops:,} ops in {users:,} buckets")
    db.session.execute("SET synchronous_commit = off")
    db.session.execute(_BUCKETS.format(schema=schema, users=users).encode())
    step = 500_000
    for after in range(0, ops, step):
        some = min(step, ops - after)
        db.session.execute(_OPS.format(schema=schema, users=users, after=after, ops=some).encode())
    db.session.execute(_SUMS.format(schema=schema).encode())
    # As a server has done that was not given all of it just now: this one would do so while we measure.
    for table in ("ops", "buckets", "totals"):
        db.session.execute(f"VACUUM ANALYZE {schema}.{table}".encode())
    # All of it has passed through the log of the same server, and every page again that VACUUM has marked: a
    # new slot begins behind it.
    db.session.execute(f"SELECT pg_drop_replication_slot(slot) FROM {schema}.checkpoints".encode())
    db.create_slot(schema)
    begins = (
        f"op_id = {ops}, shown_op_id = {ops}, lsn = pg_current_wal_lsn(), shown_lsn = pg_current_wal_lsn()"
    )
    db.session.execute(f"UPDATE {schema}.checkpoints SET {begins}".encode())
