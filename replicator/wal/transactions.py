"""Messages, in the order the server sent them → Transactions of Changes. No I/O.

A transaction is handed on in pieces, so that its size never shows in memory: each call turns the messages
of one drain of the socket into the transactions they complete, and, if the last one is still open, the
piece of it that has arrived. A piece knows its commit's position from the start (protocol 1 sends whole
transactions, after their commit); it has an `end_lsn` only if it is the last of its transaction.

A row's own position in the log is not unique (one COPY writes many rows under one), so a change is known by
`(commit_lsn, ordinal)`: the place of its transaction, and its place within it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from replicator.errors import ProtocolError
from replicator.wal.frames import Keepalive
from replicator.wal.lsn import Lsn
from replicator.wal.messages import (
    UNCHANGED,
    Begin,
    Commit,
    Delete,
    Insert,
    Inserts,
    LogicalMessage,
    Message,
    Origin,
    Relation,
    Row,
    Truncate,
    Type,
    Update,
)
from replicator.wal.own import is_meant


class Kind(Enum):
    """What happened to a row; TRUNCATE happens to all rows of its relation."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    TRUNCATE = "truncate"


class Change(NamedTuple):
    """One row change, with the Relation in force when it happened."""

    kind: Kind
    relation: Relation
    #: The row before, as far as the replica identity sent it; columns it did not send are None.
    old: Row | None
    #: The row after; UNCHANGED where a TOASTed value was not resent.
    new: Row | None
    #: Its place among the changes of its transaction.
    ordinal: int
    #: Whether `old` is the whole row (REPLICA IDENTITY FULL) rather than only its key.
    old_is_whole: bool = False


#: Looked up once: an Enum's member takes longer to find than a row to pass.
_INSERT, _UPDATE, _DELETE = Kind.INSERT, Kind.UPDATE, Kind.DELETE
#: A tuple first and its type after: half the price of calling the type.
_make = tuple.__new__


@dataclass(slots=True)
class Transaction:
    """The changes of one commit, or one piece of them in order."""

    xid: int
    commit_lsn: Lsn
    #: Microseconds since 2000-01-01 UTC, by the source's clock.
    committed_at: int
    changes: list[Change] = field(default_factory=list)
    #: Transactional logical messages, which travel like changes.
    messages: list[LogicalMessage] = field(default_factory=list)
    #: Relations described in it, before the changes that follow them: new ones, or known ones changed.
    relations: list[Relation] = field(default_factory=list)
    #: The end of the commit record; None while more of this transaction is to come.
    end_lsn: Lsn | None = None


class Assembled(NamedTuple):
    """What one drain of the socket amounts to."""

    transactions: list[Transaction]
    #: Where the server said it stands, heard after the last of these and outside any transaction.
    quiet_lsn: Lsn | None


class Assembler:
    """Remembers the relations, and the transaction that is open, from one drain to the next.

    `wanted` are the tables (namespace, name) whose rows are asked for; None for all. A publication FOR ALL
    TABLES sends the rows of every other table, too, and what we wrote to our own schema ourselves.
    """

    def __init__(self, own_schema: str = "", wanted: Collection[tuple[str, str]] | None = None) -> None:
        self._relations: dict[int, Relation] = {}
        #: Relations whose rows nobody asked for.
        self._passed_over: set[int] = set()
        self._own_schema, self._wanted = own_schema, wanted
        self._open: Transaction | None = None
        self._ordinal = 0
        self._is_empty = True

    @property
    def in_transaction(self) -> bool:
        return self._open is not None

    def assemble(self, messages: Iterable[Message | Inserts | Keepalive]) -> Assembled:
        """The transactions that these messages complete, and the open piece of the last."""
        done: list[Transaction] = []
        quiet: Lsn | None = None
        for message in messages:
            # Rows first, and by identity of their type: everything else comes once per transaction.
            kind = type(message)
            if kind is Inserts or kind is Update or kind is Insert or kind is Delete:
                self._row(message)  # type: ignore[arg-type]  # mypy does not narrow by identity of types
            elif kind is Begin:
                self._begin(message)  # type: ignore[arg-type]  # as above
            elif kind is Commit:
                quiet = self._commit(message, done) or quiet  # type: ignore[arg-type]  # as above
            elif isinstance(message, Keepalive):
                quiet = quiet if self.in_transaction else message.wal_end
            else:
                self._other(message, done)  # type: ignore[arg-type]  # as above
        if self._open is not None and (self._open.changes or self._open.messages):
            self._open = _handed_on(self._open, done)
        return Assembled(done, quiet)

    def _row(self, message: Insert | Inserts | Update | Delete) -> None:
        """Add what happened to a row of this relation, or to some, unless nobody asked for its rows."""
        if message.relation in self._passed_over:
            return
        try:
            relation = self._relations[message.relation]
            changes = self._open.changes  # type: ignore[union-attr]  # None is told below
        except (KeyError, AttributeError):
            raise self._out_of_order(message) from None
        ordinal = self._ordinal
        if type(message) is Inserts:
            self._ordinal += len(message.rows)
            changes += [
                _make(Change, (_INSERT, relation, None, row, number, False))
                for number, row in enumerate(message.rows, ordinal)
            ]
            return
        self._ordinal = ordinal + 1
        if type(message) is Insert:
            changes.append(_make(Change, (_INSERT, relation, None, message.new, ordinal, False)))
        elif type(message) is Update:
            _, old, old_kind, new, _ = message
            if old is not None and UNCHANGED in new:
                new = _filled(relation, old, old_kind == "O", new)
            changes.append(_make(Change, (_UPDATE, relation, old, new, ordinal, old_kind == "O")))
        else:
            whole = message.old_kind == "O"  # type: ignore[union-attr]  # only Delete is left
            old = message.old  # type: ignore[union-attr]  # as above
            changes.append(_make(Change, (_DELETE, relation, old, None, ordinal, whole)))

    def _begin(self, message: Begin) -> None:
        if self._open is not None:
            raise self._out_of_order(message)
        self._open = Transaction(message.xid, message.final_lsn, message.commit_time)
        self._ordinal, self._is_empty = 0, True

    def _commit(self, message: Commit, done: list[Transaction]) -> Lsn | None:
        """Close the open transaction. One that brought nothing only tells how far the log is."""
        current = self._open
        if current is None or current.commit_lsn != message.commit_lsn:
            raise self._out_of_order(message)
        self._open = None
        if self._ordinal == 0 and self._is_empty:
            return message.end_lsn
        current.end_lsn = message.end_lsn
        done.append(current)
        return None

    def _other(self, message: Message, done: list[Transaction]) -> None:
        match message:
            case Relation():
                self._describe(message, done)
            case Truncate():
                self._truncate(message)
            case LogicalMessage():
                if message.transactional:
                    self._keep(message)
            case Origin() | Type():
                pass  # where a change first came from, and the name of a type: nothing follows from either
            case _:
                raise self._out_of_order(message)

    def _describe(self, relation: Relation, done: list[Transaction]) -> None:
        """Know a relation from here on. One that was another before ends the piece: its order is kept."""
        before, self._relations[relation.oid] = self._relations.get(relation.oid), relation
        is_own = relation.namespace == self._own_schema
        is_read = not is_own if self._wanted is None else self._is_wanted(relation)
        self._passed_over.discard(relation.oid)
        if not is_read:
            self._passed_over.add(relation.oid)
        if self._open is None or (is_own and not is_read):
            return
        if before not in (None, relation) and self._open.changes:
            self._open = _handed_on(self._open, done)
        # Of a table that is not read, too: it may be one that was, under another name.
        self._open.relations.append(relation)
        self._is_empty = False

    def _is_wanted(self, relation: Relation) -> bool:
        return is_meant(self._wanted or (), relation.namespace, relation.name, self._own_schema)

    def _truncate(self, message: Truncate) -> None:
        current = self._open
        for oid in message.relations:
            if oid in self._passed_over:
                continue
            if current is None or oid not in self._relations:
                raise self._out_of_order(message)
            current.changes.append(Change(Kind.TRUNCATE, self._relations[oid], None, None, self._ordinal))
            self._ordinal += 1

    def _keep(self, message: LogicalMessage) -> None:
        if self._open is None:
            raise self._out_of_order(message)
        self._open.messages.append(message)
        self._is_empty = False

    def _out_of_order(self, message: Message | Inserts | Keepalive) -> ProtocolError:
        what = Insert if type(message) is Inserts else type(message)
        where = f"in transaction {self._open.xid}" if self._open else "outside a transaction"
        return ProtocolError(
            f"the source sent {what.__name__} {where}, where it cannot stand",
            "This is a bug, or a Postgres newer than this release knows: please report it.",
        )


def relations_of(changes: Iterable[Change]) -> list[Relation]:
    """Which relations these changes are of; one that comes again after another may be named again."""
    found: list[Relation] = []
    met: Relation | None = None
    for change in changes:
        if change[1] is not met:
            met = change[1]
            found.append(met)
    return found


def _handed_on(piece: Transaction, done: list[Transaction]) -> Transaction:
    """What has arrived of a transaction is handed on; the piece that follows it."""
    done.append(piece)
    return Transaction(piece.xid, piece.commit_lsn, piece.committed_at)


def _filled(relation: Relation, old: Row, old_is_whole: bool, new: Row) -> Row:
    """A new row without the gaps that the old one can fill: all of them, or those in the key.

    A key may itself be TOASTed; where it is, the server sends the old key even if it did not change.
    """
    return tuple(
        [
            o if n is UNCHANGED and (old_is_whole or column.key) else n
            for column, o, n in zip(relation.columns, old, new, strict=True)
        ]
    )
