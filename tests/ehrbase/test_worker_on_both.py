"""A worker delivers to the sandbox and to an EHRbase alike: the same jobs become the same versions."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from uuid import uuid4

import pytest

from replicator.config import Config, load
from replicator.ehr.client import Answer, Client, Subject
from replicator.ehr.job import Job
from replicator.ehr.mapping import load_mapping
from replicator.work import run_work
from tests.database.queued import MAPPING, Clinic, delivered, forget, prepared, reading
from tests.ehrbase.records import OPT, Place
from tests.fixtures.least import restrict
from tests.fixtures.postgres import Database


@pytest.fixture
async def clinic(database: Database, client: Client) -> Clinic:
    assert (await client.upload_template(OPT)).status in (201, 409)
    return await prepared(database)


def configured(folder: Path, database: Database, place: Place, mapping: str = MAPPING) -> Config:
    (folder / "ehr.yaml").write_text(mapping)
    auth = {"user": place.user, "password": place.password} if place.user else {}
    ehr = {"mapping": "ehr.yaml", "url": place.url, "auth": auth}
    path = folder / "replicator.yaml"
    path.write_text(json.dumps({"source": {"dsn": database.dsn}, "ehr": ehr}))
    restrict(database, path)
    return load(path, {})


async def deliver(config: Config, database: Database) -> None:
    stop = asyncio.Event()
    working = asyncio.create_task(run_work(config, load_mapping(config.ehr.mapping_path), stop))
    try:
        await delivered(database)
    finally:
        stop.set()
        await working


async def numbers(client: Client, patient: str, job: Job) -> list[int]:
    """The numbers of the versions that the record has of what a job is about."""
    ehr = await client.ehr_by_subject(Subject(patient, "clinic"))
    assert ehr.ok, ehr.summary
    found = await client.versions(ehr.body["ehr_id"]["value"], str(job.composition))
    assert not isinstance(found, Answer), found.summary
    return [version.number for version in found]


async def test_rows_that_come_change_go_and_come_again_are_versions(
    clinic: Clinic, database: Database, place: Place, client: Client, tmp_path: Path
) -> None:
    one, other, config = str(uuid4()), str(uuid4()), configured(tmp_path, database, place)
    first = clinic.put("readings", reading("1", one, rate=70))
    second = clinic.put("readings", reading("2", other, rate=60))
    await clinic.append(first, second, clinic.put("readings", reading("1", one, rate=71)))
    await deliver(config, database)
    assert await numbers(client, one, first[0]) == [1, 2]
    assert await numbers(client, other, second[0]) == [1]
    await clinic.append(clinic.drop("readings", "1"), clinic.put("readings", reading("1", one, rate=72)))
    await deliver(config, database)
    assert await numbers(client, one, first[0]) == [1, 2, 3, 4]
    assert database.execute("SELECT DISTINCT state FROM replicator.ehr_sync_queue") == [("done",)]


async def test_what_is_forgotten_is_found_in_the_record_and_not_repeated(
    clinic: Clinic, database: Database, place: Place, client: Client, tmp_path: Path
) -> None:
    """As after a crash between the record's answer and our note of it, at each step."""
    patient, config = str(uuid4()), configured(tmp_path, database, place)
    steps = [
        clinic.put("readings", reading("1", patient, rate=70)),
        clinic.put("readings", reading("1", patient, rate=71)),
        clinic.drop("readings", "1"),
    ]
    for number, step in enumerate(steps, 1):
        for _ in range(2):
            forget(database)
            await clinic.append(step)
            await deliver(config, database)
            assert await numbers(client, patient, steps[0][0]) == [*range(1, number + 1)]


async def test_what_belongs_together_comes_together_and_once(
    clinic: Clinic, database: Database, place: Place, client: Client, tmp_path: Path
) -> None:
    """As contributions; and as after a crash between the record's answer and our note of it."""
    patient = str(uuid4())
    config = configured(tmp_path, database, place, MAPPING.replace("ctx:", "atomic: true\nctx:", 1))
    steps = []
    with clinic.transaction():
        steps.append([clinic.put("readings", reading(id, patient, rate=70)) for id in ("1", "2")])
    with clinic.transaction():
        changed, gone = clinic.put("readings", reading("1", patient, rate=71)), clinic.drop("readings", "2")
        steps.append([changed, gone, clinic.put("readings", reading("3", patient))])
    for step in steps:
        for _ in range(2):
            forget(database)
            await clinic.append(*step)
            await deliver(config, database)
    found = [await numbers(client, patient, jobs[0]) for jobs in (changed, gone, steps[1][2])]
    assert found == [[1, 2], [1, 2], [1]]
    ehr = await client.ehr_by_subject(Subject(patient, "clinic"))
    read = await client.composition(ehr.body["ehr_id"]["value"], str(changed[0].composition))
    items = read.body["content"][0]["data"]["events"][0]["data"]["items"]
    assert [item["value"]["magnitude"] for item in items] == [71]


async def test_the_status_of_an_ehr_follows_the_patient(
    clinic: Clinic, database: Database, place: Place, client: Client, tmp_path: Path
) -> None:
    patient, config = str(uuid4()), configured(tmp_path, database, place)
    await clinic.append(
        clinic.put("users", {"id": patient, "active": "t"}),
        clinic.put("users", {"id": patient, "active": "f"}),
    )
    await deliver(config, database)
    ehr = await client.ehr_by_subject(Subject(patient, "clinic"))
    status = await client.ehr_status(ehr.body["ehr_id"]["value"])
    assert status.ok and status.body["is_modifiable"] is False
