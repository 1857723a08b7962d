"""Lines × the credit a client has given → PAYLOAD frames, no more of them than that.

A line waits until there is credit for it, and whoever sends waits with it: for a client that gives none, no
more is held than the lines of one call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from replicator.sync.auth import EXPIRED, AuthError
from replicator.sync.lines import Encoding, Line, TokenLine, encode
from replicator.sync.rsocket_frames import NUMBER_MOST, values

#: Keepalives are frames of their own here, so a client is told of its token only when that is about to end.
_LAST_CALL_S = 20
#: How much longer than its token a client may take to make room for the line that says so.
_GRACE_S = 5.0


class Stream:
    """Where the lines of one stream go: an Out."""

    def __init__(
        self,
        stream: int,
        credit: int,
        write: Callable[[bytes], Awaitable[None]],
        left_s: Callable[[], float],
    ) -> None:
        self.stream = stream
        self.is_closed = False
        #: Called when nothing more can be sent.
        self.on_close: Callable[[], None] = lambda: None
        self._credit = credit
        self._more = asyncio.Event()
        self._write, self._left_s = write, left_s

    def give(self, credit: int) -> None:
        """The client has room for so many lines more."""
        self._credit = min(self._credit + credit, NUMBER_MOST)
        self._more.set()

    def close(self) -> None:
        """The client wants no more, or is gone: what is sent from now on is dropped."""
        self.is_closed = True
        self._more.set()
        self.on_close()

    async def send(self, lines: Sequence[Line]) -> None:
        for line in lines:
            if isinstance(line, TokenLine) and line.expires_in_s > _LAST_CALL_S:
                continue
            await self._send(encode(line, Encoding.BSON, raw_data=True))

    async def _send(self, document: bytes) -> None:
        try:
            async with asyncio.timeout(max(self._left_s() + _GRACE_S, 0.0)):
                await self._room()
                for message in values(self.stream, document):
                    if self.is_closed:
                        return
                    await self._write(message)
        except TimeoutError:
            raise AuthError(EXPIRED, "The token has expired") from None
        except OSError:
            self.close()

    async def _room(self) -> None:
        while not self._credit and not self.is_closed:
            self._more.clear()
            await self._more.wait()
        self._credit -= 1
