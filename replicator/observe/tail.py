"""Ops as they become visible → lines on a terminal."""

from __future__ import annotations

import click
import orjson

from replicator import queries
from replicator.buckets.deploy import named_in_force
from replicator.buckets.model import Checkpoint, Op, OpId, Position
from replicator.buckets.read import follow, position
from replicator.config import Config
from replicator.database import Connection, check_migrated, connected, rows

_q = queries.load("buckets")


async def tail(
    config: Config, *, bucket: str | None, from_start: bool, limit: int | None, as_json: bool
) -> None:
    """Print ops as checkpoints make them visible, until so many have been printed or for ever."""
    schema, slot = config.storage.schema_name, config.source.slot
    async with connected(config.storage_dsn, "tail", schema=schema) as connection:
        await check_migrated(connection, schema)
        now = await position(connection, slot)
        bucket = bucket and await named_in_force(connection, slot, bucket)
        if waiting := await _waits_for(connection, now, bucket):
            click.echo(waiting, err=True)
        after = OpId(0) if from_start or now is None or now.shown is None else now.shown.op_id
        left = limit
        async for checkpoint, ops in follow(connection, slot, after=after, bucket=bucket):
            shown = ops if left is None else ops[:left]
            for op in shown:
                click.echo(_json(op, checkpoint) if as_json else line(op))
            left = None if left is None else left - len(shown)
            if left == 0:
                return


async def _waits_for(connection: Connection, now: Position | None, bucket: str | None) -> str:
    """Why nothing is to be seen yet, if that is so."""
    if now is None:
        return "waiting for the first `replicator run`"
    if now.shown is None:
        return "waiting for the first copy of every table: nothing is shown before it is complete"
    if bucket is None or (await rows(connection, _q.has_bucket, bucket=bucket))[0][0]:
        return ""
    like = [name for (name,) in await rows(connection, _q.buckets_like, bucket=bucket.partition("[")[0])]
    known = f"buckets that begin so: {', '.join(like)}" if like else "none begins so"
    return f"waiting: there is no bucket {bucket} yet; {known}"


def line(op: Op) -> str:
    """One op for a person: where, what, which row, and what it says now."""
    colour = "green" if op.op == "PUT" else "red"
    what = click.style(f"{op.op:<6}", fg=colour)
    head = f"{op.op_id:>8}  {op.bucket}  {what}  {op.object_type}/{op.object_id}"
    return f"{head}  {op.data}" if op.data else head


def _json(op: Op, checkpoint: Checkpoint) -> str:
    facts = op._asdict() | {"op_id": str(op.op_id), "lsn": str(checkpoint.lsn)}
    return orjson.dumps(facts).decode()
