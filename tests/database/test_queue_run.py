"""`replicator run` delivers what the log says to a record system; and so do workers by themselves."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replicator.ehr.sandbox.server import Sandbox
from tests.database.queued import MAPPING, Clinic, delivered, held, prepared, reading, sandbox_with_template
from tests.fixtures.children import StartChild
from tests.fixtures.least import restrict
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.migrated

_RULES = "bucket_definitions: {all: {data: [SELECT * FROM readings]}}"
#: Loaded into a process before anything else, it moves every clock that Python knows.
_OTHER_CLOCK = """\
import datetime, pathlib, time
pathlib.Path(__file__).with_name("loaded").touch()
_time, _real = time.time, datetime.datetime
time.time = lambda: _time() + {skew}
class _Skewed(_real):
    @classmethod
    def now(cls, tz=None):
        return _real.now(tz) + datetime.timedelta(seconds={skew})
datetime.datetime = _Skewed
"""


@pytest.fixture
async def sandbox(database: Database) -> AsyncIterator[Sandbox]:
    await prepared(database)
    for table in ("readings", "users"):
        database.execute(
            f"CREATE TABLE {table} "
            "(id text PRIMARY KEY, patient_id text, rate integer, at timestamptz, active boolean)"
        )
        database.execute(f"ALTER TABLE {table} REPLICA IDENTITY FULL")
    database.execute("CREATE PUBLICATION powersync FOR TABLE readings, users")
    async with sandbox_with_template(database.owner_dsn) as sandbox:
        yield sandbox


def configured(folder: Path, database: Database, url: str, *, mapping: str = MAPPING, **ehr: object) -> Path:
    (folder / "ehr.yaml").write_text(mapping[: mapping.index("  merging:")])
    (folder / "rules.yaml").write_text(_RULES)
    keys = {
        "source": {"dsn": database.dsn},
        "rules": "rules.yaml",
        "ehr": {"mapping": "ehr.yaml", "url": url, **ehr},
    }
    path = folder / "replicator.yaml"
    path.write_text(json.dumps(keys))
    restrict(database, path)
    return path


async def versions(database: Database, count: int) -> list[list[tuple[object, ...]]]:
    """What the record holds, as soon as it is so many versions."""
    async with asyncio.timeout(120):
        while sum(map(len, (found := await asyncio.to_thread(held, database)).values())) < count:
            await asyncio.sleep(0.02)
    return sorted(found.values(), key=len)


async def test_run_delivers_what_is_written_in_the_clinic(
    sandbox: Sandbox, database: Database, tmp_path: Path, children: StartChild
) -> None:
    database.execute("INSERT INTO users VALUES ('p1', NULL, NULL, now(), true)")
    run = children("run", "--config", configured(tmp_path, database, sandbox.url))
    database.execute("INSERT INTO readings VALUES ('1', 'p1', 60, now())")
    await versions(database, 1)
    database.execute("UPDATE readings SET rate = 61")
    database.execute("INSERT INTO readings VALUES ('2', 'p1', 70, now())")
    await versions(database, 3)
    database.execute("DELETE FROM readings WHERE id = '1'")
    one, other = await versions(database, 4)
    assert [version[1] for version in one] == ["249"]
    assert [version[1] for version in other] == ["249", "251", "523"]
    assert database.execute("SELECT subject_id FROM sandbox.ehrs") == [("p1",)]
    run.terminate()
    assert await asyncio.to_thread(run.wait) == 0, run.stderr
    assert database.execute("SELECT count(*) FROM replicator.ehr_workers") == [(0,)]


async def test_what_one_transaction_of_the_clinic_has_done_comes_as_one_contribution(
    sandbox: Sandbox, database: Database, tmp_path: Path, children: StartChild
) -> None:
    """What was there before comes alone; what follows together, as the log tells it."""
    database.execute("INSERT INTO readings SELECT i, 'p1', 60, now() FROM generate_series(1, 3) AS i")
    atomic = MAPPING.replace("ctx:", "atomic: true\nctx:", 1)
    run = children("run", "--config", configured(tmp_path, database, sandbox.url, mapping=atomic))
    await versions(database, 3)
    database.execute(
        "BEGIN; INSERT INTO readings SELECT i, 'p' || i % 2, 70, now() FROM generate_series(10, 49) AS i;"
        "UPDATE readings SET rate = 71 WHERE id IN ('1', '10', '11');"
        "DELETE FROM readings WHERE id = '2'; COMMIT"
    )
    await versions(database, 45)
    together = (
        "SELECT subject_id, array_agg(n ORDER BY n) FROM (SELECT ehr_id, count(*) AS n FROM sandbox.versions "
        "WHERE kind = 'COMPOSITION' GROUP BY ehr_id, contribution_id) AS c JOIN sandbox.ehrs USING (ehr_id) "
        "GROUP BY subject_id ORDER BY subject_id"
    )
    assert database.execute(together) == [("p0", [20]), ("p1", [1, 1, 1, 22])]
    run.terminate()
    assert await asyncio.to_thread(run.wait) == 0, run.stderr


async def test_workers_alone_deliver_together_whatever_their_clocks_say(
    sandbox: Sandbox, database: Database, tmp_path: Path, children: StartChild
) -> None:
    """An hour apart from this machine, to either side; one is killed, and the others wait for its leases."""
    clinic, config = Clinic(database.dsn), configured(tmp_path, database, sandbox.url, lease="5s")
    jobs = [clinic.put("readings", reading(f"{n % 40}", f"p{n % 8}", rate=40 + n)) for n in range(200)]
    await clinic.append(*jobs)
    workers = []
    for number, skew in enumerate((3600, -3600, 3600)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_OTHER_CLOCK.format(skew=skew))
        path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {"PYTHONPATH": path}
        kill_at = ("jobs recording", 2) if number == 0 else None
        workers.append(children("run", "--only", "work", "--config", config, env=env, kill_at=kill_at))
        if number == 0:
            assert await asyncio.to_thread(workers[0].wait) == -9
    await delivered(database)
    for number in (1, 2):
        await asyncio.to_thread(workers[number].wait_for, "working")
        assert (tmp_path / str(number) / "loaded").exists()
        workers[number].terminate()
        assert await asyncio.to_thread(workers[number].wait) == 0, workers[number].stderr
    found = held(database)
    assert len(found) == 40
    wanted: dict[str, list[str]] = {}
    for job in (job for batch in jobs for job in batch):
        wanted.setdefault(str(job.composition), []).append(str(job.change))
    assert {name: [version[2] for version in each] for name, each in found.items()} == wanted


async def test_a_mapping_with_a_fault_is_told_with_its_place_before_anything_starts(
    sandbox: Sandbox, database: Database, tmp_path: Path, children: StartChild
) -> None:
    config = configured(tmp_path, database, sandbox.url)
    (tmp_path / "ehr.yaml").write_text(MAPPING.replace("template: replicator.pulse.v1", "templat: x", 1))
    for argv in (("run",), ("run", "--only", "work")):
        run = children(*argv, "--config", config)
        assert await asyncio.to_thread(run.wait) == 2
        assert "ehr.yaml:" in run.stderr and "did you mean template?" in run.stderr
