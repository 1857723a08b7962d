"""What only the sandbox does: it says what it is, keeps what it has, and fails when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import aiohttp
import orjson
import psycopg
import pytest

from replicator.ehr.client import Answer, Basic, Client, Fault, Flat, Limits, Refusal, Unreached
from replicator.ehr.client.bodies import Body
from replicator.ehr.sandbox import Sandbox
from replicator.ehr.sandbox.store import Stores
from tests.ehrbase.records import Patient, flat, patient
from tests.fixtures.postgres import Database
from tests.fixtures.signals import Signals

#: Long enough for any answer, short enough to wait for none.
IMPATIENT = Limits(answer_s=2)


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[Client]:
    async with Client(sandbox.url) as client:
        yield client


@pytest.fixture
async def someone(client: Client) -> Patient:
    return await patient(client, str(uuid4()))


async def test_it_says_that_it_is_a_sandbox(database: Database, signals: Signals) -> None:
    async with Sandbox(database.owner_dsn) as sandbox, aiohttp.ClientSession() as session:
        started = await signals.wait("sandbox started")
        assert "not a record system" in str(started["what"])
        for url in (sandbox.root, f"{sandbox.url}/definition/template/adl1.4"):
            async with session.get(url) as response:
                assert "not a record system" in response.headers["X-Sandbox"]
        async with session.get(sandbox.root) as response:
            assert "Keep no records in it" in await response.text()


async def test_what_it_holds_is_there_when_it_starts_again(database: Database) -> None:
    async with Sandbox(database.owner_dsn) as sandbox, Client(sandbox.url) as client:
        someone = await patient(client, str(uuid4()))
        uid = someone.first(str(uuid4()))
        assert (await client.create(someone.ehr_id, flat(), uid)).ok
    async with Sandbox(database.owner_dsn) as sandbox, Client(sandbox.url) as client:
        assert (await client.composition(someone.ehr_id, uid)).version == uid


async def test_connections_that_are_gone_fail_one_and_not_each(database: Database) -> None:
    stores = Stores(database.owner_dsn)
    await stores.open()
    try:
        async with stores.transaction(), stores.transaction(), stores.transaction():
            pass
        ended = database.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE application_name = 'replicator sandbox'"
        )
        assert len(ended) >= 3
        with pytest.raises(psycopg.OperationalError):
            async with stores.transaction():
                pass
        for _ in range(3):
            async with stores.transaction():
                pass
    finally:
        await stores.close()


async def test_its_statements_leave_the_replicators_own_alone(database: Database) -> None:
    async with Sandbox(database.owner_dsn):
        schemas = database.execute(
            "SELECT DISTINCT table_schema FROM information_schema.tables WHERE table_name = 'ehrs'"
        )
        assert schemas == [("sandbox",)]


async def test_without_credentials_it_lets_nobody_in_if_it_has_some(database: Database) -> None:
    async with Sandbox(database.owner_dsn, credentials=("worker", "secret")) as sandbox:
        async with Client(sandbox.url) as stranger:
            refused = await stranger.ehr(str(uuid4()))
            assert (refused.status, refused.refusal) == (401, Refusal.UNAUTHORISED)
        async with Client(sandbox.url, auth=Basic("worker", "secret")) as client:
            assert (await client.ehr(str(uuid4()))).status == 404


async def test_one_that_goes_in_the_midst_of_a_request_is_no_error(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with Sandbox(database.owner_dsn) as sandbox:
        port = int(sandbox.root.rpartition(":")[2])
        reading, writing = await asyncio.open_connection("127.0.0.1", port)
        path = f"{sandbox.url.removeprefix(sandbox.root)}/query/aql"
        said = ["Host: x", "Content-Type: application/json", "Content-Length: 9", "Expect: 100-continue"]
        writing.write("\r\n".join([f"POST {path} HTTP/1.1", *said, "", ""]).encode())
        assert (await reading.readline()).startswith(b"HTTP/1.1 100"), "it waits for the rest"
        writing.close()
        await writing.wait_closed()
    assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == []


async def test_it_takes_a_web_template_itself(client: Client, sandbox: Sandbox, someone: Patient) -> None:
    tree = {"id": "note", "rmType": "COMPOSITION", "children": [{"id": "text", "rmType": "DV_TEXT"}]}
    content = orjson.dumps({"templateId": "a note", "tree": tree})
    body = Body("application/openehr.wt+json", {}, content)
    path = ("definition", "template", "adl1.4")
    assert (await client.ask("upload web template", "POST", *path, body=body)).status == 201
    assert (await client.create(someone.ehr_id, Flat("a note", {"note/text": "well"}))).ok
    refused = await client.create(someone.ehr_id, Flat("a note", {"note/txt": "well"}))
    assert (refused.refusal, refused.places) == (Refusal.UNKNOWN_PATHS, ("note/txt",))


@pytest.mark.parametrize("kind", ["429", "500", "503"])
async def test_it_answers_with_trouble_as_often_as_ordered(
    client: Client, sandbox: Sandbox, someone: Patient, kind: str
) -> None:
    sandbox.trouble.order(kind, times=2, method="POST")  # type: ignore[arg-type]  # one of them
    answers = [await client.create(someone.ehr_id, flat()) for _ in range(3)]
    assert [answer.status for answer in answers] == [int(kind), int(kind), 204]
    assert answers[0].refusal is Refusal.TROUBLE
    assert (answers[0].retry_after_s is not None) == (kind in ("429", "503"))


async def test_a_connection_dropped_after_the_commit_leaves_the_outcome_unknown_and_the_effect_there(
    client: Client, sandbox: Sandbox, someone: Patient
) -> None:
    uid = someone.first(str(uuid4()))
    sandbox.trouble.order("drop after", method="POST")
    with pytest.raises(Unreached) as unreached:
        await client.create(someone.ehr_id, flat(), uid)
    assert (unreached.value.fault, unreached.value.outcome_unknown) == (Fault.LOST, True)
    assert (await client.composition(someone.ehr_id, uid)).version == uid
    assert (await client.create(someone.ehr_id, flat(), uid)).refusal is Refusal.ALREADY_EXISTS


async def test_a_connection_dropped_before_the_commit_leaves_no_effect(
    client: Client, sandbox: Sandbox, someone: Patient
) -> None:
    uid = someone.first(str(uuid4()))
    sandbox.trouble.order("drop", method="POST")
    with pytest.raises(Unreached) as unreached:
        await client.create(someone.ehr_id, flat(), uid)
    assert unreached.value.outcome_unknown
    assert (await client.composition(someone.ehr_id, uid)).status == 404


@pytest.mark.parametrize(("kind", "effect"), [("silent", 404), ("silent after", 200)])
async def test_silence_leaves_the_outcome_unknown(
    client: Client, sandbox: Sandbox, someone: Patient, kind: str, effect: int
) -> None:
    uid = someone.first(str(uuid4()))
    sandbox.trouble.order(kind, method="POST")  # type: ignore[arg-type]  # one of them
    async with Client(sandbox.url, limits=IMPATIENT) as impatient:
        with pytest.raises(Unreached) as unreached:
            await impatient.create(someone.ehr_id, flat(), uid)
    assert (unreached.value.fault, unreached.value.outcome_unknown) == (Fault.SILENT, True)
    assert (await client.composition(someone.ehr_id, uid)).status == effect


async def test_a_request_that_went_out_twice_says_so(
    client: Client, sandbox: Sandbox, someone: Patient
) -> None:
    uid = someone.first(str(uuid4()))
    assert (await client.create(someone.ehr_id, flat(), uid)).ok
    sandbox.trouble.order("drop after", method="PUT")
    answer = await client.update(someone.ehr_id, uid, flat(80))
    # The first was done and its connection dropped; the second found it done.
    assert (answer.status, answer.refusal, answer.sends) == (412, Refusal.STALE, 2)
    assert await client.versions(someone.ehr_id, uid.object_id) == (uid, uid.next())


async def test_trouble_is_ordered_and_ended_over_http(client: Client, sandbox: Sandbox) -> None:
    async with aiohttp.ClientSession() as session:
        place = f"{sandbox.root}/sandbox/trouble"
        async with session.post(place, json={"kind": "503", "times": 9}) as response:
            assert response.status == 204
        assert (await client.ehr(str(uuid4()))).status == 503
        async with session.delete(place) as response:
            assert response.status == 204
        assert (await client.ehr(str(uuid4()))).status == 404
        for nonsense in ({"kind": "earthquake"}, {"sort": "503"}):
            async with session.post(place, json=nonsense) as response:
                assert response.status == 400


async def test_a_query_it_does_not_understand_is_refused_as_the_sandboxes(
    client: Client, someone: Patient
) -> None:
    answer = await client.query("SELECT c FROM EHR e CONTAINS COMPOSITION c ORDER BY c/name", {})
    assert isinstance(answer, Answer) and answer.status == 400


async def test_two_clients_at_once_create_a_composition_once(
    sandbox: Sandbox, client: Client, someone: Patient
) -> None:
    uid = someone.first(str(uuid4()))
    answers = await asyncio.gather(*(client.create(someone.ehr_id, flat(), uid) for _ in range(6)))
    assert sorted(answer.status for answer in answers) == [204, 412, 412, 412, 412, 412]
