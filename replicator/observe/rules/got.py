"""The words of a question and its answer: User and Subscription ask, Got is what they get. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from replicator.rules.ask import Granted


class Subscription(NamedTuple):
    """A stream that the client asks for, and with what."""

    name: str
    parameters: Mapping[str, Any]


class User(NamedTuple):
    """Who asks."""

    user_id: str
    jwt: Mapping[str, Any]
    parameters: Mapping[str, Any]
    subscriptions: tuple[Subscription, ...] = ()


class ShownRow(NamedTuple):
    """A row as clients get it."""

    bucket: str
    object_type: str
    object_id: str
    data: str


class Nothing(NamedTuple):
    """A way to buckets of a definition that led to none."""

    definition: str
    #: The query as it is written; several of one definition are told apart by it.
    query: str
    why: str


@dataclass(slots=True)
class Got:
    """What a user gets."""

    user_id: str
    now: float
    granted: list[Granted] = field(default_factory=list)
    nothing: list[Nothing] = field(default_factory=list)
    #: Streams that nobody gets without asking, and this user did not ask for.
    unasked: list[str] = field(default_factory=list)
    #: By bucket and the name clients see: how many rows.
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    rows: list[ShownRow] = field(default_factory=list)
    #: What was in the way of an answer, or makes it another than replication would give.
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 0 if self.granted else 1
