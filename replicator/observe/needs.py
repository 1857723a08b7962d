"""Rules → the tables they need, and the columns that must be there. No I/O."""

from __future__ import annotations

from collections import defaultdict

from replicator.rules.model import Rules
from replicator.wal.catalogue import Need


def needs_of(rules: Rules) -> list[Need]:
    """Every table the rules read, with the columns they decide by; each row is known by its id."""
    columns: defaultdict[tuple[str, str], set[str]] = defaultdict(lambda: {"id"})
    for rule in rules.rules:
        for query in rule.data:
            columns[query.namespace or "public", query.table] |= {query.column} if query.column else set()
    return [Need(*table, frozenset(columns[table])) for table in rules.tables()]
