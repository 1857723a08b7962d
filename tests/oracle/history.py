"""Commits on the source, one after the other → what its tables held at any position of the log."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from psycopg import sql

from tests.fixtures.postgres import Connection
from tests.oracle.values import Kind
from tests.oracle.world import Row, Table, World

State = Mapping[Table, tuple[Row, ...]]

_WHERE = b"SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"


class Commit(NamedTuple):
    """A commit record lies somewhere after `before`, and ends at `after` or earlier."""

    before: int
    after: int
    state: State


class History:
    """What the tables held after each commit. Nobody else may write to them."""

    def __init__(self, world: World, connect: Callable[[], Connection]) -> None:
        self._world, self._connect = world, connect
        self._connection = connect()
        self.commits = [Commit(0, self.where(), {table: self._select(table) for table in world.tables})]

    def reconnect(self) -> None:
        """The server was restarted."""
        self._connection = self._connect()

    def where(self) -> int:
        return int(self._connection.execute(_WHERE).fetchall()[0][0])

    def commit(self, do: Callable[[], object], touched: Iterable[Table]) -> None:
        """Commit what may have changed these tables, and look at them."""
        before = self.where()
        do()
        after = self.where()
        state = dict(self.commits[-1].state)
        for table in touched:
            state[table] = self._select(table)
        self.commits.append(Commit(before, after, state))

    def check(self) -> None:
        """That nothing was missed: the tables still hold what they held after the last commit."""
        for table, rows in self.commits[-1].state.items():
            assert self._select(table) == rows, f"{table.name} was changed behind the history's back"

    def at(self, lsn: int) -> list[State]:
        """What the tables may have held at this position: two answers only within one commit's bounds."""
        last = bisect_right(self.commits, lsn, key=lambda commit: commit.after) - 1
        assert last >= 0, "the history begins before the slot"
        found = self.commits[last : last + 1]
        found += [commit for commit in self.commits[last + 1 : last + 2] if commit.before < lsn]
        return [commit.state for commit in found]

    def _select(self, table: Table) -> tuple[Row, ...]:
        columns = [column.name for column in table.columns if column.kind is not Kind.BYTES]
        texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in columns)
        query = sql.SQL('SELECT {} FROM {} ORDER BY id::text COLLATE "C"').format(texts, table.sql)
        return tuple(
            dict(zip(columns, row, strict=True)) for row in self._connection.execute(query).fetchall()
        )
