"""Rules × how replication stands → the SyncRulesStatus that tools for administration read. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from replicator.rules.context import Tables
from replicator.rules.model import Rules, TableName, Warned
from replicator.sync.admin_schema import CONNECTION
from replicator.text.nodes import Problem
from replicator.wal.catalogue import Catalogue, Need
from replicator.wal.finding import Finding
from replicator.wal.names import qualify
from replicator.wal.slots import SlotState

_LEVELS = {"error": "fatal", "warning": "warning"}
_Error = dict[str, Any]


class Replicated(NamedTuple):
    """How the stream of a slot stands."""

    slot_name: str
    slot: SlotState | None
    is_complete: bool
    lsn: str | None
    recorded_at: float | None
    max_keep_size: str | None


def names_of(rules: Rules, tables: Tables) -> list[tuple[TableName, tuple[str, str]]]:
    """Each name in the rules with each table it means; with what it says itself, where there is none."""
    found = []
    for name in rules.table_names():
        fitting = sorted(where for where in tables if name.matches(*where))
        if not fitting and not name.is_wildcard:
            fitting = [(name.namespace or "public", name.name)]
        found += [(name, where) for where in fitting]
    return found


def needs_of(names: Iterable[tuple[TableName, tuple[str, str]]]) -> list[Need]:
    return [Need(*where, frozenset()) for where in dict.fromkeys(where for _, where in names)]


def rules_status(
    rules: Rules,
    text: str,
    replicated: Replicated | None,
    names: Sequence[tuple[TableName, tuple[str, str]]],
    catalogue: Catalogue,
    findings: Sequence[Finding],
    content: str | None,
) -> dict[str, object]:
    """Of rules that can be read: what is replicated for them, and what is in the way."""
    tables = [_table(rules, name, where, catalogue, findings) for name, where in names]
    own = {qualify(*where) for _, where in names}
    general = [_finding(one) for one in findings if one.about not in own and one.level in _LEVELS]
    connection: dict[str, object] = {"id": CONNECTION, "tag": CONNECTION}
    if replicated is not None:
        connection |= _stream(replicated)
        general += _of_slot(replicated)
    errors = [_warned(one, text) for one in (*rules.warnings, *rules.for_everybody)] + general
    status: dict[str, object] = {"connections": [{**connection, "tables": tables}], "errors": errors}
    return status if content is None else {"content": content, **status}


def refused_status(problems: Iterable[Problem], text: str, content: str | None) -> dict[str, object]:
    """Of rules that cannot be read."""
    errors = [_at(one.line, one.column, text, "fatal", _said(one.key, one.what)) for one in problems]
    status: dict[str, object] = {"connections": [], "errors": errors}
    return status if content is None else {"content": content, **status}


def _stream(replicated: Replicated) -> dict[str, object]:
    slot = replicated.slot
    recorded = replicated.recorded_at
    at = (
        None if recorded is None else datetime.fromtimestamp(recorded, UTC).isoformat(timespec="milliseconds")
    )
    found: dict[str, object | None] = {
        "slot_name": replicated.slot_name,
        "initial_replication_done": replicated.is_complete,
        "last_lsn": replicated.lsn,
        "last_keepalive_ts": at,
        "last_checkpoint_ts": at,
        "replication_lag_bytes": slot.lag_bytes if slot else None,
        "wal_status": slot.wal_status if slot else None,
        "safe_wal_size": slot.safe_bytes if slot else None,
        "max_slot_wal_keep_size": replicated.max_keep_size,
    }
    return {name: value for name, value in found.items() if value is not None}


def _of_slot(replicated: Replicated) -> list[_Error]:
    slot, name = replicated.slot, replicated.slot_name
    if slot is None:
        return [{"level": "fatal", "message": f"there is no replication slot {name}"}]
    if slot.wal_status == "lost":
        return [{"level": "fatal", "message": f"replication slot {name} is lost"}]
    if slot.active_pid is None:
        return [{"level": "warning", "message": f"nobody reads replication slot {name}"}]
    return []


def _table(
    rules: Rules,
    name: TableName,
    where: tuple[str, str],
    catalogue: Catalogue,
    findings: Sequence[Finding],
) -> dict[str, object]:
    known = catalogue.tables.get(where)
    label = qualify(*where)
    in_data = any(query.table == name for variant in rules.variants() for query in variant.data)
    in_lookups = any(lookup.table == name for lookup in rules.lookups)
    found: dict[str, object] = {"schema": where[0], "name": where[1]}
    if name.is_wildcard:
        found["pattern"] = name.name
    errors = [_finding(one) for one in findings if one.about == label and one.level in _LEVELS]
    return {
        **found,
        "replication_id": list(_identity(known)) if known is not None else [],
        "data_queries": in_data,
        "parameter_queries": in_lookups,
        "errors": errors,
    }


def _identity(table: Any) -> Sequence[str]:
    """What tells its rows apart in the log."""
    if table.identity == "f":
        return tuple(column.name for column in table.columns)
    return tuple(table.key) if table.identity == "d" else ()


def _finding(finding: Finding) -> _Error:
    said = ". ".join(part for part in (finding.what, finding.why) if part)
    return {"level": _LEVELS[finding.level], "message": said}


def _warned(warned: Warned, text: str) -> _Error:
    return _at(warned.line, warned.column, text, "warning", _said(warned.key, warned.what))


def _said(key: str, what: str) -> str:
    return f"{key}: {what}" if key else what


def _at(line: int, column: int, text: str, level: str, message: str) -> _Error:
    if not line:
        return {"level": level, "message": message}
    lines = text.splitlines(keepends=True)
    start = sum(map(len, lines[: line - 1])) + column - 1
    end = sum(map(len, lines[:line]))
    place = {"start_offset": start, "end_offset": max(start, end - 1)}
    return {"level": level, "message": message, "location": place}


def debug_answer(rules: Rules, names: Mapping[str, Sequence[str]] | None = None) -> dict[str, object]:
    """What POST /api/sync-rules/v1/validate is told of rules that can be read."""
    return {
        "valid": True,
        "bucket_definitions": [
            {
                "name": definition.name,
                "bucket_parameters": list(definition.variants[0].parameters) if definition.variants else [],
                "global_bucket": not any(variant.parameters for variant in definition.variants),
                "type": "sync_stream" if definition.is_stream else "sync_config",
            }
            for definition in rules.definitions
        ],
        "source_tables": [_named(name) for name in rules.table_names()],
        "data_tables": sorted(
            {query.output or str(query.table) for variant in rules.variants() for query in variant.data}
        ),
    }


def _named(name: TableName) -> dict[str, str]:
    return {"schema": name.namespace or "public", "name": name.name}
