"""Puts and Removes, and the ids they get → the lines in which COPY takes them as ops. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from replicator.rules.model import Put, Remove

#: COPY text format: what must be escaped in a value.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def encode_ops(intents: Iterable[Put | Remove], op_id: int) -> list[str]:
    """One line for each, with the ids that follow `op_id`; see `append_ops` for what stands where."""
    lines: list[str] = []
    append = lines.append
    for intent in intents:
        op_id += 1
        if type(intent) is Put:
            bucket, kind, row_id, subkey, data = intent
            op, checksum = "PUT", crc32(f"{kind}\t{row_id}\t{data}".encode())
            # JSON has already escaped everything but the backslashes it did so with.
            data = data.replace("\\", "\\\\") if "\\" in data else data
        else:
            bucket, kind, row_id, subkey = intent[:4]
            op, checksum, data = "REMOVE", crc32(f"{kind}\t{row_id}".encode()), "\\N"
        names = bucket + kind + row_id + subkey
        if not names.isprintable() or "\\" in names:
            bucket, kind, row_id, subkey = [
                name.translate(_ESCAPES) for name in (bucket, kind, row_id, subkey)
            ]
        append(f"{bucket}\t{op_id}\t{op}\t{kind}\t{row_id}\t{subkey}\t{checksum}\t{data}\n")
    return lines
