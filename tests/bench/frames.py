"""A row → the frames in which the server would send it. No I/O."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from tests.bench import workload

_OID = 16_384
#: Name, type, and whether it is shown as part of the key: with REPLICA IDENTITY FULL, each is.
_COLUMNS = (
    ("id", 2950),
    ("patient_id", 2950),
    ("temperature_celsius", 1700),
    ("blood_pressure_systolic", 23),
    ("blood_pressure_diastolic", 23),
    ("heart_rate_bpm", 23),
    ("notes", 25),
    ("recorded_at", 1184),
    ("created_at", 1184),
)


def drains(rows: int, *, per_transaction: int, per_drain: int) -> Iterator[list[bytes]]:
    """So many inserts of the workload, as the stream would hand them over."""
    drain = [_framed(_relation())]
    for first in range(0, rows, per_transaction):
        lsn = 0x1000000 + first * 256
        drain.insert(len(drain) - (first == 0), _framed(b"B" + struct.pack(">QqI", lsn, 0, first + 1)))
        for number in range(first, first + per_transaction):
            drain.append(_framed(_insert(_values(number))))
            if len(drain) >= per_drain:
                yield drain
                drain = []
        drain.append(_framed(b"C" + struct.pack(">BQQq", 0, lsn, lsn + 64, 0)))
    yield drain


def _values(number: int) -> Sequence[str]:
    user = number % workload.USERS
    return (
        f"00000000-0000-4000-8000-{number:012d}",
        f"00000000-0000-4000-8000-{user:012d}",
        f"{36 + number % 30 / 10:.1f}",
        str(100 + number % 50),
        str(60 + number % 30),
        str(55 + number % 60),
        f"measured at rest, number {number} ".ljust(60, "."),
        f"2026-01-01 00:{number // 60 % 60:02d}:{number % 60:02d}+00",
        f"2026-01-01 00:{number // 60 % 60:02d}:{number % 60:02d}.000123+00",
    )


def _framed(message: bytes) -> bytes:
    return b"w" + bytes(24) + message


def _relation() -> bytes:
    name = workload.TABLE.encode()
    head = struct.pack(">cI", b"R", _OID) + b"public\0" + name + b"\0f" + struct.pack(">H", len(_COLUMNS))
    return head + b"".join(
        b"\1" + column.encode() + b"\0" + struct.pack(">Ii", type_oid, -1) for column, type_oid in _COLUMNS
    )


def _insert(values: Sequence[str]) -> bytes:
    cells = [b"t" + struct.pack(">i", len(value)) + value.encode() for value in values]
    return struct.pack(">cIcH", b"I", _OID, b"N", len(values)) + b"".join(cells)
