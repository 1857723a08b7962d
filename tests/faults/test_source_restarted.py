"""The source crashes or is restarted while it is followed: what it sends again is stored once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from tests.faults.weather import Weather
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import MakeDatabase, Server

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("mode", ["immediate", "fast"])
@pytest.mark.parametrize("apart", [False, True], ids=["one database", "storage apart"])
async def test_it_comes_back_and_nothing_is_lost_or_stored_twice(
    own_server: Callable[..., Server],
    make_database: MakeDatabase,
    tmp_path: Path,
    children: StartChild,
    mode: Literal["immediate", "fast"],
    apart: bool,
) -> None:
    server = own_server(fsync=True)
    source = make_database(on=server)
    clinic = Weather(source, tmp_path, children, storage=make_database() if apart else None)
    await clinic.build()
    running = clinic.run()
    clinic.catch_up()
    clinic.measure("before", times=5)
    for n in (2, 3):
        clinic.measure("just before", times=20)
        server.restart(mode)
        clinic.measure("after", times=5)
        running.wait_for("streaming", n=n)
        clinic.catch_up()
        clinic.assert_equal()
        clinic.assert_stored_once()
    assert running.count("waiting") >= 2
    running.terminate()
    assert running.wait() == 0
