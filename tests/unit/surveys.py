"""What a healthy source would say of itself, to be changed in one respect at a time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from replicator.buckets.model import Checkpoint, OpId, Position
from replicator.observe.survey import Pace, Server, Survey
from replicator.wal.catalogue import Catalogue, Column, Membership, Need, Publication, Role, Table
from replicator.wal.lsn import Lsn
from replicator.wal.slots import SlotState
from replicator.wal.source import Identity

SETTINGS = {
    "wal_level": "logical",
    "max_replication_slots": "10",
    "max_wal_senders": "10",
    "wal_sender_timeout": "60000",
    "max_slot_wal_keep_size": "10240",
}
OPERATIONS = frozenset({"insert", "update", "delete", "truncate"})
NEED = Need("public", "t", frozenset({"id"}))


def a_server(settings: dict[str, str] | None = None, **changed: Any) -> Server:
    values: dict[str, Any] = {
        "version": 160014,
        "release": "16.14",
        "role": "replicator",
        "database": "clinic",
        "is_standby": False,
        "is_pooled": False,
        "sees_others": True,
        "senders_used": 0,
        "provider": None,
        "settings": SETTINGS | (settings or {}),
        "pending": frozenset(),
    }
    return Server(**values | changed)


def a_role(**changed: Any) -> Role:
    values: dict[str, Any] = {
        "name": "replicator",
        "exists": True,
        "is_superuser": False,
        "may_replicate": True,
        "may_connect": True,
        "may_create": True,
        "managed_by": None,
        "schemas": {"public": (True, False)},
        "missing_functions": (),
    }
    return Role(**values | changed)


def a_membership(publication: str = "powersync", **changed: Any) -> Membership:
    values: dict[str, Any] = {
        "publication": publication,
        "is_direct": True,
        "by_ancestor": False,
        "has_column_list": False,
        "has_row_filter": False,
        "sends_generated": False,
        "sends_changes": True,
    }
    return Membership(**values | changed)


def a_table(name: str = "t", **changed: Any) -> Table:
    values: dict[str, Any] = {
        "namespace": "public",
        "name": name,
        "kind": "r",
        "persistence": "p",
        "identity": "f",
        "is_partition": False,
        "columns": (Column("id", ""), Column("a", "")),
        "key": ("id",),
        "row_bytes": None,
        "hides_rows": False,
        "may_select": True,
        "memberships": (a_membership(),),
    }
    return Table(**values | changed)


def a_publication(**changed: Any) -> Publication:
    values: dict[str, Any] = {
        "name": "powersync",
        "all_tables": False,
        "operations": OPERATIONS,
        "via_root": False,
        "sends_generated": None,
        "tables": (("public", "t"),),
        "schemas": (),
    }
    return Publication(**values | changed)


def a_catalogue(
    *tables: Table, version: int = 160014, role: Role | None = None, publication: Publication | None = None
) -> Catalogue:
    there = {(table.namespace, table.name): table for table in tables}
    return Catalogue(version, "clinic", role or a_role(), publication, there, tuple(there))


def a_slot(**changed: Any) -> SlotState:
    values: dict[str, Any] = {
        "name": "replicator",
        "is_logical": True,
        "plugin": "pgoutput",
        "database": "clinic",
        "is_temporary": False,
        "active_pid": None,
        "active_application": None,
        "wal_status": "reserved",
        "lag_bytes": 1000,
        "kept_bytes": 16 << 20,
        "safe_bytes": 9 << 30,
        "restart_lsn": Lsn(1000),
        "confirmed_lsn": Lsn(2000),
        "failover": None,
        "inactive_since": None,
        "invalidation_reason": None,
    }
    return SlotState(**values | changed)


def a_position(**changed: Any) -> Position:
    stored = Checkpoint(OpId(7), Lsn(2000))
    values: dict[str, Any] = {
        "stored": stored,
        "shown": stored,
        "fence": 1,
        "system_id": "1",
        "timeline": 1,
        "recorded_at": datetime(2026, 1, 1, tzinfo=UTC),
        "given_up": None,
    }
    return Position(**values | changed)


def a_survey(server: Server | None = None, **changed: Any) -> Survey:
    values: dict[str, Any] = {
        "server": server or a_server(),
        "needs": (),
        "catalogue": a_catalogue(a_table(), publication=a_publication()),
        "slots": (),
        "writers": (),
        "holders": (),
        "pace": Pace(1000.0, 7200.0),
        "place": ("1", "5"),
        "identity": Identity("1", 1, Lsn(3000)),
    }
    return Survey(**values | changed)
