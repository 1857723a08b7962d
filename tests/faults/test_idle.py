"""Nothing of ours is written for a long time: no log is kept for us, and we make none for ourselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults.weather import Weather, wait_until
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import MakeDatabase, Server

pytestmark = pytest.mark.faults

#: Nobody but us and the test writes anything; we answer the server every third of a second.
_SETTINGS = {"wal_sender_timeout": "1s", "autovacuum": False, "checkpoint_timeout": "1h"}


@pytest.mark.parametrize("apart", [False, True], ids=["one database", "storage apart"])
async def test_the_slot_moves_on_with_what_others_write(
    own_server: Callable[..., Server],
    make_database: MakeDatabase,
    tmp_path: Path,
    children: StartChild,
    apart: bool,
) -> None:
    server = own_server(**_SETTINGS)
    source, elsewhere = make_database(on=server), make_database(on=server)
    clinic = Weather(source, tmp_path, children, storage=make_database() if apart else None)
    await clinic.build()
    running = clinic.run()
    clinic.catch_up()
    write = "SELECT max(pg_logical_emit_message(false, 'test', repeat('x', %s))) FROM generate_series(1, 20)"
    stands = "SELECT confirmed_flush_lsn >= %s, restart_lsn >= %s FROM pg_replication_slots"
    for _ in range(3):
        written = elsewhere.execute(write, [1_000_000])[0][0]

        def is_past(written: str = written) -> bool:
            # It goes on growing; what is kept is let go when a checkpoint has said which transactions run.
            elsewhere.execute(write, [20_000])
            source.execute("CHECKPOINT")
            return source.execute(stands, [written, written]) == [(True, True)]

        wait_until(is_past, clinic.slot_stands)
        clinic.assert_not_ahead()
    assert running.count("streaming") == 1
    clinic.assert_equal()


async def test_it_makes_no_log_of_its_own_for_ever(
    own_server: Callable[..., Server], make_database: MakeDatabase, tmp_path: Path, children: StartChild
) -> None:
    source = make_database(on=own_server(**_SETTINGS))
    clinic = Weather(source, tmp_path, children)
    await clinic.build()
    clinic.run()
    # More than a quiet position is worth: the first checkpoint without ops is stored because of it.
    source.execute("SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000000))")
    clinic.measure("the last for a long time")
    clinic.catch_up()

    def stands() -> tuple[Any, ...]:
        query = "SELECT pg_current_wal_lsn(), reply_time FROM pg_stat_replication"
        return source.execute(query)[0]

    def has_replied(since: Any) -> bool:
        return bool(stands()[1] > since)

    def is_quiet() -> bool:
        """Whether nothing has been written while we answered the server several times."""
        lsn, replied = stands()
        for _ in range(5):
            wait_until(partial(has_replied, replied))
            replied = stands()[1]
        return bool(stands()[0] == lsn)

    wait_until(is_quiet, lambda: f"{stands()} {clinic.checkpoint()}")
