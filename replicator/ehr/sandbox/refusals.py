"""A reason not to do something → the status and the body EHRbase has for it. No I/O."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from replicator.ehr.client.versions import uuid_in

GENERIC = "An internal error has occurred. Please contact your administrator."


class Refused(Exception):
    """What a call raises in order not to be done; nothing of its transaction stays."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        return {"error": HTTPStatus(self.status).phrase, "message": self.message}


def unknown_ehr(ehr_id: str) -> Refused:
    return Refused(404, f"EHR with id {ehr_id} not found")


def no_such_composition() -> Refused:
    return Refused(
        404, "No EHR with the supplied ehr_id or no COMPOSITION with the supplied versioned_object_uid."
    )


def uuid_of(text: str, status: int, what: str) -> str:
    """The UUID of a path; `status` is what the call in question has for anything else."""
    found = uuid_in(text)
    if found is None:
        raise Refused(status, f"{what} is not a UUID")
    return found
