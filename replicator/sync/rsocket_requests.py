"""The SETUP and the requests of a connection → who asks, and for what, or a Fault. No I/O."""

from __future__ import annotations

from typing import Any, NamedTuple

import bson
import orjson
from bson.errors import BSONError

from replicator.errors import ReplicatorError
from replicator.sync import request as requests
from replicator.sync.request import Request
from replicator.sync.rsocket_frames import ErrorCode, Payload, RequestStream, Setup

#: What all requests of a connection that are not complete yet may take.
REQUEST_MOST = 8 << 20
#: A small piece costs memory as well.
_PIECE_BYTES = 256
_JSON, _BSON = "application/json", "application/bson"
#: A client that says nothing for its own lifetime is gone; a lifetime nobody means is bounded.
_LIFETIME_S = (1.0, 300.0)


class Fault(ReplicatorError):
    """Ends a stream or a connection; an ERROR frame says so."""

    def __init__(self, error: ErrorCode, code: str, what: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.error, self.code = error, code


class Introduction(NamedTuple):
    """What a client says of itself before it asks for anything."""

    authorization: str | None
    #: Whether metadata, and bodies, are BSON documents rather than JSON.
    is_bson: bool
    data_is_bson: bool
    lifetime_s: float


def told(error: ReplicatorError, code: str) -> str:
    """What an ERROR frame says: clients look for the code, developers read the rest."""
    return f"[{code}] {error.what}. {error.hint}" if error.hint else f"[{code}] {error.what}"


def introduced(setup: Setup) -> Introduction:
    """What a SETUP says, if it is one that can be served."""
    if setup.version[0] != 1:
        raise Fault(ErrorCode.UNSUPPORTED_SETUP, "PSYNC_S2001", "Only version 1 of RSocket is served")
    if setup.resume_token is not None or setup.is_leased:
        raise Fault(ErrorCode.UNSUPPORTED_SETUP, "PSYNC_S2001", "Neither resumption nor leases are served")
    for media_type in (setup.metadata_type, setup.data_type):
        if media_type not in (_JSON, _BSON):
            what = "A media type of the connection is not served"
            raise Fault(ErrorCode.UNSUPPORTED_SETUP, "PSYNC_S2004", what, f"Use {_JSON} or {_BSON}.")
    is_bson = setup.metadata_type == _BSON
    metadata = _object(setup.metadata, is_bson)
    if metadata is None:
        raise Fault(ErrorCode.INVALID_SETUP, "PSYNC_S2001", "The metadata of the connection is no object")
    token = metadata.get("token")
    lifetime_s = max(setup.lifetime_ms, setup.keepalive_ms) / 1_000
    return Introduction(
        token if isinstance(token, str) else None,
        is_bson,
        setup.data_type == _BSON,
        min(max(lifetime_s, _LIFETIME_S[0]), _LIFETIME_S[1]),
    )


def asked(request: RequestStream, introduction: Introduction) -> Request:
    """What a whole request is for."""
    metadata = _object(request.metadata, introduction.is_bson)
    if metadata is None:
        raise Fault(ErrorCode.INVALID, "PSYNC_S2001", "The metadata of the request is no object")
    if metadata.get("path") != "/sync/stream":
        raise Fault(ErrorCode.REJECTED, "PSYNC_S2002", "The path does not exist", "There is /sync/stream.")
    body = requests.read(request.data, is_bson=introduction.data_is_bson)
    if isinstance(body, requests.Refused):
        raise Fault(ErrorCode.INVALID, "PSYNC_S2001", "Validation failed", "; ".join(body.messages))
    return body


class Pieces:
    """Requests that come in several frames."""

    def __init__(self) -> None:
        self._begun: dict[int, list[RequestStream | Payload]] = {}
        self._sizes: dict[int, int] = {}

    def __contains__(self, stream: int) -> bool:
        return stream in self._begun

    def __len__(self) -> int:
        return len(self._begun)

    def begin(self, request: RequestStream) -> RequestStream | None:
        """The request, if this is all of it."""
        self._begun[request.stream] = []
        self._sizes[request.stream] = 0
        return self.add(request)

    def add(self, piece: RequestStream | Payload) -> RequestStream | None:
        """The whole of a request that was begun, if this was the last piece."""
        stream = piece.stream
        self._begun[stream].append(piece)
        self._sizes[stream] += len(piece.data) + len(piece.metadata or b"") + _PIECE_BYTES
        if sum(self._sizes.values()) > REQUEST_MOST:
            self.drop(stream)
            what = f"The requests under way are longer than {REQUEST_MOST:,} bytes"
            raise Fault(ErrorCode.INVALID, "PSYNC_S2001", what)
        return None if piece.follows else self._whole(stream)

    def drop(self, stream: int) -> None:
        self._begun.pop(stream, None)
        self._sizes.pop(stream, None)

    def _whole(self, stream: int) -> RequestStream:
        pieces = self._begun[stream]
        self.drop(stream)
        first = pieces[0]
        assert isinstance(first, RequestStream), "a request begins with itself"
        metadata = [piece.metadata for piece in pieces if piece.metadata is not None]
        data = b"".join(piece.data for piece in pieces)
        return RequestStream(stream, first.n, b"".join(metadata) if metadata else None, data)


def _object(written: bytes | None, is_bson: bool) -> dict[str, Any] | None:
    try:
        value = bson.decode(written or b"") if is_bson else orjson.loads(written or b"")
    except (orjson.JSONDecodeError, BSONError, RecursionError, OverflowError, ValueError):
        return None
    return value if isinstance(value, dict) else None
