"""Where replication stands × counts of rows → the answer about it, in the words that apps know. No I/O.

Several dialects of one answer are in use, and each is a few words, so all of them are said: a whole
(`success`, `data`), a monitor's (`status`, `checks`, `last_check`), a client's diagnostic (`overall_status`,
`powersync`, `<table>_comparison`, `pending_uploads`), and ours (`tables`, `last_checkpoint`, `lag`).

There is no health data in it: counts, positions and times only.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple


class Standing(NamedTuple):
    """How far replication has come."""

    #: Whether the slot is being read.
    is_connected: bool
    #: Whether a table is being copied, so that what readers see stands still.
    is_copying: bool
    #: Whether, as far as the source can tell, what is committed is seen within moments.
    is_level: bool
    #: What readers see; None before the first copy is complete.
    op_id: int | None
    lsn: str | None
    recorded_at: float | None
    #: What the source's log holds beyond it, of everything that writes to that server.
    lag_bytes: int | None
    lag_seconds: float | None
    #: Writes of clients that readers do not see yet.
    pending_writes: int


class Count(NamedTuple):
    """The rows of one table, there and here; None where counting would cost too much."""

    table: str
    source: int | None
    synced: int | None
    in_sync: bool
    #: Whether `source` is Postgres's estimate, and `synced` what the last full copy took.
    is_estimated: bool
    #: Whether rows are missing because they arrived without all their values.
    has_failed: bool = False


class Write(NamedTuple):
    """The newest write of one client."""

    client_id: str
    id: int
    is_reached: bool
    requested_at: float


def answer(standing: Standing, counts: Sequence[Count], now: float) -> dict[str, object]:
    """What is told of everybody's rows, or of one user's."""
    in_sync = standing.is_level and all(count.in_sync for count in counts)
    failed = sum(count.has_failed for count in counts)
    is_healthy = standing.is_connected and not failed
    behind = [max(0, c.source - c.synced) for c in counts if c.source is not None and c.synced is not None]
    return {
        "success": True,
        "status": "healthy" if is_healthy else "degraded",
        "overall_status": "success" if is_healthy and in_sync else "warning",
        "in_sync": in_sync,
        "last_check": iso(now),
        "checks": {
            **{f"postgres_{count.table}": count.source for count in counts},
            "pending_syncs": standing.pending_writes,
            "failed_syncs": failed,
        },
        "data": {
            "unsyncedCount": sum(behind),
            "totalRecords": sum(count.source or 0 for count in counts),
            "lastSyncTime": None if standing.recorded_at is None else int(standing.recorded_at * 1000),
        },
        "powersync": {
            "connected": standing.is_connected,
            "downloading": standing.is_copying,
            "uploading": standing.pending_writes > 0,
            "last_synced_at": iso(standing.recorded_at),
        },
        "pending_uploads": standing.pending_writes,
        "last_checkpoint": _checkpoint(standing),
        "lag": {"bytes": standing.lag_bytes, "seconds": standing.lag_seconds},
        "tables": {count.table: _table(count) for count in counts},
        **{f"{count.table}_comparison": _comparison(count) for count in counts},
    }


def answer_of_patient(
    user_id: str, standing: Standing, counts: Sequence[Count], writes: Sequence[Write], now: float
) -> dict[str, object]:
    """The same of one user, with the newest write of each of their clients."""
    return {
        **answer(standing, counts, now),
        "postgres_user": {"id": user_id},
        "firebase_profile": None,
        "supabase_documents": sum(count.synced or 0 for count in counts),
        "sync_logs": [
            {
                "client_id": write.client_id,
                "write_checkpoint": str(write.id),
                "status": "synced" if write.is_reached else "pending",
                "requested_at": iso(write.requested_at),
            }
            for write in writes
        ],
    }


def _checkpoint(standing: Standing) -> dict[str, object] | None:
    if standing.op_id is None:
        return None
    return {"op_id": str(standing.op_id), "lsn": standing.lsn, "recorded_at": iso(standing.recorded_at)}


def _table(count: Count) -> dict[str, object]:
    return {
        "source": count.source,
        "synced": count.synced,
        "in_sync": count.in_sync,
        "estimated": count.is_estimated,
    }


def _comparison(count: Count) -> dict[str, object]:
    return {
        "supabase": count.source,
        "local": count.synced,
        "in_sync": count.in_sync,
        "estimated": count.is_estimated,
    }


def iso(seconds: float | None) -> str | None:
    return None if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
