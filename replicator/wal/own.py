"""Names that rules give × the schema of storage → those of them that nobody may follow. No I/O.

What is stored because a row was read would be read again, and stored again, without end. And storage holds
the rows of everybody: a rule about it would send them to whomever it names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from replicator.errors import SourceUnready
from replicator.wal.names import matches, qualify

#: The tables of storage, as sql/schema.sql makes them. Others may stand in a schema of the same name, above
#: all where storage is in another database.
TABLES = frozenset(
    """
    buckets changes checkpoints compacted ehr_arrivals ehr_compositions ehr_existing ehr_holds ehr_jobs
    ehr_jobs_done ehr_lanes ehr_manners ehr_parcels ehr_queue_audit ehr_sync_status ehr_workers
    forgotten lookups merged migrations moments ops overtaking parts row_states rule_copies rule_sets
    tables totals write_checkpoints
    """.split()
)
#: Those of them that are made for rules. A name with `%` at its end never means any.
SHOWN = frozenset({"ehr_sync_status"})

KIND = "a table of the storage"
WHY = (
    "What is stored because a row was read would be read again, and stored again, without end; and storage "
    "holds everybody's rows. Let the rules name the application's tables; if this is one of them, choose "
    "another storage.schema."
)


def is_own(namespace: str, name: str, storage_schema: str) -> bool:
    """Whether this is a table of storage that rules may not name."""
    return is_stored(namespace, name, storage_schema) and name not in SHOWN


def is_stored(namespace: str, name: str, storage_schema: str) -> bool:
    """Whether this is a table of storage."""
    return namespace == storage_schema and name in TABLES


def is_meant(names: Collection[tuple[str, str]], namespace: str, name: str, storage_schema: str) -> bool:
    """Whether these names mean a table that exists: one of storage only by its own name."""
    if is_stored(namespace, name, storage_schema):
        return (namespace, name) in names
    return any(matches(schema, namespace) and matches(table, name) for schema, table in names)


def require_foreign(names: Iterable[tuple[str, str]], storage_schema: str) -> None:
    """Refuse rules that name a table of storage."""
    for namespace, name in names:
        if is_own(namespace, name, storage_schema):
            raise SourceUnready(f"the rules name {qualify(namespace, name)}, {KIND}", WHY)
