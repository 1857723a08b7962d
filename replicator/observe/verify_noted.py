"""What must be in buckets and lookups → kept on disk until it has been compared, however much it is.

Of a row only its place and a digest are kept, in a file without a name that ends with this process.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

from replicator.rules.model import Put

_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32000;
CREATE TABLE rows (bucket, object_type, object_id, subkey, digest,
                   PRIMARY KEY (bucket, object_type, object_id, subkey)) WITHOUT ROWID;
CREATE TABLE entries (lookup, key, subkey, digest,
                      PRIMARY KEY (lookup, key, subkey, digest)) WITHOUT ROWID;
"""
_ROW = "bucket = ? AND object_type = ? AND object_id = ? AND subkey = ?"


class Place(NamedTuple):
    """Where a row is held."""

    bucket: str
    object_type: str
    object_id: str
    subkey: str


class EntryPlace(NamedTuple):
    """Where an entry of a lookup stands, and a digest of what it leads to."""

    lookup: str
    key: str
    subkey: str
    digest: bytes


def digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()


class Noted:
    """What is expected and has not been found yet."""

    def __init__(self) -> None:
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.executescript(_TABLES)
        # One transaction that is never completed: nothing has to outlive this.
        self._file.execute("BEGIN")

    def close(self) -> None:
        self._file.close()

    def expect(self, puts: Iterable[Put], entries: Iterable[tuple[str, str, str, str]]) -> None:
        """These rows and entries must be there."""
        self._file.executemany(
            "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?)",
            ((*put[:4], digest(put.data)) for put in puts),
        )
        self._file.executemany(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)",
            ((lookup, key, subkey, digest(value)) for lookup, key, value, subkey in entries),
        )

    def find(self, place: Place, data: str) -> bool:
        """A row is there: whether it is one that is expected, and as it is expected."""
        found = self._file.execute(f"DELETE FROM rows WHERE {_ROW} RETURNING digest", place).fetchall()
        return bool(found) and found[0][0] == digest(data)

    def find_entry(self, entry: EntryPlace) -> bool:
        where = "lookup = ? AND key = ? AND subkey = ? AND digest = ?"
        return bool(self._file.execute(f"DELETE FROM entries WHERE {where} RETURNING 1", entry).fetchall())

    def missing(self) -> Iterator[Place]:
        """What was expected and has not been found."""
        for row in self._file.execute("SELECT bucket, object_type, object_id, subkey FROM rows"):
            yield Place(*row)

    def forget(self) -> None:
        """Nothing is expected any more."""
        self._file.execute("DELETE FROM rows")
        self._file.execute("DELETE FROM entries")

    def missing_entries(self) -> Iterator[EntryPlace]:
        for row in self._file.execute("SELECT lookup, key, subkey, digest FROM entries"):
            yield EntryPlace(*row)
