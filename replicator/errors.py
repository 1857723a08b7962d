"""What went wrong → what one does about it. No I/O.

    ReplicatorError                 every error of ours; has a hint, and the exit code it ends with
    ├── ConfigError            2    the operator wrote something wrong: key, place, remedy
    ├── SourceUnready          1    the source cannot be replicated yet: here is the SQL that fixes it
    │   ├── SlotBlocked             open transactions are in a new slot's way: it heals when they end
    │   ├── NewUnready              only rules in preparation need what is lacking: those in force go on
    │   └── OldUnready              only rules in force need it: those in preparation go on without them
    ├── StorageUnready         1    the storage is not ours to write: migrate, or stop the other writer
    ├── Diverged               1    what is stored and what the source says cannot both be true
    │   ├── SlotAhead               the slot confirmed more than is stored: changes are missing
    │   ├── SlotReplaced            a slot of this name, but not the one we were reading
    │   ├── SlotLost                the slot is gone or invalidated
    │   ├── SourceReplaced          another database system, or another timeline of it
    │   └── TableReentered          a table left the publication and came back: its gap is unknown
    ├── Unavailable            1    somebody does not answer: wait and try again
    │   └── StandingBy              another replicator writes: take over when it ends
    └── ProtocolError          1    bytes we do not understand: our bug, or a newer Postgres
        └── DecodeError             … at this offset of this message

A message says what and where; the hint says what to do. Neither ever holds a row's value: these are
health records, and errors end up in logs.
"""

import traceback


class ReplicatorError(Exception):
    """Something the replicator can name."""

    exit_code = 1

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        #: What happened and where, in one line.
        self.what = what
        #: What to do about it; may hold several lines of SQL to paste.
        self.hint = hint


class ConfigError(ReplicatorError):
    """The configuration, the rules or the command line cannot be meant."""

    exit_code = 2


class SourceUnready(ReplicatorError):
    """The source database lacks something replication needs."""


class SlotBlocked(SourceUnready):
    """A slot could not be made yet, because transactions are open."""


class NewUnready(SourceUnready):
    """The source lacks something that only the rules in preparation need."""


class OldUnready(SourceUnready):
    """The source lacks something that the rules in force need, and those in preparation do not."""


class StorageUnready(ReplicatorError):
    """The storage schema is missing, older, newer, or owned by another writer."""


class Diverged(ReplicatorError):
    """What is stored and what the source says cannot both be true; going on would be a lie."""


class SlotAhead(Diverged):
    """The slot's confirmed position is past the stored checkpoint."""


class SlotReplaced(Diverged):
    """A slot of the right name that is not the slot we were reading."""


class SlotLost(Diverged):
    """The slot was dropped or invalidated."""


class SourceReplaced(Diverged):
    """The source is another database system, or another timeline."""


class TableReentered(Diverged):
    """A table left the publication and came back."""


class Unavailable(ReplicatorError):
    """A server does not answer, or ended the conversation; trying again may heal it."""


class StandingBy(Unavailable):
    """Another replicator writes for this slot, as it should."""


class ProtocolError(ReplicatorError):
    """The source said something this version does not understand."""


class DecodeError(ProtocolError):
    """A message's bytes end early or make no sense."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(
            f"{what} at offset {offset}",
            "This is a bug, or a Postgres newer than this release knows: please report it "
            "with the server's version.",
        )
        self.offset = offset


def place_of(error: BaseException) -> str:
    """What a fault of ours is and where, without what it says: that might be a row's."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f" in {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + at
