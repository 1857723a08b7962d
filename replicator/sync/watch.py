"""Every connection of a server, looked at now and then → those that are to be cut.

What asks costs a few kilobytes until it has asked, and what does not read holds what it is sent. Nothing
ends either: a peer that is there, and answers that its window is full, is never given up by the system.
So it is done here, for all connections together, since a timer for each would cost as much as serving it:

- Of those who are not known, the newest are kept, whatever they are at. Who means it has said who it is
  within milliseconds; what has been there longest is what is there to fill the place.
- Who has nothing answered asks within a while, and the end of a head counts, not bytes.
- Who takes nothing of what was sent for a long time has gone, whatever its system says. A slow client
  takes something.
- What is to be closed is closed soon, though there be something left that nobody takes.
- A stream ends with its token, also where the line that says so cannot leave.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Iterable
from typing import Protocol

from replicator.marks import mark

#: So many connections may be open that have not said who they are, or ask for what everybody may.
STRANGERS_MOST = 1_000
#: How long a request may take to be asked.
_ASK_S = 30.0
#: How long a client may take nothing. A phone that sleeps so long connects anew anyway.
_STALLED_S = 300.0
#: How long a connection may take to end.
_END_S = 60.0
#: To linger, for no time.
_AT_ONCE = struct.pack("ii", 1, 0)


class Stuck:
    """Since when a connection has not got on with what is to leave it."""

    __slots__ = ("is_ending", "left", "since")

    def __init__(self) -> None:
        self.left, self.since, self.is_ending = 0, 0.0, False

    def look(self, left: int, is_ending: bool, now: float) -> float:
        """For how long it has not; to be ending is a new beginning, and then getting on is not enough."""
        if not self.left or is_ending != self.is_ending or (left < self.left and not is_ending):
            self.since = now
        self.left, self.is_ending = left, is_ending
        return now - self.since


class Watched(Protocol):
    """A connection, and what of it has to be known."""

    transport: asyncio.Transport
    stuck: Stuck
    rests_since: float
    ends_at: float


class Watch:
    """Keeps what connections hold within bounds."""

    def __init__(self, strangers_most: int = STRANGERS_MOST) -> None:
        self._most = strangers_most
        #: The one that has rested longest first.
        self._strangers: dict[Watched, None] = {}

    def strange(self, connection: Watched) -> None:
        """Nobody is known there, now."""
        self._strangers.pop(connection, None)
        self._strangers[connection] = None
        if len(self._strangers) > self._most:
            _cut(next(iter(self._strangers)), "there are many that nobody knows")

    def forget(self, connection: Watched) -> None:
        """Somebody is known there, or it has ended."""
        self._strangers.pop(connection, None)

    def look(self, connections: Iterable[Watched], now: float) -> None:
        """Cut what has taken too long."""
        for connection in tuple(connections):
            if why := _overdue(connection, now):
                _cut(connection, why)


def _overdue(connection: Watched, now: float) -> str:
    transport = connection.transport
    if now >= connection.ends_at:
        return "its token has ended, and the client does not read"
    left, is_ending = transport.get_write_buffer_size(), transport.is_closing()
    if not left:
        connection.stuck.left = 0
        return "nothing was asked in time" if now - connection.rests_since >= _ASK_S else ""
    if connection.stuck.look(left, is_ending, now) >= (_END_S if is_ending else _STALLED_S):
        return "the client does not read"
    return ""


def _cut(connection: Watched, why: str) -> None:
    mark("connection cut", why=why)
    # Else the system would go on offering what it has of it, to one who has not taken it so far.
    fileno = connection.transport.get_extra_info("socket").fileno()
    if fileno >= 0:
        with socket.socket(fileno=os.dup(fileno)) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    connection.transport.abort()
