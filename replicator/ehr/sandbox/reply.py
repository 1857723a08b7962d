"""What a call has to work with, and what it gives back: Room and Reply."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from starlette.requests import Request

from replicator.ehr.sandbox.store import Store


@dataclass(frozen=True, slots=True)
class Room:
    """Where a call takes place."""

    store: Store
    #: The server's name of itself: the middle of every version's uid.
    system: str
    now: datetime
    #: What a Location begins with.
    root: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A response to be."""

    status: int
    body: Any = field(default=None, repr=False)
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"


def wants_representation(request: Request) -> bool:
    return request.headers.get("prefer", "") == "return=representation"


def stored(room: Room, request: Request, status: int, path: str, tag: object, body: dict[str, Any]) -> Reply:
    """What was stored: with its body if that is preferred, else a 204 with nothing but where it is."""
    headers = {"Location": f"{room.root}ehrbase/rest/openehr/v1/{path}", "ETag": f'"{tag}"'}
    return Reply(status, body, headers) if wants_representation(request) else Reply(204, None, headers)


def moment(at: datetime) -> dict[str, str]:
    return {"_type": "DV_DATE_TIME", "value": at.isoformat(timespec="milliseconds")}
