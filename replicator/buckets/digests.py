"""Names of buckets, by their digests → their numbers, a million of them in some 25 MB. No I/O.

A dictionary of as many names takes seven times the room. Here what is left of a name is 128 bits of its
SHA-256: two bytes say in which part it stands, fourteen tell it from the others there. Then comes its number,
in four. Nobody has ever seen two names of which these are the same, nor knows how to make them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256

_PARTS = 1 << 16
#: Of an entry: what is left of the name, and all of it.
_KEY, _ENTRY = 14, 18
#: In a part; on average it is half of that where there are a million.
_ENTRIES = 32
#: As many as this have room in nearly every part.
MOST = _PARTS * _ENTRIES * 3 // 4
_READ = struct.Struct(f">H{_ENTRY}s")


class Digests:
    """The numbers of many names."""

    def __init__(self) -> None:
        self._parts = [b""] * _PARTS

    def find(self, names: Sequence[str]) -> list[int | None]:
        """The number of each of these names; None for one that is not here."""
        parts, number = self._parts, int.from_bytes
        found: list[int | None] = []
        add = found.append
        for name in names:
            digest = sha256(name.encode()).digest()
            part = parts[digest[0] << 8 | digest[1]]
            at = part.find(digest[2:16])
            add(None if at < 0 else number(part[at + _KEY : at + _ENTRY], "big"))
        return found

    def add(self, name: str, number: int) -> None:
        """This name has this number. Where there are too many, it takes the place of the one added first."""
        digest = sha256(name.encode()).digest()
        at = digest[0] << 8 | digest[1]
        part = self._parts[at] + digest[2:16] + number.to_bytes(4, "big")
        self._parts[at] = part[-_ENTRIES * _ENTRY :]

    def read(self, entries: bytes) -> None:
        """Names added before all of these: of each, 16 bytes of its digest, and its number in four."""
        parts = self._parts
        for at, entry in _READ.iter_unpack(entries):
            parts[at] = entry + parts[at]
