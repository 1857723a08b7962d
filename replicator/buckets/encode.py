"""Puts and Removes → lines of COPY, each with its op id and checksum. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

from replicator.rules.model import Put, Remove

#: COPY text format: what must be escaped in a value.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def encode_ops(intents: Sequence[Put | Remove], op_id: int, buckets: Sequence[int]) -> bytes:
    """A line for each, with the ids that follow `op_id`; see `append_ops` for what stands where.

    The checksum is that of what the line says of the row. Storage has its 32 bits as a signed number.
    """
    parts: list[bytes] = []
    append = parts.append
    for intent, bucket in zip(intents, buckets, strict=True):
        op_id += 1
        if type(intent) is Put:
            _, kind, row_id, subkey, data = intent
            op = "PUT"
            # JSON has already escaped everything but the backslashes it did so with.
            data = data.replace("\\", "\\\\") if "\\" in data else data
        else:
            _, kind, row_id, subkey = intent[:4]
            op, data = "REMOVE", "\\N"
        if not (row_id.isprintable() and subkey.isprintable() and kind.isprintable()) or (
            "\\" in row_id or "\\" in subkey or "\\" in kind
        ):
            kind, row_id, subkey = [name.translate(_ESCAPES) for name in (kind, row_id, subkey)]
        row = f"{op}\t{kind}\t{row_id}\t{subkey}\t{data}\n".encode()
        checksum = crc32(row)
        if checksum >= 0x80000000:
            checksum -= 0x100000000
        append(f"{op_id}\t{bucket}\t{checksum}\t".encode())
        append(row)
    return b"".join(parts)
