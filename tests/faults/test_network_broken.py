"""The path to the source is cut, refuses, stalls or dies without a word: each heals, and is noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.database import connected
from tests.faults.weather import Weather, bounds
from tests.fixtures.children import Child, StartChild
from tests.fixtures.postgres import MakeDatabase, Server
from tests.fixtures.proxy import MakeProxy, Proxy

pytestmark = pytest.mark.faults

#: Twice the server's patience is ours.
_SETTINGS = {"wal_sender_timeout": "2s"}


@pytest.fixture
async def far(
    own_server: Callable[..., Server],
    make_database: MakeDatabase,
    proxies: MakeProxy,
    tmp_path: Path,
    children: StartChild,
) -> tuple[Weather, Proxy]:
    """A clinic whose source is behind a proxy, and whose storage is not."""
    server = own_server(**_SETTINGS)
    proxy, source = proxies(server), make_database(on=server)
    clinic = Weather(
        source,
        tmp_path,
        children,
        storage=make_database(),
        source_dsn=proxy.to(source),
        bounds=bounds(_OPENING_S=2),
    )
    await clinic.build()
    return clinic, proxy


def started(clinic: Weather) -> Child:
    running = clinic.run()
    clinic.catch_up()
    clinic.measure("before", times=3)
    clinic.catch_up()
    return running


def assert_healed(clinic: Weather) -> None:
    clinic.measure("after")
    clinic.catch_up()
    clinic.assert_equal()
    clinic.assert_stored_once()


async def test_a_cut_heals(far: tuple[Weather, Proxy]) -> None:
    clinic, proxy = far
    running = started(clinic)
    for n in (2, 3, 4):
        clinic.measure("under way", times=5)
        proxy.cut()
        running.wait_for("streaming", n=n)
    assert_healed(clinic)


async def test_a_cut_inside_a_transaction_heals(far: tuple[Weather, Proxy]) -> None:
    clinic, proxy = far
    running = started(clinic)
    proxy.cut_after("to_client", 1_000_000)
    clinic.source.execute(
        "INSERT INTO vital_signs (patient_id, notes) "
        "SELECT (SELECT id FROM users LIMIT 1), repeat('x', 500) FROM generate_series(1, 5000)"
    )
    running.wait_for("streaming", n=2)
    assert_healed(clinic)


async def test_a_refusal_is_waited_out(far: tuple[Weather, Proxy]) -> None:
    clinic, proxy = far
    running = started(clinic)
    proxy.refuse()
    proxy.cut()
    clinic.measure("meanwhile", times=3)
    first = running.wait_for("waiting")
    fifth = running.wait_for("waiting", n=5)
    assert float(str(fifth["seconds"])) > float(str(first["seconds"]))
    proxy.allow()
    assert_healed(clinic)
    assert running.code is None


async def test_a_stalled_link_is_noticed_by_the_watchdog(far: tuple[Weather, Proxy]) -> None:
    clinic, proxy = far
    running = started(clinic)
    proxy.stall()
    clinic.measure("meanwhile", times=3)
    running.wait_for("waiting", why=lambda why: "has been silent for 4 s" in why)
    proxy.resume()
    assert_healed(clinic)


async def test_a_half_open_link_is_noticed_by_the_watchdog(far: tuple[Weather, Proxy]) -> None:
    clinic, proxy = far
    running = started(clinic)
    proxy.half_open()
    clinic.measure("meanwhile", times=3)
    running.wait_for("waiting", why=lambda why: "has been silent for 4 s" in why)
    assert_healed(clinic)


async def test_a_link_that_stalls_before_the_stream_begins_is_given_up(far: tuple[Weather, Proxy]) -> None:
    clinic, proxy = far
    ended = started(clinic)
    ended.terminate()
    assert ended.wait() == 0
    running = clinic.run(block_at=("writing", 1))
    running.wait_for("writing")
    proxy.stall()
    running.go_on()
    running.wait_for("waiting", why=lambda why: "did not answer within 2 s" in why)
    proxy.resume()
    running.wait_for("streaming")
    assert_healed(clinic)


async def test_it_ends_when_asked_while_the_source_says_nothing(far: tuple[Weather, Proxy]) -> None:
    clinic, proxy = far
    running = clinic.run(block_at=("writing", 1))
    running.wait_for("writing")
    proxy.stall()
    running.terminate()
    running.go_on()
    assert running.wait() == 0


async def test_a_server_is_asked_to_notice_soon_that_we_are_gone(far: tuple[Weather, Proxy]) -> None:
    # Else the session of a machine that lost its power would hold the writer's lock for two hours.
    clinic, _ = far
    async with connected(clinic.storage.dsn, "test") as connection:
        idle = await (await connection.execute("SHOW tcp_keepalives_idle")).fetchone()
        limit = await (await connection.execute("SHOW tcp_user_timeout")).fetchone()
    assert idle == ("10",) and limit == ("60000",)
