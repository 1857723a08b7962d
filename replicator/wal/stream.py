"""A replication slot → frames of its stream, drained in batches, and answers to the server.

Theory. One connection carries both directions. A thread of its own owns it, for one reason: the server ends
a client it has not heard from for `wal_sender_timeout`, and whether it hears from us must not depend on how
busy the pipeline is. The thread drains what libpq has into a bounded queue, and answers the server by its
own clock: at least every third of that timeout, at once when asked, and soon after an acknowledgement.

When the queue is full the thread stops reading (the kernel's buffers fill, and the server waits), but it
goes on answering. A server that wants to end us then cannot: its last word waits behind what we do not read,
and whoever waits for that process waits, too (`source.is_held_up` finds out).

When the server falls silent for longer than it should, the stream ends with Unavailable: a half-open
connection looks just like a quiet one, so after half that time, or soon, we ask for a sign of life.

What is acknowledged is exactly what `acknowledge` was last given; nothing here ever advances it.

Replication uses psycopg's libpq object directly (`pgconn`); no other module does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from replicator import pulse
from replicator.database import failure
from replicator.dsn import describe_dsn
from replicator.errors import ReplicatorError, SlotLost, SourceUnready, Unavailable
from replicator.marks import mark
from replicator.wal.frames import KEEPALIVE, status_update, wants_reply
from replicator.wal.lsn import Lsn
from replicator.wal.source import printing

#: A drain brings about this much at most, then looks at the clock.
_DRAIN_BYTES = 1 << 16
#: `receive` hands on about so much at once, where it has arrived: every hand-over costs the same.
_HANDED_BYTES = 1 << 18
#: Frames waiting for the pipeline beyond this stop the reading.
_QUEUE_BYTES = 1 << 23
#: With this left of them it begins again: waking the thread for every handful costs more than reading it.
_RESUME_BYTES = 1 << 22
#: The longest the server goes without hearing from us, whatever its timeout.
_FEEDBACK_S_MAX = 10.0
#: A server that has nothing to say is asked for a sign of life after so long: then whoever receives has
#: something to receive, and goes round.
_ASK_S_MAX = 10.0
#: To connect, and then to begin to stream.
_ANSWER_S = 10
#: An acknowledgement waits this long for company before it is sent.
_ACKNOWLEDGE_S = 0.1
_START_OVER = "To start over beside what is stored, which stays served meanwhile: replicator snapshot --all"

Clock = Callable[[], float]


class Stream:
    """One slot's stream: `await receive()` for frames, `acknowledge(lsn)` for what is stored."""

    def __init__(
        self,
        dsn: str,
        slot: str,
        publication: str,
        start: Lsn,
        *,
        timeout_s: float,
        agreed: Callable[[], Awaitable[None]] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._dsn, self._slot, self._publication = dsn, slot, publication
        self._acknowledged = self._sent = start
        # A server without a timeout (0) never gives us up; we still want to know whether it lives.
        self._patience_s = 2 * timeout_s if timeout_s > 0 else 120.0
        self._feedback_s = min(timeout_s / 3 if timeout_s > 0 else _FEEDBACK_S_MAX, _FEEDBACK_S_MAX)
        #: Asked when nobody else can have the slot any more, and it has been told nothing yet.
        self._agreed = agreed
        self._clock = clock
        self._frames: deque[list[bytes]] = deque()
        # Two counters with one writer each, so that no lock is needed between the thread and the loop.
        self._given_bytes = self._taken_bytes = 0
        #: Whether the thread has stopped reading, and waits to be told that there is room again.
        self._is_paused = False
        #: When the pipeline last took something.
        self._taken_at = clock()
        self._ended: ReplicatorError | None = None
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._poked, self._poke = os.pipe()
        os.set_blocking(self._poke, False)
        self._thread = threading.Thread(target=self._run, name=f"stream {slot}", daemon=True)

    async def __aenter__(self) -> Stream:
        connecting = asyncio.ensure_future(asyncio.to_thread(self._connect))
        try:
            self._connection = await asyncio.shield(connecting)
        except BaseException:
            # A thread cannot be cancelled; what it has opened would stay open.
            await asyncio.wait({connecting})
            if not connecting.cancelled() and connecting.exception() is None:
                connecting.result().close()
            self._close_pipe()
            raise
        try:
            if self._agreed is not None:
                await self._agreed()
            self._thread.start()
        except BaseException:
            self._connection.close()
            self._close_pipe()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        # The thread ends within one turn of its loop; a cancelled wait for it must not leave it running.
        self._thread.join()
        self._connection.close()
        self._close_pipe()

    def _close_pipe(self) -> None:
        os.close(self._poke)
        os.close(self._poked)

    async def receive(self) -> list[bytes]:
        """What has arrived, in order and not too much; nothing once stopped; raises what ended the stream."""
        pulse.went_round()
        while not self._frames or self._stopping:
            self._arrived.clear()
            if self._stopping:
                return []
            if self._frames:
                break
            if self._ended is not None:
                raise self._ended
            await self._arrived.wait()
        frames = self._frames.popleft()
        size = sum(map(len, frames))
        while self._frames and size < _HANDED_BYTES:
            more = self._frames.popleft()
            frames += more
            size += sum(map(len, more))
        self._taken_bytes += size
        self._taken_at = self._clock()
        if self._is_paused and self._given_bytes - self._taken_bytes < _RESUME_BYTES:
            self._wake_thread()
        return frames

    @property
    def waiting(self) -> bool:
        """Whether `receive` would return at once."""
        return bool(self._frames)

    @property
    def stuck_s(self) -> float:
        """For how long nothing has been read from the source, because nothing has been taken from here."""
        return self._clock() - self._taken_at if self._is_paused else 0.0

    @property
    def sender_pid(self) -> int:
        """The process of the source at the other end."""
        return self._connection.info.backend_pid

    @property
    def _is_full(self) -> bool:
        return self._given_bytes - self._taken_bytes >= _QUEUE_BYTES

    def stop(self) -> None:
        """End the stream: `receive` returns nothing from now on."""
        self._stopping = True
        self._wake_thread()
        self._arrived.set()

    def acknowledge(self, lsn: Lsn) -> None:
        """Everything up to here is stored; the server may forget it. Never goes back."""
        if lsn > self._acknowledged:
            self._acknowledged = lsn
            self._wake_thread()

    # -- before the thread -------------------------------------------------------------------------

    def _connect(self) -> psycopg.Connection:
        where = f"cannot replicate from {describe_dsn(self._dsn)}"
        known = conninfo_to_dict(self._dsn)
        settings: dict[str, str | int] = {
            "application_name": f"replicator {self._slot}",
            "connect_timeout": _ANSWER_S,
            "keepalives_idle": 30,
        }
        try:
            connection = psycopg.Connection.connect(
                make_conninfo(
                    printing(self._dsn),
                    replication="database",
                    **{key: value for key, value in settings.items() if key not in known},
                ),
                autocommit=True,
            )
        except psycopg.Error as error:
            raise failure(error, where) from error
        try:
            with suppress(psycopg.Error):  # unknown before 17; each transaction that is read counts as one
                connection.execute("SET transaction_timeout = 0")
            self._start(connection.pgconn)
        except psycopg.Error as error:
            connection.close()
            raise failure(error, where) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _start(self, pgconn: pq.abc.PGconn) -> None:
        publication = self._publication.replace("'", "''").replace('"', '""')
        slot = self._slot.replace('"', '""')
        command = (
            f'START_REPLICATION SLOT "{slot}" LOGICAL {self._acknowledged} '
            f"(proto_version '1', publication_names '\"{publication}\"', messages 'true')"
        )
        pgconn.send_query(command.encode())
        result = self._answer(pgconn)
        if result is None or result.status != pq.ExecStatus.COPY_BOTH:
            raise _refusal(result, self._slot)
        pgconn.nonblocking = 1
        mark("streaming", level=logging.INFO, slot=self._slot, start=self._acknowledged)

    def _answer(self, pgconn: pq.abc.PGconn) -> pq.abc.PGresult | None:
        """What the server says to a command, if it says something in time."""
        poll = select.poll()
        poll.register(pgconn.socket, select.POLLIN)
        until = self._clock() + _ANSWER_S
        while pgconn.is_busy():
            if not poll.poll(max(0, until - self._clock()) * 1000):
                raise Unavailable(f"the source did not begin to stream slot {self._slot} in {_ANSWER_S} s")
            pgconn.consume_input()
        return pgconn.get_result()

    # -- in the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._converse(self._connection.pgconn)
            self._say(self._connection.pgconn)
        except ReplicatorError as error:
            self._ended = error
        except psycopg.Error as error:
            self._ended = failure(error, f"the stream of slot {self._slot} ended")
        except BaseException as error:
            self._ended = ReplicatorError(f"the stream of slot {self._slot} ended: {error!r}")
        self._tell_loop()

    def _converse(self, pgconn: pq.abc.PGconn) -> None:
        poll = select.poll()
        poll.register(self._poked, select.POLLIN)
        poll.register(pgconn.socket, select.POLLIN)
        heard = self._clock()
        spoke = asked = heard - self._feedback_s
        while not self._stopping:
            # Said before looking: room made between the two is seen here, and room made later wakes us.
            self._is_paused = True
            full = self._is_paused = self._is_full
            poll.modify(pgconn.socket, 0 if full else select.POLLIN)
            got, reply = (0, False) if full else self._drain(pgconn)
            now = self._clock()
            if got or full:
                heard = now
            behind = self._sent != self._acknowledged and now - spoke >= _ACKNOWLEDGE_S
            if reply or behind or now - spoke >= self._feedback_s:
                ask = now - max(heard, asked) >= min(self._patience_s / 2, _ASK_S_MAX)
                asked = now if ask else asked
                self._say(pgconn, ask=ask)
                spoke = now
            if now - heard >= self._patience_s:
                raise Unavailable(
                    f"the source of slot {self._slot} has been silent for {self._patience_s:.0f} s",
                    "A network path may have broken without a word; connecting again.",
                )
            if got < _DRAIN_BYTES:
                pending = self._sent != self._acknowledged
                wait_s = spoke + (_ACKNOWLEDGE_S if pending else self._feedback_s) - now
                self._wait(pgconn, poll, max(wait_s, 0.001))

    def _drain(self, pgconn: pq.abc.PGconn) -> tuple[int, bool]:
        """Move what libpq has to the queue; how much that was, and whether the server wants an answer."""
        frames: list[bytes] = []
        append, get, size, reply = frames.append, pgconn.get_copy_data, 0, False
        while size < _DRAIN_BYTES:
            length, data = get(1)
            if length == 0:
                # libpq takes in little at a time; what came meanwhile costs less now than after a poll.
                pgconn.consume_input()
                length, data = get(1)
            if length <= 0:
                break
            frame = bytes(data)
            append(frame)
            size += length
            if frame[0] == KEEPALIVE:
                reply = reply or wants_reply(frame)
        else:
            length = 0
        if frames:
            self._given_bytes += size
            self._frames.append(frames)
            self._tell_loop()
        if length < 0:
            raise _end(pgconn, self._slot)
        return size, reply

    def _wait(self, pgconn: pq.abc.PGconn, poll: select.poll, wait_s: float) -> None:
        for number, _ in poll.poll(wait_s * 1000):
            if number == self._poked:
                os.read(self._poked, 4096)
            else:
                pgconn.consume_input()

    def _say(self, pgconn: pq.abc.PGconn, *, ask: bool = False) -> None:
        """Tell the server what is stored. One that does not read us any more must not hold us up."""
        lsn = self._acknowledged
        if pgconn.put_copy_data(status_update(lsn, lsn, lsn, _now_us(), reply=ask)):
            self._sent = lsn
        pgconn.flush()

    def _tell_loop(self) -> None:
        # Once told, `receive` looks for frames again before it waits.
        if not self._arrived.is_set() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.set)

    def _wake_thread(self) -> None:
        try:
            os.write(self._poke, b".")
        except BlockingIOError:
            pass  # the pipe is full of wake-ups already


def _now_us() -> int:
    """Microseconds since 2000-01-01, for the server's information only."""
    return time.time_ns() // 1000 - 946_684_800_000_000


def _refusal(result: pq.abc.PGresult | None, slot: str) -> ReplicatorError:
    """Why START_REPLICATION was refused."""
    if result is None:
        return Unavailable(f"the source did not answer about slot {slot}")
    return _sort(_field(result, pq.DiagnosticField.SQLSTATE), _message(result), slot)


def _end(pgconn: pq.abc.PGconn, slot: str) -> ReplicatorError:
    """Why the server ended the stream."""
    result = pgconn.get_result()
    if result is None or result.status == pq.ExecStatus.COMMAND_OK:
        return Unavailable(f"the source ended the stream of slot {slot}", "It may be shutting down.")
    return _sort(_field(result, pq.DiagnosticField.SQLSTATE), _message(result), slot)


def _sort(sqlstate: str, said: str, slot: str) -> ReplicatorError:
    what = f"the stream of slot {slot}: {said}"
    match sqlstate:
        case "42704" if "publication" in said:
            return SourceUnready(
                what,
                "The publication does not exist at this point of the log. If it was created after the slot, "
                "what was written before it cannot be read: drop the slot and copy the tables anew.",
            )
        case "42704":
            return SlotLost(what, "The slot was dropped.\n" + _START_OVER)
        case "55000":
            return SlotLost(what, "The slot cannot be read any more.\n" + _START_OVER)
        case "55006":
            return Unavailable(what, "Another process is reading this slot; only one may.")
        case "42501":
            return SourceUnready(what, "Grant the role: ALTER ROLE … REPLICATION;")
        case _ if sqlstate.startswith("22"):  # a data exception: what it says may be a value
            return SourceUnready(
                f"the stream of slot {slot}: the source cannot read on (SQLSTATE {sqlstate})",
                "A row filter of the publication probably fails on a row that was written; the server's log "
                f"says how. Mend the filter, then read on behind that row.\n{_START_OVER}",
            )
        case _:
            return Unavailable(what)


def _field(result: pq.abc.PGresult, field: pq.DiagnosticField) -> str:
    return (result.error_field(field) or b"").decode(errors="replace")


def _message(result: pq.abc.PGresult) -> str:
    return _field(result, pq.DiagnosticField.MESSAGE_PRIMARY) or " ".join(
        (result.error_message or b"").decode(errors="replace").split()
    )
