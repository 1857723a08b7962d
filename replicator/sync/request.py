"""The body of a sync request → Request, or everything that is wrong with it. No I/O.

What clients in the field send is taken as they mean it: null stands for absent, unknown fields are passed
over, a bucket named twice has the position named last. What cannot be meant is refused with one message for
each place. A message names the place and the form, never what stood there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple

import bson
import orjson
from bson.errors import BSONError

from replicator.buckets.model import OpId

#: Far beyond what anybody is granted, and still parsed in milliseconds.
BUCKETS_MAX = 20_000
SUBSCRIPTIONS_MAX = 10_000
#: A bucket's name holds the values of its parameters, so it may be long.
BUCKET_NAME_MAX = 16_384
NAME_MAX = 1_024
METADATA_MAX = 100
#: How deep arrays and objects may stand in each other in what the client says of itself.
DEPTH_MAX = 64
#: The sum of everything wrong may be longer than the request.
PROBLEMS_MAX = 20
OP_ID_MAX = (1 << 63) - 1
PRIORITIES = range(4)


class Subscription(NamedTuple):
    """A stream the client asked for, with its parameters."""

    #: Its place in the request, by which lines refer to it.
    at: int
    stream: str
    parameters: Mapping[str, Any]
    #: What the client wants instead of the stream's own; None also where it named no priority there is.
    override_priority: int | None


@dataclass(frozen=True, slots=True)
class Request:
    """What a client has, and what it asks for."""

    #: By the name of a bucket: the op up to which the client has it. Not all need be granted, or exist.
    buckets: Mapping[str, OpId] = field(default_factory=dict)
    client_id: str | None = None
    #: Whether JSON lines carry rows as text in a string; older clients want the object itself.
    raw_data: bool = False
    include_defaults: bool = True
    subscriptions: tuple[Subscription, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    #: For logs only.
    app_metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def furthest(self) -> OpId:
        """The last op the client may have: a checkpoint before it is older than what the client has seen."""
        return max(self.buckets.values(), default=OpId(0))


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a body is no request."""

    messages: tuple[str, ...]


class _Wrong(Exception):
    """A value that cannot be meant, and how it should be."""


def read(body: bytes, *, is_bson: bool = False) -> Request | Refused:
    """The request that these bytes are, in JSON or as a BSON document."""
    try:
        value = bson.decode(body) if is_bson else orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return Refused((f"body: not JSON: {error}",))
    except (BSONError, RecursionError, OverflowError, ValueError):
        return Refused(("body: not a BSON document",))
    return understood(value)


def understood(body: object) -> Request | Refused:
    """The request that this value is."""
    if not isinstance(body, dict):
        return Refused(("body: must be an object",))
    reading = _Reading()
    streams = reading.mapping("streams", body.get("streams"))
    request = Request(
        buckets=reading.buckets(body.get("buckets")),
        client_id=reading.client_id(body.get("client_id")),
        raw_data=reading.flag("raw_data", body.get("raw_data"), False),
        include_defaults=reading.flag("streams.include_defaults", streams.get("include_defaults"), True),
        subscriptions=reading.subscriptions(streams.get("subscriptions")),
        parameters=reading.parameters("parameters", body.get("parameters")),
        app_metadata=reading.metadata(body.get("app_metadata")),
    )
    return Refused(tuple(reading.problems[:PROBLEMS_MAX])) if reading.problems else request


class _Reading:
    """Takes a body apart and remembers what was wrong; what is wrong reads as if it were absent."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def wrong(self, place: str, what: str) -> None:
        self.problems.append(f"{place}: {what}")

    def mapping(self, place: str, value: object) -> dict[str, Any]:
        if value is None or isinstance(value, dict):
            return value or {}
        self.wrong(place, "must be an object")
        return {}

    def array(self, place: str, value: object, longest: int) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            self.wrong(place, "must be an array")
        elif len(value) > longest:
            self.wrong(place, f"must not have more than {longest} members")
        else:
            return value
        return []

    def text(self, place: str, value: object, longest: int = NAME_MAX) -> str:
        if type(value) is not str:  # BSON has code that passes for text, and is none
            self.wrong(place, "must be a string")
        elif len(value) > longest:
            self.wrong(place, f"must not be longer than {longest} characters")
        else:
            return value
        return ""

    def flag(self, place: str, value: object, default: bool) -> bool:
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.wrong(place, "must be true or false")
        return default

    def client_id(self, value: object) -> str | None:
        if value is None:
            return None
        text = self.text("client_id", value)
        if "\0" in text:  # it is stored, and Postgres has no such text
            self.wrong("client_id", "must not contain NUL")
        return text

    def buckets(self, value: object) -> dict[str, OpId]:
        found: dict[str, OpId] = {}
        for at, entry in enumerate(self.array("buckets", value, BUCKETS_MAX)):
            if not isinstance(entry, dict):
                self.wrong(f"buckets[{at}]", "must be an object")
                continue
            name = self.text(f"buckets[{at}].name", entry.get("name"), BUCKET_NAME_MAX)
            try:
                found[name] = _position(entry.get("after"))
            except _Wrong as error:
                self.wrong(f"buckets[{at}].after", str(error))
        return found

    def subscriptions(self, value: object) -> tuple[Subscription, ...]:
        found = []
        for at, entry in enumerate(self.array("streams.subscriptions", value, SUBSCRIPTIONS_MAX)):
            place = f"streams.subscriptions[{at}]"
            if not isinstance(entry, dict):
                self.wrong(place, "must be an object")
                continue
            stream = self.text(f"{place}.stream", entry.get("stream"))
            parameters = self.parameters(f"{place}.parameters", entry.get("parameters"))
            priority = self.priority(f"{place}.override_priority", entry.get("override_priority"))
            found.append(Subscription(at, stream, parameters, priority))
        return tuple(found)

    def priority(self, place: str, value: object) -> int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.wrong(place, "must be a number")
            return None
        return int(value) if value in PRIORITIES else None

    def parameters(self, place: str, value: object) -> dict[str, Any]:
        try:
            return {key: _plain(member) for key, member in self.mapping(place, value).items()}
        except _Wrong as error:
            self.wrong(place, str(error))
            return {}

    def metadata(self, value: object) -> dict[str, str]:
        found = self.mapping("app_metadata", value)
        if len(found) > METADATA_MAX:
            self.wrong("app_metadata", f"must not have more than {METADATA_MAX} members")
        elif not all(isinstance(member, str) for member in found.values()):
            self.wrong("app_metadata", "must have strings as values")
        else:
            return found
        return {}


def _position(value: object) -> OpId:
    """An op id as clients write it; absent is the beginning."""
    if value is None:
        return OpId(0)
    number = -1
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 19:
        number = int(value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        number = int(value)
    if not 0 <= number <= OP_ID_MAX:
        raise _Wrong("must be a decimal string from 0 to 2^63-1")
    return OpId(number)


def _plain(value: object, depth: int = 1) -> Any:
    """The same as JSON would have it: the numbers of BSON are of classes of their own."""
    if depth > DEPTH_MAX:
        raise _Wrong(f"must not be nested deeper than {DEPTH_MAX}")
    match value:
        case None | bool():
            return value
        case str() if type(value) is str:
            return value
        case int():
            return int(value)
        case float() if isfinite(value):
            return value
        case dict():
            return {key: _plain(member, depth + 1) for key, member in value.items()}
        case list():
            return [_plain(member, depth + 1) for member in value]
    raise _Wrong("must hold only what JSON can say")
