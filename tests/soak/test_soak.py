"""Everything goes wrong, one thing after another, under load; at the end nothing is missing anywhere."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.ehr.pace import Pace
from tests.database.queued import sandbox_with_template
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database, MakeDatabase, Server
from tests.fixtures.proxy import MakeProxy, Proxy
from tests.soak.load import Load
from tests.soak.scene import PARTS, Scene

pytestmark = pytest.mark.soak

#: What a process may have grown by since it had settled. A worker that had nothing to do then has as many
#: connections more as it may have requests under way, and those of its pools.
_DESCRIPTORS_MORE, _MEGABYTES_MORE = Pace().concurrency + 24, 60.0
Trouble = Callable[[Scene, random.Random], None]


def kill_a_part(scene: Scene, chance: random.Random) -> None:
    scene.kill(chance.choice(PARTS))


def kill_everything(scene: Scene, chance: random.Random) -> None:
    scene.running.kill()
    scene.start()


def end_and_start(scene: Scene, chance: random.Random) -> None:
    scene.running.terminate()
    assert scene.running.wait() == 0, scene.running.stderr[-4000:]
    scene.start()


def restart_the_source(scene: Scene, chance: random.Random) -> None:
    scene.restart(scene.source_server, chance)


def restart_storage(scene: Scene, chance: random.Random) -> None:
    scene.restart(scene.storage_server, chance)


def cut_the_network(scene: Scene, chance: random.Random) -> None:
    proxy: Proxy = chance.choice((scene.to_source, scene.to_storage))
    proxy.refuse()
    proxy.cut()
    began = proxy.accepted
    proxy.allow()
    assert proxy.accepted >= began


def stall_the_network(scene: Scene, chance: random.Random) -> None:
    proxy: Proxy = chance.choice((scene.to_source, scene.to_storage))
    proxy.stall()
    scene.source.execute("SELECT pg_sleep(1)")  # which the source answers to others meanwhile
    proxy.resume()


def deploy_rules(scene: Scene, chance: random.Random) -> None:
    done = scene.verb("rules", "deploy", scene.other_rules())
    assert done.code == 0, done.stderr


TROUBLES: tuple[Trouble, ...] = (
    kill_a_part,
    kill_a_part,
    kill_everything,
    end_and_start,
    restart_the_source,
    restart_storage,
    cut_the_network,
    stall_the_network,
    deploy_rules,
)


def torment(scene: Scene, chance: random.Random, minutes: float) -> list[tuple[str, float]]:
    """One thing after another, and after each the time until readers were shown what was new."""
    until, took = time.monotonic() + minutes * 60, []
    order: list[Trouble] = []
    while time.monotonic() < until:
        if not order:  # each of them before any comes again
            order = chance.sample(TROUBLES, len(TROUBLES))
        trouble = order.pop()
        trouble(scene, chance)
        took.append((trouble.__name__, scene.current()))
        scene.look()
    return took


async def test_nothing_is_lost_and_nothing_grows(
    own_server: Callable[..., Server],
    make_database: MakeDatabase,
    database: Database,
    proxies: MakeProxy,
    children: StartChild,
    tmp_path: Path,
    rng: random.Random,
    seed: int,
    soak_minutes: float,
) -> None:
    print(f"seed {seed}, {soak_minutes:g} min")
    source, storage = own_server(fsync=True, wal_level="logical"), own_server(fsync=True)
    scene = Scene(source, storage, make_database, proxies, children, tmp_path)
    async with sandbox_with_template(database.owner_dsn) as sandbox:
        await scene.build(sandbox.url)
        scene.start()
        await asyncio.to_thread(scene.running.wait_for, "ready")
        with Load(scene.connect, random.Random(rng.random())) as load:
            took = await asyncio.to_thread(torment, scene, rng, soak_minutes)
        assert load.error is None, load.error
        await asyncio.to_thread(scene.current)
        await asyncio.to_thread(scene.delivered)
        verified = await asyncio.to_thread(scene.verb, "verify", "--all")
        scene.look()
    lacking, beyond = scene.differences(database)
    for name in sorted({name for name, _ in took}):
        times = [seconds for one, seconds in took if one == name]
        print(f"  {name}: {len(times)} times, current again after {max(times):.1f} s at most")
    print(f"  {load.written} transactions; {verified.stdout.strip().splitlines()[-1:]}")
    assert verified.code == 0, verified.stdout + verified.stderr
    assert not lacking and not beyond, f"{lacking=} {beyond=}\n{scene.told(database, lacking)}"
    for (part, pid), (_, first, last) in scene.sizes.items():
        if first is not None:
            print(f"  {part} {pid}: {first} → {last}")
            assert last.descriptors - first.descriptors <= _DESCRIPTORS_MORE, (part, first, last)
            assert last.megabytes - first.megabytes <= _MEGABYTES_MORE, (part, first, last)
