"""What must be in buckets and lookups → kept on disk until it has been compared, however much it is.

Of a row only its place and a digest are kept, in a file without a name that ends with this process.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

import orjson

from replicator.buckets.kept import Place as Kept
from replicator.rules.model import Put

_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32000;
CREATE TABLE rows (bucket, object_type, object_id, subkey, digest, bare,
                   PRIMARY KEY (bucket, object_type, object_id, subkey)) WITHOUT ROWID;
CREATE TABLE entries (lookup, key, subkey, digest,
                      PRIMARY KEY (lookup, key, subkey, digest)) WITHOUT ROWID;
CREATE TABLE kept (place PRIMARY KEY, digest) WITHOUT ROWID;
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


def digest(text: str | bytes) -> bytes:
    return blake2b(text.encode() if isinstance(text, str) else text, digest_size=16).digest()


def bare(data: str) -> bytes:
    """What a row says, without what is NULL: a column added since is not there, and read as that."""
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError:
        return data.encode()
    if not isinstance(said, dict):
        return data.encode()
    return orjson.dumps({name: value for name, value in said.items() if value is not None})


def _bare_of_expected(data: str) -> bytes:
    return digest(bare(data)) if ":null" in data else digest(data)


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
            "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?)",
            ((*put[:4], digest(put.data), _bare_of_expected(put.data)) for put in puts),
        )
        self._file.executemany(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)",
            ((lookup, key, subkey, digest(value)) for lookup, key, value, subkey in entries),
        )

    def expect_kept(self, kept: Iterable[tuple[Kept, bytes]]) -> None:
        """These rows must be kept, as they are here."""
        self._file.executemany(
            "INSERT OR REPLACE INTO kept VALUES (?, ?)", ((place, digest(row)) for place, row in kept)
        )

    def find_kept(self, place: Kept, row: bytes) -> bool:
        """A row is kept: whether it is one that is expected, and as it is expected."""
        found = self._file.execute("DELETE FROM kept WHERE place = ? RETURNING digest", [place]).fetchall()
        return bool(found) and found[0][0] == digest(row)

    def missing_kept(self) -> Iterator[Kept]:
        for (place,) in self._file.execute("SELECT place FROM kept"):
            yield place

    def find(self, place: Place, data: str) -> bool:
        """A row is there: whether it is one that is expected, and as it is expected."""
        found = self._file.execute(f"DELETE FROM rows WHERE {_ROW} RETURNING digest, bare", place).fetchall()
        return bool(found) and (found[0][0] == digest(data) or found[0][1] == digest(bare(data)))

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
        self._file.execute("DELETE FROM kept")

    def missing_entries(self) -> Iterator[EntryPlace]:
        for row in self._file.execute("SELECT lookup, key, subkey, digest FROM entries"):
            yield EntryPlace(*row)
