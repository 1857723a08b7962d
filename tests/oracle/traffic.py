"""A World → random transactions on it, in two sessions, and the source as it was after each commit.

One thread drives both sessions, a statement of the one and then of the other, so that the order of commits
is not the order of writes, and the same seed gives the same traffic. A row belongs to the session that its
`ward` names, so neither session ever waits for the other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence

from psycopg import sql

from tests.fixtures.postgres import Connection
from tests.oracle.history import History
from tests.oracle.values import Kind, make
from tests.oracle.world import OWNERS, Column, Keys, Table, World

#: Values that tell one row.
_Key = tuple[object, ...]
_FEW = 40


class Session:
    """One connection to the source, and the transaction that may be open in it."""

    def __init__(self, traffic: Traffic, connection: Connection, ward: int) -> None:
        self._traffic, self._connection = traffic, connection
        self._rng, self._ward = traffic.rng, str(ward)
        self._left = 0
        self._in_savepoint = False
        #: Tables that the open transaction may have changed.
        self.touched: set[Table] = set()
        self.is_open = False

    def step(self) -> None:
        """One statement of a transaction, or its beginning, or its end."""
        if not self.is_open:
            self._execute("BEGIN")
            self.is_open, self._left = True, self._rng.choice((1, 1, 2, 3, 5, 8, 20))
        elif self._left <= 0:
            self._end()
        else:
            self._left -= 1
            self._savepoint()
            self._write(self._rng.choice(self._traffic.world.tables))

    def bulk(self, rows: int) -> None:
        """Thousands of rows in one transaction, changed and mostly gone when the next such has ended."""
        table = self._rng.choice(self._traffic.world.tables)
        self._execute("BEGIN")
        self.touched.add(table)
        self._execute(self._bulk_insert(table, rows))
        if self._rng.random() < 0.5:
            self._change_all(table)
        self._end(rollback=self._rng.random() < 0.1)
        self._execute("BEGIN")
        self.touched.add(table)
        if self._rng.random() < 0.5:
            self._change_all(table)
        keep = self._keys(table)[:_FEW]
        self._delete_but(table, keep)
        self._end()

    # ── Transactions ─────────────────────────────────────────────────────────────────────────────

    def _savepoint(self) -> None:
        luck = self._rng.random()
        if self._in_savepoint and luck < 0.4:
            self._execute(self._rng.choice(("ROLLBACK TO here", "ROLLBACK TO here", "RELEASE here")))
            self._in_savepoint = False
        elif not self._in_savepoint and luck < 0.15:
            self._execute("SAVEPOINT here")
            self._in_savepoint = True

    def _end(self, *, rollback: bool | None = None) -> None:
        luck = self._rng.random()
        if rollback or (rollback is None and luck < 0.08):
            self._execute("ROLLBACK")
        elif luck < 0.16 and self._traffic.may_prepare:
            self._execute(
                sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(f"{self._traffic.name} {self._ward}"))
            )
            self._traffic.history.commit(
                lambda: self._execute(
                    sql.SQL("COMMIT PREPARED {}").format(sql.Literal(f"{self._traffic.name} {self._ward}"))
                ),
                self.touched,
            )
        else:
            self._traffic.history.commit(lambda: self._execute("COMMIT"), self.touched)
        self.is_open, self._in_savepoint, self.touched = False, False, set()

    def finish(self) -> None:
        if self.is_open:
            self._end()

    # ── Statements ───────────────────────────────────────────────────────────────────────────────

    def _write(self, table: Table) -> None:
        keys = self._keys(table)
        if len(keys) < 5:
            self._insert(table)
            return
        whats = list(_WEIGHTS)
        what = self._rng.choices(whats, [_WEIGHTS[one] for one in whats])[0]
        if what is Session._insert and len(keys) > _FEW:
            what = Session._delete
        if what is Session._truncate and (self._traffic.others_open(self) or self._rng.random() < 0.8):
            what = Session._update
        self.touched.add(table)
        what(self, table)
        if what is Session._truncate:
            self._end()  # its lock would have the other session wait

    def _insert(self, table: Table) -> None:
        self.touched.add(table)
        self._insert_row(table, {c.name: self._value(table, c) for c in table.columns})

    def _insert_row(self, table: Table, row: dict[str, str | None]) -> None:
        self._execute(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                table.sql,
                sql.SQL(", ").join(map(sql.Identifier, row)),
                sql.SQL(", ").join(map(sql.Literal, row.values())),
            )
        )

    def _update(self, table: Table) -> None:
        most = self._rng.choice((1, 2, 2, 3, len(table.others)))
        columns = self._rng.sample(table.others, min(most, len(table.others)))
        self._set(table, {c.name: self._value(table, c) for c in columns}, self._some_key(table))

    def _update_nothing(self, table: Table) -> None:
        column = sql.Identifier(self._rng.choice(table.columns).name)
        self._execute(
            sql.SQL("UPDATE {} SET {} = {} WHERE {}").format(table.sql, column, column, self._mine())
        )

    def _change_all(self, table: Table) -> None:
        columns = [c for c in table.others if c.kind is not Kind.WIDE]
        column = self._rng.choice(columns)
        self._execute(
            sql.SQL("UPDATE {} SET {} = {} WHERE {}").format(
                table.sql, sql.Identifier(column.name), sql.Literal(self._value(table, column)), self._mine()
            )
        )

    def _give_away(self, table: Table) -> None:
        column = self._rng.choice(table.owners)
        self._set(table, {column.name: self._value(table, column)}, self._some_key(table))

    def _give_all_away(self, table: Table) -> None:
        column = self._rng.choice(table.owners)
        self._execute(
            sql.SQL("UPDATE {table} SET {column} = {to} WHERE {mine} AND {column} = {of}").format(
                table=table.sql,
                column=sql.Identifier(column.name),
                to=sql.Literal(self._value(table, column)),
                of=sql.Literal(self._rng.choice(self._traffic.world.people)),
                mine=self._mine(),
            )
        )

    def _delete(self, table: Table) -> None:
        self._execute(
            sql.SQL("DELETE FROM {} WHERE {}").format(table.sql, self._is(table, self._some_key(table)))
        )

    def _delete_but(self, table: Table, keep: Sequence[_Key]) -> None:
        kept = [sql.SQL("NOT ({})").format(self._is(table, key)) for key in keep]
        where = sql.SQL(" AND ").join([self._mine(), *kept])
        self._execute(sql.SQL("DELETE FROM {} WHERE {}").format(table.sql, where))

    def _truncate(self, table: Table) -> None:
        self._execute(sql.SQL("TRUNCATE {}").format(table.sql))

    def _move(self, table: Table) -> None:
        """The row gets another key, or another id, or both; sometimes other values as well."""
        names = [c for c in table.columns if c.name in (*table.key, "id") and c.name != "ward"]
        chosen = self._rng.sample(names, self._rng.randint(1, len(names)))
        row = {c.name: self._value(table, c) for c in chosen}
        if self._rng.random() < 0.3:
            column = self._rng.choice(table.others)
            row[column.name] = self._value(table, column)
        self._set(table, row, self._some_key(table))

    def _there_and_back(self, table: Table) -> None:
        """A row moves to another key and back, maybe changed while it was there."""
        key = self._some_key(table)
        away = self._other_key(table)
        self._set(table, dict(zip(table.key, away, strict=True)), key)
        if self._rng.random() < 0.5:
            column = self._rng.choice(table.others)
            self._set(table, {column.name: self._value(table, column)}, away)
        if self._rng.random() < 0.3:
            # Another row stands where it was: it cannot go back.
            self._copy_row(table, away, key)
            return
        self._set(table, dict(zip(table.key, key, strict=True)), away)

    def _swap(self, table: Table) -> None:
        """Two rows exchange what they are told apart by."""
        one, other = self._rng.sample(self._keys(table), 2)
        free = self._other_key(table)
        for was, becomes in ((one, free), (other, one), (free, other)):
            self._set(table, dict(zip(table.key, becomes, strict=True)), was)

    def _again(self, table: Table) -> None:
        """A row is deleted, and one of the same key inserted; once or twice."""
        key = self._some_key(table)
        for _ in range(self._rng.choice((1, 1, 2))):
            row = {c.name: self._value(table, c) for c in table.columns}
            keep = [("id", self._id_of(table, key))] if self._rng.random() < 0.5 else []
            self._execute(sql.SQL("DELETE FROM {} WHERE {}").format(table.sql, self._is(table, key)))
            self._insert_row(
                table, {**row, **dict(keep), **dict(zip(table.key, map(_text, key), strict=True))}
            )

    # ── Parts of statements ──────────────────────────────────────────────────────────────────────

    def _value(self, table: Table, column: Column) -> str | None:
        if column.name == "ward":
            return self._ward
        if column.name in table.key or column.name == "id":
            return self._traffic.keys.make(column)
        if column.is_nullable and self._rng.random() < 0.15:
            return None
        if column.name in OWNERS:
            return self._rng.choice(self._traffic.world.people)
        return make(column.kind, self._rng)

    def _bulk_insert(self, table: Table, rows: int) -> sql.Composed:
        """Rows that are alike but for their keys; some of them with a wide value."""
        serial = self._rng.getrandbits(60)
        values = []
        for c in table.columns:
            literal = sql.Literal(self._value(table, c))
            if c.name in (*table.key, "id") and c.name != "ward":
                values.append(_serial(c, serial))
            elif c.kind is Kind.WIDE:
                text = sql.Literal("w" * 2_200)
                values.append(sql.SQL("CASE WHEN n % 20 = 0 THEN {} || n END").format(text))
            else:
                values.append(sql.SQL("{}::{}").format(literal, sql.SQL(c.kind.value)))
        return sql.SQL("INSERT INTO {} ({}) SELECT {} FROM generate_series(1, {}) n").format(
            table.sql,
            sql.SQL(", ").join(sql.Identifier(c.name) for c in table.columns),
            sql.SQL(", ").join(values),
            sql.Literal(rows),
        )

    def _set(self, table: Table, row: Mapping[str, object], key: _Key) -> None:
        assignments = [
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(_text(value)))
            for name, value in row.items()
        ]
        self._execute(
            sql.SQL("UPDATE {} SET {} WHERE {}").format(
                table.sql, sql.SQL(", ").join(assignments), self._is(table, key)
            )
        )

    def _mine(self) -> sql.Composed:
        return sql.SQL("ward = {}").format(sql.Literal(int(self._ward)))

    def _is(self, table: Table, key: _Key) -> sql.Composed:
        return sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(_text(value)))
            for name, value in zip(table.key, key, strict=True)
        )

    def _keys(self, table: Table) -> list[_Key]:
        names = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in table.key)
        query = sql.SQL('SELECT {} FROM {} WHERE {} ORDER BY id::text COLLATE "C"')
        return self._execute(query.format(names, table.sql, self._mine()))

    def _some_key(self, table: Table) -> _Key:
        return self._rng.choice(self._keys(table))

    def _other_key(self, table: Table) -> _Key:
        columns = {c.name: c for c in table.columns}
        return tuple(self._value(table, columns[name]) for name in table.key)

    def _id_of(self, table: Table, key: _Key) -> str:
        query = sql.SQL("SELECT id::text FROM {} WHERE {}").format(table.sql, self._is(table, key))
        return str(self._execute(query)[0][0])

    def _copy_row(self, table: Table, of: _Key, to: _Key) -> None:
        """A new row like another, values stored out of line as well."""
        columns = {c.name: c for c in table.columns}
        given = dict(zip(table.key, to, strict=True))
        if "id" not in given:
            given["id"] = self._value(table, columns["id"])
        values = [
            sql.SQL("{}::{}").format(sql.Literal(_text(given[c.name])), sql.SQL(c.kind.value))
            if c.name in given
            else sql.Identifier(c.name)
            for c in table.columns
        ]
        self._execute(
            sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} WHERE {}").format(
                table.sql,
                sql.SQL(", ").join(sql.Identifier(c.name) for c in table.columns),
                sql.SQL(", ").join(values),
                table.sql,
                self._is(table, of),
            )
        )

    def _execute(self, query: str | sql.Composed) -> list[_Key]:
        text = query.encode() if isinstance(query, str) else query
        cursor = self._connection.execute(text)
        return cursor.fetchall() if cursor.description else []


_WEIGHTS: dict[Callable[[Session, Table], None], int] = {
    Session._insert: 24,
    Session._update: 30,
    Session._update_nothing: 1,
    Session._give_away: 10,
    Session._give_all_away: 3,
    Session._delete: 9,
    Session._move: 8,
    Session._there_and_back: 5,
    Session._swap: 4,
    Session._again: 5,
    Session._change_all: 1,
    Session._truncate: 1,
}


class Traffic:
    """What the applications of this world do, a step at a time."""

    def __init__(
        self, world: World, history: History, rng: random.Random, *, may_prepare: bool, name: str
    ) -> None:
        self.world, self.history, self.rng = world, history, rng
        self.may_prepare, self.name = may_prepare, name
        self.keys = Keys(rng)
        self._sessions: list[Session] = []

    def steps(self, connect: Callable[[], Connection], transactions: int) -> Iterator[None]:
        """So many commits; whatever the caller does between two steps happens in the middle of them."""
        self._sessions = [Session(self, connect(), ward) for ward in (1, 2)]
        until = len(self.history.commits) + transactions
        while len(self.history.commits) < until:
            if self.rng.random() < 0.004:
                self._sessions[0].finish()
                self._sessions[0].bulk(self.rng.choice((300, 800, 3000)))
            self.rng.choice(self._sessions).step()
            yield
        for session in self._sessions:
            session.finish()
        yield

    def others_open(self, session: Session) -> bool:
        """Whether a lock on a whole table would have to wait."""
        return any(other.is_open for other in self._sessions if other is not session)


def _serial(column: Column, serial: int) -> sql.Composed:
    """An SQL expression of `n`: a key value no other row has."""
    base = sql.Literal(serial)
    match column.kind:
        case Kind.UUID:
            return sql.SQL("md5({}::text || n)::uuid").format(sql.Literal(str(serial)))
        case Kind.INTEGER:
            return sql.SQL("{} + n").format(base)
        case Kind.SMALL:
            return sql.SQL("{}").format(sql.SQL("n"))
        case _:
            return sql.SQL("n || {}").format(sql.Literal(f" of {serial}"))


def _text(value: object) -> str | None:
    return None if value is None else str(value)
