"""Bytes of a sync stream → the rows of a client that follows the protocol to the letter. No I/O.

Written from the protocol alone and sharing nothing with what it tests: it splits the stream, takes each line
apart by hand, keeps the two sums of every bucket, and shows rows only where the protocol lets it.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

import bson

NDJSON, BSON = "application/x-ndjson", "application/vnd.powersync.bson-stream"
WRAP = 1 << 32
INT64 = 1 << 63

Key = tuple[str, str, str]


class Mismatch(AssertionError):
    """What the client has does not add up to what it was told."""


@dataclass
class Kept:
    """A bucket as a client keeps it."""

    position: int = 0
    added: int = 0
    live: int = 0
    #: By row: the id of its last PUT, the checksum, the text.
    rows: dict[Key, tuple[int, int, str]] = field(default_factory=dict)

    def apply(self, op: dict[str, Any]) -> None:
        op_id, checksum = whole(op["op_id"]), sum_of(op["checksum"])
        assert op_id > self.position, "an op that the client has been sent already, or out of order"
        self.position = op_id
        match op["op"]:
            case "PUT" | "REMOVE" as what:
                key = op["object_type"], op["object_id"], op["subkey"]
                replaced = self.rows.pop(key, None)
                if replaced:
                    self.added, self.live = self.added + replaced[1], self.live - replaced[1]
                if what == "PUT":
                    self.rows[key] = op_id, checksum, text_of(op["data"])
                    self.live += checksum
                else:
                    assert op.get("data") is None
                    self.added += checksum
            case "MOVE" | "CLEAR" as what:
                assert set(op) == {"op_id", "op", "checksum"}
                if what == "MOVE":
                    self.added += checksum
                else:
                    self.added, self.live, self.rows = checksum, 0, {}
            case other:
                raise AssertionError(f"no op: {other}")


@dataclass
class Client:
    """What survives a connection, and the target of the present one."""

    content_type: str = NDJSON
    raw_data: bool = True
    kept: dict[str, Kept] = field(default_factory=dict)
    #: What the app sees, by type and id.
    rows: dict[tuple[str, str], str] = field(default_factory=dict)
    #: The write the app waits for, while it does.
    awaited_write: int = 0
    seen_write: int = 0
    #: By bucket: what the target says of it. None before the first checkpoint of a connection.
    target: dict[str, dict[str, Any]] | None = None
    target_op: int = 0
    target_write: int | None = None
    is_complete: bool = False
    completed: int = 0
    partials: list[int] = field(default_factory=list)

    def request(self) -> dict[str, Any]:
        """What it sends when it connects."""
        self.target, self.is_complete = None, False
        return {
            "buckets": [{"name": name, "after": str(kept.position)} for name, kept in self.kept.items()],
            "raw_data": self.raw_data,
            "include_checksum": True,
            "parameters": None,
            "client_id": "c1",
            "streams": {"include_defaults": True, "subscriptions": []},
        }

    def receive(self, stream: bytes) -> None:
        for line in lines_of(stream, self.content_type):
            self.take(line)

    def take(self, line: dict[str, Any]) -> None:
        assert len(line) == 1, "a line has exactly one key"
        [(kind, body)] = line.items()
        match kind:
            case "checkpoint":
                self._aim({bucket["bucket"]: bucket for bucket in body["buckets"]}, body)
                assert len(body["buckets"]) == len(self.target or {}), "a bucket is listed once"
            case "checkpoint_diff":
                assert self.target is not None, "a difference to nothing"
                target = {name: told for name, told in self.target.items()}
                for name in body["removed_buckets"]:
                    del target[name]
                target |= {bucket["bucket"]: bucket for bucket in body["updated_buckets"]}
                self._aim(target, body)
            case "data":
                assert self.target is not None and body["bucket"] in self.target
                assert body["data"], "a line without data"
                for op in body["data"]:
                    self.kept.setdefault(body["bucket"], Kept()).apply(op)
                    assert whole(op["op_id"]) <= self.target_op, "an op after the checkpoint"
            case "partial_checkpoint_complete":
                self._check(int32(body["priority"]))
                self.partials.append(body["priority"])
            case "checkpoint_complete":
                assert not self.is_complete, "completed twice"
                assert whole(body["last_op_id"]) == self.target_op
                self._check(None)
                self.is_complete = True
                self.completed += 1
                self._publish()
            case "token_expires_in":
                int32(body)
            case other:
                raise AssertionError(f"no line: {other}")

    def _aim(self, target: dict[str, dict[str, Any]], body: dict[str, Any]) -> None:
        for told in target.values():
            sum_of(told["checksum"]), int64(told["count"])
            assert int32(told["priority"]) in range(4)
        assert whole(body["last_op_id"]) >= self.target_op or self.target is None
        self.target, self.target_op = target, whole(body["last_op_id"])
        written = body["write_checkpoint"]
        self.target_write = None if written is None else whole(written)
        self.is_complete = False
        for name in set(self.kept) - set(target):
            del self.kept[name]

    def _check(self, priority: int | None) -> None:
        assert self.target is not None
        for name, told in self.target.items():
            if priority is not None and told["priority"] > priority:
                continue
            kept = self.kept.get(name, Kept())
            if (kept.added + kept.live) % WRAP != sum_of(told["checksum"]):
                raise Mismatch(f"{name} at {self.target_op}")
            if name in self.kept:
                kept.position = max(kept.position, self.target_op)

    def _publish(self) -> None:
        self.seen_write = max(self.seen_write, self.target_write or 0)
        if self.seen_write >= self.awaited_write:
            self.rows = shown({name: kept.rows for name, kept in self.kept.items()})


def shown(buckets: dict[str, dict[Key, tuple[int, int, str]]]) -> dict[tuple[str, str], str]:
    """The rows of several buckets together: of each, the newest text."""
    newest: dict[tuple[str, str], tuple[int, str]] = {}
    for rows in buckets.values():
        for (object_type, object_id, _), (op_id, _, text) in rows.items():
            if op_id > newest.get((object_type, object_id), (0, ""))[0]:
                newest[object_type, object_id] = op_id, text
    return {row: text for row, (_, text) in newest.items()}


def lines_of(stream: bytes, content_type: str) -> list[dict[str, Any]]:
    if content_type == NDJSON:
        assert not stream or stream.endswith(b"\n")
        return [json.loads(line) for line in stream.split(b"\n") if line.strip()]
    found, at = [], 0
    while at < len(stream):
        (length,) = struct.unpack_from("<i", stream, at)
        found.append(bson.decode(stream[at : at + length]))
        at += length
    assert at == len(stream), "the stream ends inside a document"
    return found


def text_of(data: Any) -> str:
    if isinstance(data, dict):
        return json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    assert isinstance(data, str) and isinstance(json.loads(data), dict)
    return data


def whole(text: Any) -> int:
    assert isinstance(text, str) and text.isdecimal() and int(text) < INT64
    return int(text)


def int64(number: Any) -> int:
    assert isinstance(number, int) and not isinstance(number, bool) and -INT64 <= number < INT64
    return int(number)


def int32(number: Any) -> int:
    assert -(1 << 31) <= int64(number) < 1 << 31
    return int(number)


def sum_of(number: Any) -> int:
    assert -(1 << 31) <= int64(number) < WRAP
    return int(number) % WRAP
