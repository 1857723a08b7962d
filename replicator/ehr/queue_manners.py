"""A mapping → the manners that its jobs have, which is what many of them have in common. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import orjson

from replicator.ehr.identity import compositions_begin, number_of
from replicator.ehr.job import Job, Operation
from replicator.ehr.model import Style

if TYPE_CHECKING:
    from replicator.ehr.model import RecordMapping, TableMapping


class Manner(NamedTuple):
    """What jobs have in common that come of the same table in the same way."""

    table: str
    mapping: str
    operation: str
    template: str | None
    priority: int
    may_merge: bool
    #: Whose texts the snapshots are, as a list; None where each says them itself.
    columns: tuple[str, ...] | None = None
    #: Which of them is the key, from 0, where jobs do not say it again.
    key_at: int | None = None
    #: What the names of their compositions begin with, where only the patient and the key follow: then jobs
    #: need not say the ids.
    begun: str | None = None

    @property
    def id(self) -> int:
        """Its number, which fits a bigint. There are few, and a job is made of every mapped row."""
        return _number_of(self)

    @classmethod
    def of(cls, job: Job) -> Manner:
        operation, begun = job.operation.value, job.begun
        return cls(job.table, job.mapping, operation, job.template, job.priority, job.coalesce, begun=begun)


@lru_cache(maxsize=1024)
def _number_of(manner: Manner) -> int:
    return number_of(orjson.dumps(list(manner)))


def of_table(mapping: RecordMapping, table: TableMapping, operation: Operation) -> Manner:
    """Of jobs with a patient."""
    template = table.template.id if table.template else None
    begun = compositions_begin(mapping.system, table.name) if table.style is Style.EVENT else None
    return Manner(
        table.table, table.name, operation.value, template, table.priority, table.coalesce, begun=begun
    )


def of_new_rows(mapping: RecordMapping, table: TableMapping, columns: Sequence[str]) -> Manner | None:
    """Of jobs of which nothing is known but the values in these columns; None if those do not say it all."""
    manner = of_table(mapping, table, Operation.CREATE)
    if manner.begun is None or len(table.key) != 1 or table.key[0].name not in columns:
        return None
    return manner._replace(columns=tuple(columns), key_at=columns.index(table.key[0].name))


def manners(mapping: RecordMapping, columns: Mapping[str, Iterable[str]]) -> Iterator[Manner]:
    """All there can be, where tables have these columns."""
    for table in mapping.tables.values():
        for operation in Operation:
            yield (of_any := of_table(mapping, table, operation))
            yield of_any._replace(begun=None)
        if (of_new := of_new_rows(mapping, table, tuple(columns.get(table.table, ())))) is not None:
            yield of_new
