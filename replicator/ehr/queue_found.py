"""What jobs ask about rows of other tables → answers of the source, asked for together.

Jobs are made without waiting. A question that has no answer yet is noted and answered with None; then all
that were noted are asked, and the jobs made again. Answers are the source's of now, and kept for one batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from psycopg import sql

from replicator.database import Connect
from replicator.ehr.job import Job, Jobs
from replicator.ehr.model import Children, RecordMapping
from replicator.ehr.queue_extended import array_of, quoted
from replicator.wal.lsn import Lsn
from replicator.wal.transactions import Change

#: A table, a column of it to compare, its value, and the column wanted.
Question: TypeAlias = tuple[str, str, str, str]


def asks_others(mapping: RecordMapping) -> bool:
    """Whether a mapping leads from one row to another at all."""
    return any(
        table.patient.through is not None or any(isinstance(group.each, Children) for group in table.groups)
        for table in mapping.tables.values()
    )


class Finder:
    """What is known of other rows, and what has to be asked."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._known: dict[Question, str | None] = {}
        self._asked: set[Question] = set()
        #: A table, a column and a value that no row of it has.
        self._absent: set[tuple[str, str, str]] = set()

    def find(self, table: str, column: str, value: str, wanted: str) -> str | None:
        question = table, column, value, wanted
        if question not in self._known:
            self._asked.add(question)
            return None
        return self._known[question]

    def forget(self) -> None:
        self._known.clear()
        self._absent.clear()

    async def learn(self, jobs: Jobs, changes: Iterable[Change], commit_lsn: Lsn) -> None:
        """Ask all that the jobs of these changes will ask; one answer may raise the next question."""
        given = list(changes)
        while True:
            for change in given:
                for _ in jobs.of(change, commit_lsn):
                    pass
            if not self._asked:
                return
            await self._ask()

    def kept(self, jobs: Jobs, made: Iterable[Job]) -> list[Job]:
        """But for those of rows that are gone: a part of such a row makes no job, its own end does."""
        return [job for job in made if not self._is_part_of_nothing(jobs, job)]

    def _is_part_of_nothing(self, jobs: Jobs, job: Job) -> bool:
        if job.snapshot is not None or job.patient is not None or not self._absent:
            return False
        table = jobs.mapping.tables[job.mapping]
        first = job.key.split("/")[0].replace("~1", "/").replace("~0", "~")
        return (table.table, table.key[0].name, first) in self._absent

    async def _ask(self) -> None:
        asked, self._asked = self._asked, set()
        for table, column, wanted in {(table, column, wanted) for table, column, _, wanted in asked}:
            values = [value for t, c, value, w in asked if (t, c, w) == (table, column, wanted)]
            query = sql.SQL("SELECT {0}::text, {1}::text FROM {2} WHERE {0} = ANY (%s)").format(
                sql.Identifier(column), sql.Identifier(wanted), sql.Identifier(*table.split(".", 1))
            )
            # As text, whose type the source finds out by the column's.
            literal = array_of([quoted(value) for value in values])
            async with self._connect() as connection:
                answers = await (await connection.execute(query, [literal])).fetchall()
            found: dict[str, str | None] = {row[0]: row[1] for row in answers}
            for value in values:
                self._known[table, column, value, wanted] = found.get(value)
                if value not in found:
                    self._absent.add((table, column, value))
