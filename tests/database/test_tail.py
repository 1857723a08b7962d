"""`replicator tail` says what it waits for, rather than nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from replicator.database import migrate
from replicator.observe.tail import tail
from tests.database.clinics import configure

if TYPE_CHECKING:
    from tests.fixtures.postgres import Database

_CHECKPOINT = """
INSERT INTO replicator.checkpoints
    (slot, op_id, lsn, fence, system_id, timeline, recorded_at, shown_op_id, shown_lsn)
VALUES (%s, 6, '0/1', 1, '1', 1, now(), %s, %s)
ON CONFLICT (slot) DO UPDATE SET shown_op_id = excluded.shown_op_id, shown_lsn = excluded.shown_lsn
"""


async def said(database: Database, capsys: pytest.CaptureFixture[str], bucket: str | None) -> str:
    """What it says before it shows an op, or instead."""
    config = configure(database.dsn, slot=database.name)
    shown = asyncio.create_task(tail(config, bucket=bucket, from_start=True, limit=1, as_json=False))
    err = ""
    while not shown.done() and not err:
        await asyncio.sleep(0.01)
        err = capsys.readouterr().err
    shown.cancel()
    await asyncio.gather(shown, return_exceptions=True)
    return err.strip()


async def test_it_says_what_it_waits_for(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    await migrate(database.dsn, "replicator")
    assert await said(database, capsys, None) == "waiting for the first `replicator run`"
    database.execute(_CHECKPOINT, [database.name, None, None])
    assert "the first copy" in await said(database, capsys, None)
    database.execute(_CHECKPOINT, [database.name, 6, "0/1"])
    database.execute("""
        WITH named AS (
            INSERT INTO replicator.buckets (name) SELECT 'notices[]' UNION ALL
            SELECT 'user_data["u' || n || '"]' FROM generate_series(2, 6) n RETURNING id)
        INSERT INTO replicator.ops SELECT id, id, 0, 'PUT', 't', '1', '', '{}' FROM named""")
    assert await said(database, capsys, None) == ""
    assert await said(database, capsys, "notices[]") == ""
    assert await said(database, capsys, "notices") == (
        "waiting: there is no bucket notices yet; buckets that begin so: notices[]"
    )
    users = await said(database, capsys, 'user_data["u9"]')
    assert users.endswith(", ".join(f'user_data["u{n}"]' for n in range(2, 7)))
    assert await said(database, capsys, "diary[]") == (
        "waiting: there is no bucket diary[] yet; none begins so"
    )
