"""The rule files this project grew from, as they are written: every checkpoint shows what the source held."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database, MakeDatabase
from tests.fixtures.signals import Signals
from tests.oracle.rounds import Rounds
from tests.oracle.scene import make_storage
from tests.oracle.seeds import FILES, Seeds, SeedsScene, make_source
from tests.oracle.tight import KEEP, TIGHT

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("deploys", [False, True], ids=["as they are", "deploys"])
@pytest.mark.parametrize("file", ["own_record.yaml", "own_record_and_queue.yaml"])
def test_seeds(
    file: str,
    deploys: bool,
    part: tuple[int, int],
    database: Database,
    make_database: MakeDatabase,
    children: StartChild,
    signals: Signals,
    rng: random.Random,
    tmp_path: Path,
) -> None:
    _, count = part
    storage = database if rng.random() < 0.5 else make_database(on=database.server)
    make_source(database, rng)
    make_storage(storage)
    scene = SeedsScene(Seeds(FILES / file), database, storage, tmp_path, rng)
    if rng.random() < 0.8:
        scene.run(rng.choice((1, 10, 30)))  # rows that are there before the slot
    bounds = {**(TIGHT if rng.random() < 0.8 else {}), **KEEP}
    with Rounds(scene, rng, children, signals, bounds, []).open() as rounds:
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
