"""Names that rules give × the schema of storage → those of them that nobody may follow. No I/O.

What is stored because a row was read would be read again, and stored again, without end. And storage holds
the rows of everybody: a rule about it would send them to whomever it names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from replicator.errors import SourceUnready
from replicator.wal.names import matches, qualify

#: Tables of storage that are made for rules. A name with `%` at its end never means any of them.
SHOWN = frozenset({"ehr_sync_status"})

WHY = (
    "What is stored because a row was read would be read again, and stored again, without end; and storage "
    "holds everybody's rows. Let the rules name the application's tables."
)


def is_own(namespace: str, name: str, storage_schema: str) -> bool:
    """Whether this is a table of storage that rules may not name."""
    return namespace == storage_schema and name not in SHOWN


def is_meant(names: Collection[tuple[str, str]], namespace: str, name: str, storage_schema: str) -> bool:
    """Whether these names mean a table that exists: one of storage only by its own name."""
    if namespace == storage_schema:
        return (namespace, name) in names
    return any(matches(schema, namespace) and matches(table, name) for schema, table in names)


def require_foreign(names: Iterable[tuple[str, str]], storage_schema: str) -> None:
    """Refuse rules that name a table of storage."""
    for namespace, name in names:
        if is_own(namespace, name, storage_schema):
            raise SourceUnready(f"the rules name {qualify(namespace, name)}, a table of the storage", WHY)
