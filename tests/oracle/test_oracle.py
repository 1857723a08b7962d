"""Whatever the traffic and whatever goes wrong: every checkpoint shows what the source held there."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database, MakeDatabase, Server
from tests.fixtures.signals import Signals
from tests.oracle.rounds import Rounds
from tests.oracle.scene import Scene, make_source, make_storage
from tests.oracle.tight import KEEP, TIGHT
from tests.oracle.world import make_world

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("deploys", [False, True], ids=["one set of rules", "deploys"])
def test_oracle(
    deploys: bool,
    part: tuple[int, int],
    database: Database,
    make_database: MakeDatabase,
    children: StartChild,
    signals: Signals,
    rng: random.Random,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    number, count = part
    own: list[Server] = []
    source = storage = database
    if number % 3 == 2:
        # Servers of its own, so that they can be restarted.
        start: Callable[[], Server] = request.getfixturevalue("own_server")
        own = [start() for _ in range(rng.choice((1, 2)))]
        source = storage = make_database(on=own[0])
        storage = make_database(on=own[-1]) if rng.random() < 0.7 else source
    elif rng.random() < 0.5:
        storage = make_database(on=database.server)
    bounds = {**(TIGHT if rng.random() < 0.7 else {}), **KEEP}
    world = make_world(rng)
    make_source(world, source)
    make_storage(storage)
    scene = Scene(world, source, storage, tmp_path, rng)
    if rng.random() < 0.7:
        scene.run(rng.choice((1, 10, 30)))  # rows that are there before the slot
    with Rounds(scene, rng, children, signals, bounds, own).open() as rounds:
        rounds.deploys = deploys
        try:
            for _ in range(count):
                rounds.round()
        except BaseException as error:
            error.add_note(rounds.report())
            raise
    print(f"{count} rounds, {scene.reader.compared} checkpoints, {len(scene.history.commits)} commits")
    print(f"shown by rules {scene.reader.shown_by}")
    assert scene.reader.compared
