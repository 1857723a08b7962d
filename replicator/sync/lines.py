"""Lines of the sync protocol → bytes, as JSON by the line or BSON by the document. No I/O.

A line is an object with exactly one key, which is what kind of line it is. Ids of ops are decimal strings;
the sum of a bucket goes out as a signed number of 32 bits, the checksum of an op as an unsigned one, and
clients take both as the same; nothing is ever a Double.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

import bson
import orjson

from replicator.buckets.model import Op, OpId

#: A data line is closed at either; an op that is larger by itself goes alone.
LINE_OPS = 1_000
LINE_BYTES = 1 << 20
#: What an op's text is surrounded by: its ids, its checksum, the names of its fields.
_AROUND_BYTES = 160
_INT32_MAX = (1 << 31) - 1


class Encoding(Enum):
    """How lines are written; the value is the content type, which clients compare as a whole."""

    NDJSON = "application/x-ndjson"
    BSON = "application/vnd.powersync.bson-stream"


class Reason(NamedTuple):
    """Why a client has a bucket: one of the `streams` listed, by default, or one of its own subscriptions."""

    #: `default` or `sub`.
    kind: str
    at: int


class Listed(NamedTuple):
    """A bucket as a checkpoint tells of it."""

    bucket: str
    #: The sum of the checksums of all its ops up to the checkpoint, modulo 2^32.
    checksum: int
    ops_count: int
    priority: int
    reasons: tuple[Reason, ...]


class StreamError(NamedTuple):
    """What is wrong with a stream, for one subscription to it; None: for having it by default."""

    subscription: int | None
    message: str


class Stream(NamedTuple):
    """A stream the client is subscribed to."""

    name: str
    is_default: bool
    errors: tuple[StreamError, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckpointLine:
    """Everything the client is to have."""

    last_op_id: OpId
    write_checkpoint: int | None
    buckets: Sequence[Listed]
    streams: Sequence[Stream]


@dataclass(frozen=True, slots=True)
class DiffLine:
    """How that has changed since the last checkpoint told."""

    last_op_id: OpId
    write_checkpoint: int | None
    updated: Sequence[Listed]
    removed: Sequence[str]


@dataclass(frozen=True, slots=True)
class DataLine:
    """Ops of one bucket, in their order."""

    bucket: str
    after: OpId
    next_after: OpId
    has_more: bool
    ops: Sequence[Op]


@dataclass(frozen=True, slots=True)
class PartialLine:
    """The client has all of the buckets of this priority and of those before it."""

    last_op_id: OpId
    priority: int


@dataclass(frozen=True, slots=True)
class CompleteLine:
    """The client has all of the checkpoint."""

    last_op_id: OpId


@dataclass(frozen=True, slots=True)
class TokenLine:
    """A sign of life: for how long the client's token is good."""

    expires_in_s: int


Line: TypeAlias = CheckpointLine | DiffLine | DataLine | PartialLine | CompleteLine | TokenLine


def encode(line: Line, encoding: Encoding, *, raw_data: bool) -> bytes:
    """The bytes of a line, with whatever separates it from the next."""
    if isinstance(line, DataLine):
        return data_line(
            line.bucket, line.after, line.next_after, line.has_more, line.ops, encoding, raw_data=raw_data
        )
    return _written(_plain(line), encoding)


def data_line(
    bucket: str,
    after: OpId,
    next_after: OpId,
    has_more: bool,
    ops: Sequence[Op],
    encoding: Encoding,
    *,
    raw_data: bool,
) -> bytes:
    """The bytes of a data line."""
    as_objects = encoding is Encoding.NDJSON and not raw_data
    body = {
        "bucket": bucket,
        "after": str(after),
        "next_after": str(next_after),
        "has_more": has_more,
        "data": _ops(ops, as_objects),
    }
    written = _written({"data": body}, encoding)
    if as_objects and written.count(b"\n") > 1:
        # Between the parts of a spliced text only: within a JSON string a newline is always escaped.
        written = written[:-1].replace(b"\n", b" ") + b"\n"
    return written


def cut(ops: Sequence[Op]) -> Iterator[Sequence[Op]]:
    """The ops in runs that make lines of an acceptable size."""
    characters = sum([len(op.data) for op in ops if op.data is not None])
    if len(ops) <= LINE_OPS and 4 * characters + _AROUND_BYTES * len(ops) <= LINE_BYTES:
        if ops:
            yield ops  # however its characters are written
        return
    begin, size = 0, 0
    for at, op in enumerate(ops):
        data = op.data
        more = _AROUND_BYTES
        if data is not None:
            more += len(data) if data.isascii() else len(data.encode())
        if at > begin and (size + more > LINE_BYTES or at - begin == LINE_OPS):
            yield ops[begin:at]
            begin, size = at, 0
        size += more
    if begin < len(ops):
        yield ops[begin:] if begin else ops


def _ops(ops: Sequence[Op], as_objects: bool) -> list[dict[str, Any]]:
    """This is the path every row takes, so it is one loop, without a call per op."""
    written: list[dict[str, Any]] = []
    append = written.append
    for op_id, _, op, object_type, object_id, subkey, checksum, data in ops:
        plain: dict[str, Any] = {"op_id": str(op_id), "op": op, "checksum": checksum & 0xFFFFFFFF}
        if op == "PUT" or op == "REMOVE":
            plain["object_type"] = object_type
            plain["object_id"] = object_id
            plain["subkey"] = subkey
            if op == "PUT":
                plain["data"] = orjson.Fragment(data) if as_objects and data is not None else data
        append(plain)
    return written


def _written(line: dict[str, Any], encoding: Encoding) -> bytes:
    if encoding is Encoding.NDJSON:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    return bson.encode(line)


def _plain(line: Line) -> dict[str, Any]:
    match line:
        case CheckpointLine(last_op_id, write_checkpoint, buckets, streams):
            body: dict[str, Any] = {
                "last_op_id": str(last_op_id),
                "write_checkpoint": _optional(write_checkpoint),
                "buckets": [_listed(bucket) for bucket in buckets],
                "streams": [_stream(stream) for stream in streams],
            }
            return {"checkpoint": body}
        case DiffLine(last_op_id, write_checkpoint, updated, removed):
            body = {
                "last_op_id": str(last_op_id),
                "write_checkpoint": _optional(write_checkpoint),
                "updated_buckets": [_listed(bucket) for bucket in updated],
                "removed_buckets": list(removed),
            }
            return {"checkpoint_diff": body}
        case PartialLine(last_op_id, priority):
            return {"partial_checkpoint_complete": {"last_op_id": str(last_op_id), "priority": priority}}
        case CompleteLine(last_op_id):
            return {"checkpoint_complete": {"last_op_id": str(last_op_id)}}
        case TokenLine(expires_in_s):
            return {"token_expires_in": min(max(expires_in_s, 0), _INT32_MAX)}
    raise AssertionError(f"no line: {type(line).__name__}")


def _optional(number: int | None) -> str | None:
    return None if number is None else str(number)


def _listed(listed: Listed) -> dict[str, Any]:
    checksum = listed.checksum & 0xFFFFFFFF
    return {
        "bucket": listed.bucket,
        "checksum": checksum - (1 << 32) if checksum > _INT32_MAX else checksum,
        "count": listed.ops_count,
        "priority": listed.priority,
        "subscriptions": [{reason.kind: reason.at} for reason in listed.reasons],
    }


def _stream(stream: Stream) -> dict[str, Any]:
    errors = [
        {"subscription": "default" if at is None else at, "message": message} for at, message in stream.errors
    ]
    return {"name": stream.name, "is_default": stream.is_default, "errors": errors}
