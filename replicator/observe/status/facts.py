"""A Look and what is wrong with it → facts for programs, and for the page. No I/O."""

from __future__ import annotations

from dataclasses import asdict

from replicator.observe.metrics.figures import Figures
from replicator.observe.status.judge import troubles
from replicator.observe.status.model import Look, Silent, Source, Stored

_NO_ONE = {"replicate": 0, "serve": 0, "work": 0}


def facts_of(look: Look) -> dict[str, object]:
    """Positions, counts, times and names of tables; nothing of a row, and no secret."""
    found = troubles(look)
    worst = found[0].level if found else "ok"
    return {
        "status": "ok" if worst == "note" else worst,
        "at": look.at,
        "troubles": [asdict(one) for one in found],
        "source": _source(look, look.source),
        **_stored(look, look.stored),
    }


def _source(look: Look, source: Source | Silent) -> dict[str, object]:
    facts: dict[str, object] = {
        "at": look.source_at,
        "slot": look.slot,
        "publication": look.publication,
        "is_reachable": not isinstance(source, Silent),
    }
    if isinstance(source, Silent):
        return facts
    slot = source.slot
    return facts | {
        "has_slot": slot is not None,
        "is_read": slot is not None and slot.active_pid is not None,
        "wal_status": slot and slot.wal_status,
        "lag_bytes": slot and slot.lag_bytes,
        "lag_seconds": source.lag_s,
        "retained_bytes": slot and slot.kept_bytes,
        "limit_bytes": source.limit_bytes,
        "room_bytes": source.room_bytes,
        "log_bytes_per_second": source.pace,
        "seconds_to_full": source.seconds_to_full,
    }


def _stored(look: Look, stored: Stored | Silent) -> dict[str, object]:
    storage: dict[str, object] = {"at": look.storage_at, "is_reachable": not isinstance(stored, Silent)}
    if isinstance(stored, Silent):
        return {"storage": storage, "parts": [], "running": dict(_NO_ONE)}
    active, preparing, queue = stored.rule("active"), stored.rule("preparing"), stored.queue
    figures = Figures()
    for part in stored.parts:
        figures.add(part.figures)
    return {
        "storage": storage,
        "checkpoint": {
            "op_id": stored.op_id,
            "lsn": stored.lsn,
            "shown_op_id": stored.shown_op_id,
            "age_seconds": None if stored.recorded_at is None else max(0.0, look.at - stored.recorded_at),
            "committed_at": stored.committed_at,
        },
        "copies": [
            {
                "table": copy.label,
                "state": copy.state,
                "rows_copied": copy.rows_copied,
                "rows_expected": copy.rows_expected,
                "share": round(copy.share, 4),
                "for_rules": copy.rules,
            }
            for copy in stored.copies
        ],
        "rules": {
            "version": active and active.id,
            "since": active and active.since,
            "deploying": preparing and preparing.id,
            "deploying_since": preparing and preparing.since,
        },
        "running": {name: len(stored.alive(name)) for name in _NO_ONE},
        "parts": [
            {
                "part": one.part,
                "node": one.node,
                "started_at": one.started_at,
                "restarts": one.starts - 1,
                "waits_for": one.waits_for,
                "waits_since": one.waits_since,
            }
            for one in stored.parts
            if one.is_alive
        ],
        "clients": stored.clients,
        "counted": {name: sum(of.values()) for name, of in figures.counters.items()},
        "errors": figures.counters["errors"],
        "queue": {
            **queue.facts()["checks"],  # type: ignore[dict-item]  # it is a mapping, said to be an object
            "is_worked": look.works,
            "circuit": None if not look.works else "closed" if stored.outage is None else "open",
        },
    }
