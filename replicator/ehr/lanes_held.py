"""What many lanes would wait for → held once, for all workers, and looked at now and then by one of them.

That the server does not answer, or does not let us in, or lacks a template, is no job's fault. So it is said
once, no lane is taken that would meet it, and whichever worker's turn it is asks whether it is over.
"""

from __future__ import annotations

import logging
from typing import Protocol

from replicator.ehr.circuit import Circuit, broken, hear
from replicator.ehr.deliver import End
from replicator.ehr.lanes_taken import SERVER, Lanes
from replicator.ehr.retry import Done, Hold, Retry
from replicator.marks import mark

#: The first look is after so long; then after as long as it has stood, and after so long at most.
LOOK_S = (1.0, 30.0)


class Asking(Protocol):
    """How one finds out."""

    async def server(self) -> End: ...

    async def template(self, name: str) -> End: ...


class Holds:
    """What holds lanes, as one worker knows it."""

    def __init__(self, lanes: Lanes, checks: Asking) -> None:
        self._lanes, self._checks = lanes, checks
        self.names: set[str] = set()
        #: Those that are being told of, and those that have been since the last look began: whoever asks for
        #: all of them may get an answer from before.
        self._telling: set[str] = set()
        self._told: set[str] = set()
        self.circuit = Circuit()

    @property
    def is_server_held(self) -> bool:
        return SERVER in self.names

    async def begin(self) -> None:
        """Ask the server before any job has to: an address that is wrong costs none of them a try."""
        self.names = await self._lanes.holds()
        if not self.is_server_held and not isinstance(end := await self._checks.server(), Done):
            await self._declare(end.reason)

    async def add(self, name: str, reason: str, pause_s: float = LOOK_S[0]) -> None:
        if name in self.names:
            return
        self.names.add(name)
        self._telling.add(name)
        self._told.add(name)
        mark("held", level=logging.WARNING, what=name, why=reason)
        try:
            await self._lanes.hold(name, reason, pause_s)
        finally:
            self._telling.discard(name)

    async def hear(self, end: End) -> None:
        """What an attempt came to: several that nobody answered are an outage, and one that none may make."""
        if self.is_server_held:
            return  # the answer to what was sent before says nothing about now
        if isinstance(end, Hold) and end.scope == "server":
            await self._declare(end.reason)
            return
        is_outage = isinstance(end, Retry) and end.is_outage
        self.circuit = hear(self.circuit, is_outage=is_outage)
        if self.circuit.is_broken:
            assert isinstance(end, Retry), "the last of several failures"
            await self._declare(end.reason)

    async def _declare(self, reason: str) -> None:
        self.circuit = broken(self.circuit)
        await self.add(SERVER, reason, self.circuit.pause_s)

    async def look(self) -> bool:
        """What holds now; whether anything does not any more. One worker asks the server for all."""
        before = self.names
        self._told = set(self._telling)
        found = await self._lanes.holds()
        self.names = found | self._told
        if self.names and (name := await self._lanes.due_hold(*LOOK_S)) is not None:
            if isinstance(await self._ask(name), Done):
                await self._lanes.end_hold(name)
                self.names.discard(name)
                mark("hold ended", level=logging.INFO, what=name)
        await self._lanes.let_go()
        return bool(before - self.names)

    async def _ask(self, name: str) -> End:
        return await (
            self._checks.server() if name == SERVER else self._checks.template(name.removeprefix("template "))
        )
