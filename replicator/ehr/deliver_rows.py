"""A job → its row, and the rows of other tables that belong to it, as the source has them now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

import orjson

from replicator.ehr.job import Job, Jobs
from replicator.ehr.model import Children, Row, TableMapping
from replicator.ehr.retry import Done, Park

#: (table, columns and the values they must have, order) → the rows of the source that have them.
Read: TypeAlias = Callable[[str, Mapping[str, str], Sequence[str]], Awaitable[list[Row]]]


class NotRead(Exception):
    """There is no row to compose, and what becomes of the job."""

    def __init__(self, end: Done | Park) -> None:
        super().__init__()
        self.end = end


async def rows_of(
    read: Read | None, jobs: Jobs, job: Job, table: TableMapping
) -> tuple[Row, dict[str, list[Row]]]:
    """The row that a job tells of, else as it is now; and its children, by their tables."""
    groups = [group.each for group in table.groups if isinstance(group.each, Children)]
    if read is None and (groups or job.snapshot is None):
        raise NotRead(Park("it needs rows that are to be read from the source, which is not configured"))
    if job.snapshot is not None:
        row: Row = orjson.loads(job.snapshot)
    else:
        assert read is not None
        names = [column.name for column in table.key]
        found = await read(table.table, dict(zip(names, _parts(job.key), strict=True)), ())
        if not found or not jobs.stands(table, found[0]):
            raise NotRead(Done(note="its row is not there any more"))
        row = found[0]
    children: dict[str, list[Row]] = {}
    for each in groups:
        assert read is not None
        above = {child: row.get(column) for child, column in each.parent.items()}
        known = {name: value for name, value in above.items() if value is not None}
        children[each.table] = await read(each.table, known, each.order) if len(known) == len(above) else []
    return row, children


def _parts(key: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in key.split("/")]
