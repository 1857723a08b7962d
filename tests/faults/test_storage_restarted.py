"""Storage is restarted, or its answer to a COMMIT is lost: what is stored is found out, not guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.weather import Weather, bounds
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database, MakeDatabase, Server
from tests.fixtures.proxy import MakeProxy

pytestmark = pytest.mark.faults


async def test_storage_restarted_while_streaming(
    database: Database,
    own_server: Callable[..., Server],
    make_database: MakeDatabase,
    tmp_path: Path,
    children: StartChild,
) -> None:
    server = own_server(fsync=True)
    clinic = Weather(database, tmp_path, children, storage=make_database(on=server))
    await clinic.build()
    running = clinic.run()
    clinic.catch_up()
    clinic.measure("under way", times=20)
    server.restart("immediate")
    clinic.measure("after", times=5)
    why = running.wait_for("waiting")["why"]
    # Storage's address, not the source's: whom to look at is half of what an error is for.
    assert f":{server.port}" in str(why)
    clinic.catch_up()
    clinic.assert_equal()
    clinic.assert_stored_once()


@pytest.mark.parametrize("lost", ["the answer", "the question"])
async def test_a_commit_whose_outcome_is_unknown_is_stored_once(
    database: Database,
    other_database: Database,
    proxies: MakeProxy,
    tmp_path: Path,
    children: StartChild,
    lost: str,
) -> None:
    proxy = proxies(other_database.server)
    clinic = Weather(
        database,
        tmp_path,
        children,
        storage=other_database,
        storage_dsn=proxy.to(other_database),
        # Nothing else is asked of storage meanwhile, whose answer could be taken for that to COMMIT.
        bounds=bounds(LOOK_S=10_000, _ASKED_S=1000),
    )
    await clinic.build()
    copied = clinic.run()
    clinic.catch_up()
    copied.terminate()
    assert copied.wait() == 0
    running = clinic.run(block_at=("appended", 1))
    running.wait_for("streaming")
    clinic.measure("in doubt")
    before = other_database.execute("SELECT (lsn - '0/0')::bigint FROM replicator.checkpoints")[0][0]
    running.wait_for("appended")
    # All that is left to say is COMMIT, and to hear that it is done.
    proxy.cut_after("to_client" if lost == "the answer" else "to_server", 1)
    running.go_on()
    running.wait_for("waiting")
    found = running.wait_for("writing", n=2)
    assert (found["lsn"] == before) == (lost == "the question")
    clinic.catch_up()
    clinic.assert_equal()
    clinic.assert_stored_once()
