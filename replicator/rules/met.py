"""Tables as the catalogue describes them → a Router that knows their keys and the types of their columns."""

from __future__ import annotations

from collections.abc import Iterable

from replicator.database import Connection
from replicator.rules.route import Router
from replicator.wal.snapshot import Table
from replicator.wal.types import read_types


class Met:
    """Tells a router of tables, and asks the source about types it has not met."""

    def __init__(self, router: Router, source: Connection) -> None:
        self._router, self._source = router, source
        self._asked: frozenset[int] = frozenset()

    async def __call__(self, tables: Iterable[Table]) -> None:
        tables = list(tables)
        types = self._router.types
        used = {column.type_oid for table in tables for column in table.relation.columns}
        unknown = types.unknown(used) - self._asked
        if unknown:
            self._asked |= unknown
            self._router.learn(types.with_types(await read_types(self._source, unknown)))
        for table in tables:
            self._router.know(table.relation, table.key_at)
