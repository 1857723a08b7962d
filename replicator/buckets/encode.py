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
    #: What clients call the row before, if that needed no escapes: the next one's is mostly the same.
    met = ""
    for intent, bucket in zip(intents, buckets, strict=True):
        op_id += 1
        if type(intent) is Put:
            op, (_, kind, row_id, subkey, data) = "PUT", intent
            # JSON has already escaped everything but the backslashes it did so with.
            if "\\" in data:
                data = data.replace("\\", "\\\\")
        else:
            op, (_, kind, row_id, subkey), data = "REMOVE", intent[:4], "\\N"
        # An id is nearly always part of the subkey, and needs no look of its own.
        names = subkey if row_id in subkey else subkey + row_id
        if kind is not met:
            names += kind
        if "\\" in names or "\t" in names or "\n" in names or "\r" in names:
            kind, row_id, subkey = [name.translate(_ESCAPES) for name in (kind, row_id, subkey)]
        else:
            met = kind
        row = f"{op}\t{kind}\t{row_id}\t{subkey}\t{data}\n".encode()
        checksum = crc32(row)
        if checksum >= 0x80000000:
            checksum -= 0x100000000
        append(b"%d\t%d\t%d\t" % (op_id, bucket, checksum))
        append(row)
    return b"".join(parts)
