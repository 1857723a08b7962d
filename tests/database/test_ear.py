"""What is told on a connection is heard once, while one waits and between; and who waits sleeps meanwhile."""

from __future__ import annotations

import asyncio
import select
from typing import Any

import pytest
from psycopg import Notify

from replicator.database import Connection, connected
from replicator.errors import Unavailable
from replicator.sync.ear import Ear
from tests.fixtures.postgres import Database

_LONG_S = 60.0


async def test_what_is_told_is_heard_while_one_waits_and_after(database: Database) -> None:
    async with connected(database.dsn, "ear") as listening, connected(database.dsn, "mouth") as telling:
        ear = Ear(listening)
        await listening.execute("LISTEN news")
        waiting = asyncio.create_task(ear.hear(_LONG_S))
        await asyncio.sleep(0)
        await telling.execute("NOTIFY news, 'one'")
        assert [notice.payload for notice in await waiting] == ["one"]
        await telling.execute("NOTIFY news, 'two'")
        await listening.execute("SELECT 1")  # with whose answer it comes
        await telling.execute("NOTIFY news, 'three'")
        heard = list(await ear.hear(_LONG_S))
        while len(heard) < 2:
            heard += await ear.hear(_LONG_S)
        assert [notice.payload for notice in heard] == ["two", "three"]


async def test_what_has_been_read_with_something_else_is_not_waited_for(database: Database) -> None:
    async with connected(database.dsn, "ear") as listening, connected(database.dsn, "mouth") as telling:
        ear = Ear(listening)
        await listening.execute("LISTEN news")
        await telling.execute("NOTIFY news, 'one'")
        assert select.select([listening.fileno()], [], [], _LONG_S)[0]
        listening.pgconn.consume_input()
        assert [notice.payload for notice in await ear.hear(_LONG_S)] == ["one"]


async def test_where_nothing_is_told_it_comes_back(database: Database) -> None:
    async with connected(database.dsn, "ear") as listening:
        ear = Ear(listening)
        assert await ear.hear(0.01) == []
        # And the connection can be asked as before.
        assert await (await listening.execute("SELECT 1")).fetchone() == (1,)


async def test_the_end_of_the_connection_is_noticed(database: Database) -> None:
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'replicator ear'"
    with pytest.raises(Unavailable):
        async with connected(database.dsn, "ear") as listening, asyncio.timeout(_LONG_S):
            ear = Ear(listening)
            waiting = asyncio.create_task(ear.hear(_LONG_S))
            await asyncio.sleep(0)
            database.execute(end)
            await waiting  # what it was told last may be the reason
            while True:
                await ear.hear(_LONG_S)


class _Timers:
    """What the loop is asked to do later: each is a turn that is made without being called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[float] = []
        self.is_asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        call_later = loop.call_later

        def noted(delay: float, *called: Any, **options: Any) -> asyncio.TimerHandle:
            self.asked.append(delay)
            self.is_asked.set()
            return call_later(delay, *called, **options)

        monkeypatch.setattr(loop, "call_later", noted)


async def test_who_listens_sleeps_until_something_is_told(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(database.dsn, "listener") as listening:
        await listening.execute("LISTEN news")
        timers = _Timers(monkeypatch)
        hearing = asyncio.ensure_future(_first(listening))
        await timers.is_asked.wait()
        database.execute("NOTIFY news, 'one'")
        assert (await hearing).payload == "one"
        assert min(timers.asked) >= _LONG_S


async def _first(listening: Connection) -> Notify:
    async for notice in listening.notifies(stop_after=1):
        return notice
    raise AssertionError("it has stopped listening")


async def test_who_waits_for_an_answer_sleeps_until_it_comes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(database.dsn, "waiter") as waiting:
        database.execute("SELECT pg_advisory_lock(1)")
        timers = _Timers(monkeypatch)
        answer = asyncio.ensure_future(waiting.execute("SELECT pg_advisory_lock(1)"))
        await timers.is_asked.wait()
        database.execute("SELECT pg_advisory_unlock(1)")
        await answer
        assert min(timers.asked) >= _LONG_S
