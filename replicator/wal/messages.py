"""What pgoutput says → Messages and the values in their rows, by Postgres's own names. No I/O.

The messages are those of the manual's chapter "Logical Replication Message Formats", protocol versions
1 to 4, and their fields have its names.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple, NoReturn, TypeAlias, final

from replicator.wal.lsn import Lsn

# -- Values ----------------------------------------------------------------------------------------


@final
class Unchanged:
    """A TOASTed value that the update did not touch, so the WAL did not resend it.

    There is one, `UNCHANGED`; compare with `is`. It is neither true nor false, so that `value or default`
    cannot lose a value; and it is no Enum member, so that neither a JSON encoder nor a database driver
    knows a way to write it down.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNCHANGED"

    def __bool__(self) -> NoReturn:
        raise TypeError("UNCHANGED is neither true nor false; ask `value is UNCHANGED`")

    def __reduce__(self) -> str:
        return "UNCHANGED"  # pickled and copied by name: it stays the only one


UNCHANGED: Final = Unchanged()

#: Text format is str, binary format bytes, SQL NULL None.
Value: TypeAlias = str | bytes | Unchanged | None
Row: TypeAlias = tuple[Value, ...]

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def to_datetime(microseconds: int) -> datetime:
    """A timestamp of the stream (microseconds since 2000-01-01 UTC) as a datetime."""
    return _EPOCH + timedelta(microseconds=microseconds)


# -- Messages --------------------------------------------------------------------------------------
# Times are microseconds since 2000-01-01 UTC. `relation` is the oid that a Relation message described.
# `xid` is only known inside a streamed block, except where the message itself is about a transaction.

Identity: TypeAlias = Literal["d", "n", "f", "i"]
#: What an old row is: the key only (all other columns None), or whole (REPLICA IDENTITY FULL).
OldKind: TypeAlias = Literal["K", "O"]


class Begin(NamedTuple):
    final_lsn: Lsn
    commit_time: int
    xid: int


class Commit(NamedTuple):
    commit_lsn: Lsn
    end_lsn: Lsn
    commit_time: int


class Origin(NamedTuple):
    commit_lsn: Lsn
    name: str


class Column(NamedTuple):
    name: str
    type_oid: int
    typmod: int
    key: bool


class Relation(NamedTuple):
    oid: int
    namespace: str
    name: str
    identity: Identity
    columns: tuple[Column, ...]
    xid: int | None = None


class Type(NamedTuple):
    oid: int
    namespace: str
    name: str
    xid: int | None = None


class Insert(NamedTuple):
    relation: int
    new: Row
    xid: int | None = None


class Inserts(NamedTuple):
    """What as many Inserts say, one after another, where nobody needs to hold each."""

    relation: int
    rows: list[Row]


class Update(NamedTuple):
    relation: int
    old: Row | None
    old_kind: OldKind | None
    new: Row
    xid: int | None = None


class Delete(NamedTuple):
    relation: int
    old: Row
    old_kind: OldKind
    xid: int | None = None


class Truncate(NamedTuple):
    relations: tuple[int, ...]
    cascade: bool
    restart_identity: bool
    xid: int | None = None


class LogicalMessage(NamedTuple):
    """What `pg_logical_emit_message` wrote; the manual calls it just Message."""

    transactional: bool
    lsn: Lsn
    prefix: str
    content: bytes
    xid: int | None = None


class StreamStart(NamedTuple):
    xid: int
    first: bool


class StreamStop(NamedTuple):
    pass


class StreamCommit(NamedTuple):
    xid: int
    commit_lsn: Lsn
    end_lsn: Lsn
    commit_time: int


class StreamAbort(NamedTuple):
    """The position and the time are sent with `streaming 'parallel'` only."""

    xid: int
    subxid: int
    abort_lsn: Lsn | None = None
    abort_time: int | None = None


class BeginPrepare(NamedTuple):
    prepare_lsn: Lsn
    end_lsn: Lsn
    prepare_time: int
    xid: int
    gid: str


class Prepare(NamedTuple):
    prepare_lsn: Lsn
    end_lsn: Lsn
    prepare_time: int
    xid: int
    gid: str


class CommitPrepared(NamedTuple):
    commit_lsn: Lsn
    end_lsn: Lsn
    commit_time: int
    xid: int
    gid: str


class RollbackPrepared(NamedTuple):
    prepare_end_lsn: Lsn
    rollback_end_lsn: Lsn
    prepare_time: int
    rollback_time: int
    xid: int
    gid: str


class StreamPrepare(NamedTuple):
    prepare_lsn: Lsn
    end_lsn: Lsn
    prepare_time: int
    xid: int
    gid: str


Message: TypeAlias = (
    Begin
    | Commit
    | Origin
    | Relation
    | Type
    | Insert
    | Update
    | Delete
    | Truncate
    | LogicalMessage
    | StreamStart
    | StreamStop
    | StreamCommit
    | StreamAbort
    | BeginPrepare
    | Prepare
    | CommitPrepared
    | RollbackPrepared
    | StreamPrepare
)
