"""`uuid::system::1`, the name of one version of a composition ↔ its three parts. No I/O."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

#: As text in lower case, so that one id is one text.
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FORM = re.compile(r"(?P<object_id>[^:]{36})::(?P<system>[^:\s]+)::(?P<number>[1-9][0-9]{0,8})")


class VersionUid(NamedTuple):
    """Which object, made by which system, and its how-manieth version."""

    object_id: str
    system: str
    number: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for anything else."""
        found = _FORM.fullmatch(text)
        object_id = uuid_in(found["object_id"]) if found else None
        if found is None or object_id is None:
            raise ValueError("not the uid of a version: uuid::system::number")
        return cls(object_id, found["system"], int(found["number"]))

    def next(self) -> Self:
        """The version that an update or a deletion of this one makes."""
        return self._replace(number=self.number + 1)

    def __str__(self) -> str:
        return f"{self.object_id}::{self.system}::{self.number}"


def uuid_in(text: str) -> str | None:
    """A UUID as we write it; None if the text is none."""
    lower = text.strip().strip('"').lower()
    return lower if _UUID.fullmatch(lower) else None


def version_in(text: str | None) -> VersionUid | None:
    """The version a header or a field names, quoted or not; None if it names none."""
    if text is None:
        return None
    try:
        return VersionUid.parse(text.strip().removeprefix("W/").strip('"'))
    except ValueError:
        return None
