"""Statements that change something in storage or source → steps by name and number, at one of which we end.

A durable step is whatever our code sends that leaves something behind: a statement that is not known to
leave nothing, what a COPY is given and its end, the end of a transaction, and the position that is
acknowledged. They are counted as the driver is called; the code under test knows nothing of it. The process
kills itself just before a step or just after it, when its answer has come.

Steps are counted by name. How many COMMITs come before a slot is made again is chance, so that the
two-hundredth step of one day is something else in the next; its second making of a slot is the same.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from inspect import iscoroutinefunction
from typing import Any, Literal, NamedTuple
from weakref import WeakSet

import psycopg
from psycopg.copy import AsyncLibpqWriter
from psycopg.sql import Composable

from replicator import queries
from replicator.wal.stream import Stream

How = Literal["before", "after"]


class Fault(NamedTuple):
    """Before or after which step a process ends."""

    name: str
    #: The first of this name is 1.
    nth: int
    how: How


#: What leaves nothing behind, unless it calls something that does. Anything else is a step.
_HARMLESS = re.compile(r"(SELECT|SET|BEGIN|LISTEN|LOCK TABLE|IDENTIFY_SYSTEM)\b")
_CALLS = re.compile(r"\bpg_(?:create_logical_replication_slot|drop_replication_slot|logical_emit_message)\b")
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)
#: What our own statements are called.
_NAMES = {
    text: name
    for file in ("buckets", "copy", "rows", "source")
    for name, text in queries.load(file).blocks.items()
}


def name_of(query: object) -> str | None:
    """How a statement is called as a step, if it is one."""
    text = query.as_string(None) if isinstance(query, Composable) else query
    raw = text if isinstance(text, bytes) else str(text).encode()
    said = _COMMENT.sub("", raw.decode()).strip()
    call = _CALLS.search(said)
    if call is None and _HARMLESS.match(said):
        return None
    return _NAMES.get(raw) or (call[0] if call else said.split()[0])


class Steps:
    """Counts what this process does; `tell` hears of each step before it is taken."""

    def __init__(self, tell: Callable[[str], None], done: Iterable[str], fault: Fault | None) -> None:
        self._tell, self._fault = tell, fault
        self._done = Counter(done)
        # The stream acknowledges in a thread of its own.
        self._lock = threading.Lock()
        #: Connections with something to commit.
        self._changed: WeakSet[psycopg.AsyncConnection[Any]] = WeakSet()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        with self._lock:
            self._done[name] += 1
            nth = self._done[name]
            self._tell(name)
        self._end_if(Fault(name, nth, "before"))
        yield
        self._end_if(Fault(name, nth, "after"))

    def _end_if(self, reached: Fault) -> None:
        if reached == self._fault:
            os.kill(os.getpid(), signal.SIGKILL)

    def count(self) -> None:
        """From now on, in all of this process."""
        self._count_calls(psycopg.AsyncCursor, "execute", self._statement)
        self._count_calls(psycopg.AsyncTransaction, "__aenter__", self._beginning_of_transaction)
        self._count_calls(psycopg.AsyncTransaction, "__aexit__", self._end_of_transaction)
        self._count_calls(AsyncLibpqWriter, "write", lambda *_: "COPY data")
        self._count_calls(AsyncLibpqWriter, "finish", lambda *_: "COPY end")
        self._count_calls(Stream, "_say", _acknowledgement)

    def _count_calls(self, owner: type, method: str, name: Callable[..., str | None]) -> None:
        """Each call of a method is a step, if it has a name."""
        called = getattr(owner, method)

        async def in_time(*args: Any, **options: Any) -> Any:
            step = name(*args)
            with self.step(step) if step else nullcontext():
                return await called(*args, **options)

        def at_once(*args: Any, **options: Any) -> Any:
            step = name(*args)
            with self.step(step) if step else nullcontext():
                return called(*args, **options)

        setattr(owner, method, in_time if iscoroutinefunction(called) else at_once)

    def _statement(self, cursor: psycopg.AsyncCursor[Any], query: object, *_: object) -> str | None:
        name = name_of(query)
        if name is not None:
            self._changed.add(cursor.connection)
        return name

    def _beginning_of_transaction(self, transaction: psycopg.AsyncTransaction, *_: object) -> None:
        self._changed.discard(transaction.connection)

    def _end_of_transaction(self, transaction: psycopg.AsyncTransaction, *_: object) -> str | None:
        return "end of transaction" if transaction.connection in self._changed else None


def _acknowledgement(stream: Stream, *_: object) -> str | None:
    return "acknowledgement" if stream._acknowledged > stream._sent else None
