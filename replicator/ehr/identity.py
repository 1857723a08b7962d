"""Names of things in the source → the ids they have in the record, always the same. No I/O.

The ids are version 5 UUIDs: a hash of a name. Whoever computes them again, after a crash or on another
machine, asks for the same EHR and the same composition, and the record system itself refuses the second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from uuid_utils import UUID
from uuid_utils import uuid5 as hashed

from replicator.wal.lsn import Lsn

#: Under which all of our names are hashed; chosen once, never changed.
SPACE = UUID("5d0c0d2e-6a1b-4f0f-9a55-c1d64c8f6d17")


def uuid5(space: UUID, name: str) -> str:
    """The version 5 UUID of a name, as RFC 9562 defines it."""
    return str(hashed(space, name))


def bytes_of(uuid: str) -> bytes:
    """A UUID as storage has it."""
    return bytes.fromhex(uuid.replace("-", ""))


def joined(parts: Sequence[str]) -> str:
    """Parts as one name; no two different sequences of parts have the same one."""
    plain = "/".join(parts)
    if "~" not in plain and plain.count("/") == len(parts) - 1:
        return plain
    return "/".join(part.replace("~", "~0").replace("/", "~1") for part in parts)


def number_of(name: bytes) -> int:
    """A number that stands for a name, and fits a bigint. Two names may have the same one."""
    return int.from_bytes(hashlib.sha1(name, usedforsecurity=False).digest()[:8], signed=True)


@lru_cache(maxsize=65_536)
def ehr_id(namespace: str, patient: str) -> str:
    """The EHR of a patient."""
    return uuid5(SPACE, joined(("ehr", namespace, patient)))


def composition_id(system: str, mapping: str, patient: str, record: Sequence[str]) -> str:
    """The composition of a record: of a row, of an episode, or of a patient.

    The patient is part of its name: a row that is moved to another patient becomes another composition,
    because the id of the one deleted in the first EHR can never be used in a second.
    """
    return composition_named(compositions_begin(system, mapping), patient, joined(record))


@lru_cache(maxsize=1024)
def compositions_begin(system: str, mapping: str) -> str:
    """What the names of the compositions of a mapping begin with."""
    return joined(("composition", system, mapping))


def composition_named(begun: str, patient: str, record: str) -> str:
    """The same composition, where its record is one text."""
    return uuid5(SPACE, f"{begun}/{joined((patient,))}/{record}")


def contribution_id(system: str, ehr: str, versions: Sequence[str]) -> str:
    """The contribution that brings these versions of these changes into an EHR."""
    return uuid5(SPACE, joined(("contribution", system, ehr, *versions)))


class ChangeId(NamedTuple):
    """A change of the source: where its transaction committed, and its place within that."""

    commit_lsn: Lsn
    ordinal: int

    def __str__(self) -> str:
        return f"{self.commit_lsn}:{self.ordinal}"

    @property
    def is_of_log(self) -> bool:
        """Whether a transaction committed there.

        Records of the log begin at multiples of eight; rows that were read from a table count as changes one
        byte before one, and had nothing to do with each other.
        """
        return self.commit_lsn % 8 == 0

    @classmethod
    def parse(cls, text: str) -> ChangeId:
        """ValueError if it is none: somebody else wrote it."""
        lsn, colon, ordinal = text.rpartition(":")
        if not colon or not (ordinal.isascii() and ordinal.isdigit() and len(ordinal) < 19):
            raise ValueError("not a change id")
        return cls(Lsn.parse(lsn), int(ordinal))
