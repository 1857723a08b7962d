"""The README, followed from the top on a Postgres of this machine → a service that does all it can."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from replicator import queries
from replicator.database import connected
from replicator.demo.postgres import Server
from replicator.ehr.columns import read_catalogue
from replicator.ehr.mapping import parse_mapping
from replicator.ehr.sandbox.guess import guessed
from replicator.ehr.sandbox.server import Sandbox
from tests.faults.weather import wait_until
from tests.fixtures.children import Child, StartChild
from tests.fixtures.servers import Found
from tests.packaging.person import Person, service
from tests.packaging.readme import ROOT, blocks

_DBA = "postgresql://postgres@db.clinic.internal/clinic"
_OURS = "postgresql://replicator:secret@db.clinic.internal/clinic"
_OPT = ROOT / "tests" / "ehrbase" / "pulse.opt"
_CREDENTIALS = ("replicator", "secret")
IN_RECORD = "SELECT count(DISTINCT object_id) FROM sandbox.versions WHERE kind = 'COMPOSITION'"


@pytest.mark.timeout(900)  # some fifty processes, one after another
async def test_the_readme_leads_from_nothing_to_a_service(
    pg: Found, own_server: Callable[..., Server], tmp_path: Path, children: StartChild
) -> None:
    server = own_server()
    build_clinic(server)
    async with Sandbox(server.dsn("record"), credentials=_CREDENTIALS) as sandbox:
        person = a_person(pg, server, sandbox.url, tmp_path, children)
        await replicates(person, server)
        await serves(person, children, server)
        await delivers(person, children, server, sandbox)
        await decides(person, children, server)
        await mirrors(person, children, server)


def build_clinic(server: Server) -> None:
    """What is there before: a database of somebody's, and another for the sandbox."""
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE clinic")
        admin.execute("CREATE DATABASE record")
    with psycopg.connect(server.dsn("clinic"), autocommit=True) as clinic:
        clinic.execute(queries.load("clinic").schema)
        clinic.execute("INSERT INTO users (firebase_uid) VALUES ('u1'), ('u2')")
        clinic.execute("INSERT INTO vital_signs (patient_id, heart_rate_bpm) SELECT id, 72 FROM users")


def a_person(pg: Found, server: Server, url: str, folder: Path, children: StartChild) -> Person:
    path = os.environ["PATH"] if pg.binaries is None else f"{pg.binaries.bin}:{os.environ['PATH']}"
    assert shutil.which("psql", path=path), "psql is beside every server"
    dsn = {_DBA: server.dsn("clinic"), _OURS: server.dsn("clinic", user="replicator", password="secret")}
    address = {"127.0.0.1:8080": "127.0.0.1:0", "http://127.0.0.1:8081/ehrbase/rest/openehr/v1": url}
    return Person(folder, children, path, {**dsn, **address})


async def replicates(person: Person, server: Server) -> None:
    """By hand, with each table copied and followed."""
    (files,) = blocks("sh", "Say what to replicate")
    await person.types(files.text)
    as_dba, as_role = blocks("sh", "Prepare the source")
    said = await person.types(as_dba.text, {"apply": "y\n", "\\password": "secret\nsecret\n"})
    assert "CREATE ROLE replicator" in str(said) and "CREATE PUBLICATION powersync" in str(said)
    said = await person.types(as_role.text)
    assert "this source can be replicated" in str(said)
    running = person.starts("run")
    await asyncio.to_thread(running.wait_for, "copied", n=2)
    tail = person.starts("tail", "--from-start")
    await asyncio.to_thread(wait_until, lambda: tail.stdout.count("vital_signs/") == 2)
    (asking,) = blocks("sh", "Writing rules")
    (row,) = ask(server, "SELECT id::text FROM vital_signs LIMIT 1")
    person.says["7f3a…"] = row
    said = await person.types(asking.text)
    assert row in str(said)
    for one in (tail, running):
        one.interrupt()
        await asyncio.to_thread(one.wait)
    assert running.code == 0


async def serves(person: Person, children: StartChild, server: Server) -> None:
    """As the service, first without a key and then with one; an app is sent its user's rows."""
    (keep,) = blocks("sh", "Keep it running")
    await person.types(keep.text.partition("replicator status")[0])
    running = await started(person, children, "replicate")
    said = await person.types("replicator status")
    assert "all is well" in str(said)
    await ended(running)
    (user,) = ask(server, "SELECT id::text FROM users WHERE firebase_uid = 'u1'")
    person.says["0b9c…"] = user
    (app, *_) = blocks("sh", "Connect an app")
    await person.types(app.text)
    running = await started(person, children, "replicate", "serve")
    address = str(running.wait_for("part ready", part="serve")["doing"]).rpartition(" ")[2]
    try:
        sent = await asyncio.to_thread(first_line, f"http://{address}/sync/stream", person.env["TOKEN"])
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{error}: {error.read().decode()}\n{running.stderr}") from None
    assert f'user_data["{user}"]' in sent["checkpoint"]["buckets"][0]["bucket"]
    await ended(running)


def ask(server: Server, query: str, database: str = "clinic") -> list[str]:
    with psycopg.connect(server.dsn(database), autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return [str(one) for (one,) in cursor.fetchall()] if cursor.description else []


async def started(person: Person, children: StartChild, *parts: str) -> Child:
    running = service(person, children)
    for part in parts:
        await asyncio.to_thread(running.wait_for, "part ready", part=part)
    return running


async def ended(running: Child) -> None:
    running.terminate()
    assert await asyncio.to_thread(running.wait) == 0


def first_line(url: str, token: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    asked = urllib.request.Request(url, b"{}", headers)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        line: dict[str, Any] = json.loads(answer.readline())
    return line


async def delivers(person: Person, children: StartChild, server: Server, sandbox: Sandbox) -> None:
    """What was there, and what comes, as compositions."""
    setting, *_ = blocks("sh", "Connect an openEHR server")
    await furnish(sandbox, server, setting.text)
    shutil.copy(_OPT, person.at / "vital_signs.opt")
    said = await person.types(setting.text)
    fits = next(said[one] for one in said if "check --ehr" in one)
    assert "fits the source and" in fits
    running = await started(person, children, "replicate", "serve", "work")
    await asyncio.to_thread(wait_until, lambda: ask(server, IN_RECORD, "record") == ["2"])
    ask(server, "INSERT INTO vital_signs (patient_id, heart_rate_bpm) SELECT id, 90 FROM users", "clinic")
    await asyncio.to_thread(wait_until, lambda: ask(server, IN_RECORD, "record") == ["4"])
    assert "undelivered: 0" in str(await person.types("replicator queue stats"))
    await ended(running)


async def furnish(sandbox: Sandbox, server: Server, page: str) -> None:
    """A template of the sandbox's own for the mapping that stands there: real ones are others' work."""
    text = page.partition("ehr.yaml <<'END'\n")[2].partition("\nEND\n")[0]
    mapping = parse_mapping(text, "README.md")
    async with connected(server.dsn("clinic"), "furnish") as source:
        await sandbox.add_templates(guessed(mapping, (await read_catalogue(source, mapping)).columns))


async def decides(person: Person, children: StartChild, server: Server) -> None:
    """What a person does with the queue, on jobs that nobody delivers meanwhile; then all is delivered."""
    feeding = person.starts("run", "--only", "replicate")
    await asyncio.to_thread(feeding.wait_for, "streaming")
    (user,) = ask(server, "SELECT id::text FROM users WHERE firebase_uid = 'u2'")
    ask(server, f"INSERT INTO vital_signs (patient_id, heart_rate_bpm) VALUES ('{user}', 99)")
    waiting = "SELECT lane || '.' || seq FROM replicator.ehr_sync_queue WHERE state = 'waiting'"
    await asyncio.to_thread(wait_until, lambda: len(ask(server, waiting)) == 1)
    (job,) = ask(server, waiting)
    person.says |= {"--patient 7 ": f"--patient {user} ", "4611686018427387904.17": job}
    _, deciding, _ = blocks("sh", "Connect an openEHR server")
    said = await person.types(deciding.text, {"queue": "y\n"})
    ends = (
        "0 jobs",
        "1",
        "retry: 0 jobs",
        "skip: 1 job",
        "park: 1 job",
        "replay: 4 jobs",
        "rebuild: 5 rows",
    )
    assert len(said) == len(ends)
    for (statement, answer), end in zip(said.items(), ends, strict=True):
        assert answer.rstrip().endswith(end) or "show" in statement, f"{statement}\n{answer}"
    await ended(feeding)
    running = await started(person, children, "work")
    await person.types(f"replicator queue retry --patient {user} --why 'it was me' --yes")
    await asyncio.to_thread(wait_until, lambda: ask(server, IN_RECORD, "record") == ["5"])
    await ended(running)


async def mirrors(person: Person, children: StartChild, server: Server) -> None:
    """What became of each change is sent to the app of whom it is about."""
    _, _, mirroring = blocks("sh", "Connect an openEHR server")
    running = await started(person, children, "replicate", "serve", "work")
    said = await person.types(mirroring.text)
    assert "in force" in str(said)
    told = "SELECT count(*)::text FROM replicator.ehr_sync_status"
    sent = "SELECT count(DISTINCT object_id)::text FROM replicator.ops WHERE object_type = 'ehr_sync_status'"
    await asyncio.to_thread(wait_until, lambda: ask(server, sent) == ask(server, told) != ["0"])
    await ended(running)
