"""Recognisable patient data goes every way there is, also the wrong ones; nothing that is said holds any.

Said is: every line of every process at the level of debugging, what the verbs print that are not there to
print rows, metrics, the page, and what administrators are answered.
"""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from replicator.ehr.sandbox.server import Sandbox
from tests.database.queued import MAPPING, sandbox_with_template
from tests.database.served import ADMIN, Served
from tests.fixtures.browser import Tab
from tests.fixtures.children import Child, StartChild
from tests.fixtures.postgres import Database
from tests.fixtures.tokens import token as token_of

#: In everything that a row says, and in nothing else.
NEEDLE = "7731x"
NAME, NOTE, RATE = f"Mbarga{NEEDLE}", f"HIV-positive-{NEEDLE}", f"rate-{NEEDLE}"
#: Storage is made to refuse rows that say this.
REFUSED = f"refused-{NEEDLE}"

TABLES = f"""
CREATE TABLE readings (
    id text PRIMARY KEY, patient_id text, rate text, at timestamptz, active text, note text, name text);
ALTER TABLE readings ALTER COLUMN note SET STORAGE EXTERNAL;
CREATE TABLE filtered (id text PRIMARY KEY, patient_id text, born text);
CREATE PUBLICATION powersync FOR TABLE readings, filtered;
INSERT INTO readings SELECT 'copied' || n, 'p' || n % 2, '72', '2026-03-01', 't', '{NOTE}', '{NAME}'
FROM generate_series(1, 40) AS n;
INSERT INTO readings
VALUES ('too-large-a-copy', 'p1', '72', '2026-03-01', 't', repeat('{NOTE} ', 2000), '{NAME}');
INSERT INTO filtered VALUES ('f1', 'p1', '{NOTE}');
"""
#: Rules that look into what rows say, in ways in which that cannot succeed.
RULES = {
    "bucket_definitions": {
        "mine": {
            "parameters": "SELECT request.user_id() AS user_id",
            "data": [
                "SELECT * FROM readings WHERE patient_id = bucket.user_id",
                "SELECT id, CAST(note AS INTEGER) AS a, json_extract(note, '$.x') AS b, name -> 'x' AS c, "
                "substring(name, 1, note) AS d, length(note) / 0 AS e, datetime(name) AS f, "
                "unixepoch(note) AS g, hex(note) AS h FROM readings AS odd WHERE patient_id = bucket.user_id",
                "SELECT * FROM filtered WHERE patient_id = bucket.user_id",
            ],
        },
    }
}
#: What a person does to a row, and what may go wrong with it.
CHANGES = [
    f"INSERT INTO readings VALUES ('r1', 'p1', '72', '2026-03-01', 't', '{NOTE}', '{NAME}')",
    f"UPDATE readings SET note = repeat('{NOTE} ', 300) WHERE id = 'r1'",
    "UPDATE readings SET rate = '73' WHERE id = 'r1'",
    f"UPDATE readings SET id = 'r1b', name = '{NAME}2' WHERE id = 'r1'",
    "DELETE FROM readings WHERE id = 'copied1'",
    f"INSERT INTO readings VALUES ('no-number', 'p2', '{RATE}', '2026-03-01', 't', '{NOTE}', '{NAME}')",
    f"INSERT INTO readings VALUES ('no-patient', NULL, '72', '2026-03-01', 't', '{NOTE}', '{NAME}')",
    f"INSERT INTO readings VALUES ('no-time', 'p3', '72', NULL, '{NOTE}', '{NOTE}', '{NAME}')",
    f"UPDATE readings SET note = repeat('{NOTE} ', 2000) WHERE id = 'copied2'",
    f"ALTER TABLE readings ADD COLUMN more text DEFAULT '{NOTE}'",
    f"UPDATE readings SET more = '{NAME}' WHERE id = 'copied3'",
    f"INSERT INTO filtered VALUES ('f2', 'p1', '{NAME}')",
    "TRUNCATE filtered",
]


class Said:
    """Everything that was said, by whom."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self._children: dict[str, Child] = {}

    def follow(self, name: str, child: Child) -> Child:
        self._children[name] = child
        return child

    def all(self) -> Iterator[tuple[str, str]]:
        yield from self.texts.items()
        for name, child in self._children.items():
            yield f"{name} on stdout", child.stdout
            yield f"{name} on stderr", child.stderr


@pytest.fixture
async def sandbox(database: Database) -> AsyncIterator[Sandbox]:
    async with sandbox_with_template(database.owner_dsn) as sandbox:
        yield sandbox


async def test_nothing_that_is_said_holds_what_a_row_says(
    database: Database,
    tmp_path: Path,
    children: StartChild,
    sandbox: Sandbox,
    tabs: Callable[[], Tab],
) -> None:
    clinic, said = Served(database, tmp_path, children, rules=json.dumps(RULES)), Said()
    await clinic.build(tables=TABLES)
    (tmp_path / "ehr.yaml").write_text(MAPPING)
    config = json.loads(clinic.path.read_text())
    config["replicate"] = {"row_bytes": 20_000}
    config["run"] = {"log_level": "debug"}
    config["ehr"] = {"url": sandbox.url, "mapping": "ehr.yaml"}
    clinic.path.write_text(json.dumps(config))

    replicating = said.follow("replicate", clinic.replicate())
    await asyncio.to_thread(clinic.catch_up)
    said.follow("serve", await asyncio.to_thread(clinic.serve))
    await asyncio.to_thread(clinic.until_ready)
    working = said.follow("work", children("run", "--only", "work", "--config", clinic.path))
    for change in CHANGES:
        database.execute(change)
    await asyncio.to_thread(clinic.catch_up)
    assert NEEDLE in await _streamed(clinic), "who may see rows is sent them"
    await asyncio.to_thread(_ask_wrongly, clinic, said)
    await _ask_wrongly_over_a_socket(clinic)
    await asyncio.to_thread(_until_parked, clinic, 3)

    replicating.kill()
    await asyncio.to_thread(_be_refused_by_storage, clinic, said)
    await asyncio.to_thread(_use_every_verb, clinic, said)
    await asyncio.to_thread(_look_at_the_page, clinic, said, tabs())
    working.terminate()
    assert await asyncio.to_thread(working.wait) == 0

    told = list(said.all())
    assert len([text for _, text in told if text]) > 20
    everything = "\n".join(text for _, text in told)
    for event in ("row too large", "parked", "stored", "copied", "serving", "telling"):
        assert event in everything, f"{event}: that way was gone"
    needles = (NEEDLE, NEEDLE.encode().hex(), base64.b64encode(NOTE.encode()).decode()[:12])
    holding = [
        f"{name}: {line[:300]}"
        for name, text in told
        for line in text.splitlines()
        if any(needle in line for needle in needles)
    ]
    assert holding == []


async def _streamed(clinic: Served) -> str:
    """What a patient's phone is sent at first."""
    headers = {"authorization": f"Token {token_of('p1')}"}
    found = ""
    async with aiohttp.ClientSession(clinic.url) as http:
        async with http.post("/sync/stream", json={"raw_data": True}, headers=headers) as got:
            async for line in got.content:
                found += line.decode()
                if "checkpoint_complete" in found:
                    return found
    raise AssertionError("the stream ended")


def _ask_wrongly(clinic: Served, said: Said) -> None:
    """Requests that are refused, with patients' data wherever a careless app may put it."""
    good, bad = token_of("p1"), token_of(NAME)[:-4] + "AAAA"
    kind = "application/json"
    for path, body, token in (
        ("/sync/stream", NOTE.encode(), good),
        ("/sync/stream", {"parameters": NOTE, "buckets": NOTE, "client_id": 7}, good),
        ("/sync/stream", {"parameters": {"a": NOTE}}, bad),
        ("/sync/stream", {}, NOTE),
        ("/sync/checkpoint-request", {"client_id": NAME, "checkpoint_request_id": NOTE}, good),
        ("/sync/checkpoint-request", NOTE.encode(), good),
        (f"/write-checkpoint2.json?client_id={NAME}%00", None, good),
        (f"/api/sync/patient/{NAME}", None, good),
        (f"/{NOTE}", None, None),
        ("/token", {"a": NOTE}, NAME),
        ("/api/admin/v1/validate", {"sync_rules": f"bucket_definitions: {{a: {NOTE}}}"}, bad),
        ("/api/admin/v1/queue", {"action": NOTE, "jobs": [NAME], "who": NAME, "why": NOTE}, bad),
    ):
        status, _ = clinic.request(path, body, token=token, kind=kind)
        assert status >= 400, (path, status)
    # What only an administrator is answered, whoever they ask about.
    for name, path, asked in (
        ("status", "/api/admin/v1/status", None),
        ("queue", "/api/admin/v1/queue", None),
        ("queue of one state", f"/api/admin/v1/queue?state={NOTE}", None),
        ("wrong job", "/api/admin/v1/queue", {"action": "retry", "jobs": ["1.1"], "who": "me", "why": "x"}),
        ("buckets", "/api/admin/v1/buckets", {"user": "p1"}),
        ("diagnostics", "/api/admin/v1/diagnostics", {}),
        ("everybody", "/api/sync/status", None),
        ("a patient", "/api/sync/patient/p1", None),
    ):
        status, answer = clinic.request(path, asked, token=ADMIN)
        said.texts[f"{name}, answered"] = json.dumps(answer, ensure_ascii=False)
    request = urllib.request.Request(f"{clinic.url}/metrics", headers={"authorization": f"Bearer {ADMIN}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        said.texts["metrics"] = answer.read().decode()


async def _ask_wrongly_over_a_socket(clinic: Served) -> None:
    async with aiohttp.ClientSession(clinic.url) as http:
        for words in (NOTE.encode(), b"\x00\x00\x00\x00\x04\x00" + NAME.encode()):
            async with http.ws_connect("/sync/stream") as socket:
                await socket.send_bytes(words)
                while (await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                    pass


def _until_parked(clinic: Served, count: int) -> None:
    def is_so(body: dict[str, Any]) -> bool:
        return len([job for job in body["jobs"] if job["state"] == "parked"]) >= count

    clinic.until("/api/admin/v1/queue", ADMIN, is_so)


def _be_refused_by_storage(clinic: Served, said: Said) -> None:
    """What Postgres says of a row that it refuses, it says with the row: as a detail, and where it was."""
    database = clinic.database
    check = f"ALTER TABLE replicator.ops ADD CONSTRAINT no CHECK (data NOT LIKE '%{REFUSED}%') NOT VALID"
    database.execute(check)
    database.execute(f"UPDATE readings SET note = '{REFUSED}' WHERE id = 'copied4'")
    refused = said.follow("replicate, refused", clinic.replicate())
    assert refused.wait() == 1
    assert "violates check constraint" in refused.stderr
    database.execute("ALTER TABLE replicator.ops DROP CONSTRAINT no")
    said.follow("replicate, again", clinic.replicate())
    clinic.catch_up()


def _use_every_verb(clinic: Served, said: Said) -> None:
    job = clinic.request("/api/admin/v1/queue?state=parked", token=ADMIN)[1]["jobs"][0]["id"]
    # So that there is something to find for who compares.
    clinic.database.execute(
        f"UPDATE replicator.ops SET data = replace(data, '{NOTE}', '{NAME}') WHERE op = 'PUT'"
    )
    for verb in (
        ["status"],
        ["status", "--json"],
        ["check", "--sample", "0"],
        ["queue", "list"],
        ["queue", "list", "--json"],
        ["queue", "show", "--", job],
        ["queue", "stats"],
        ["queue", "retry", "--why", "tried", "--yes", "--", job],
        ["rules", "list"],
        ["rules", "validate"],
        ["slot", "list"],
        ["compact"],
        ["verify", "--all"],
        ["audit", "readings", "copied2"],
        ["migrate", "--dry-run"],
    ):
        at = verb.index("--") if "--" in verb else len(verb)
        child = clinic.start_child(*verb[:at], "--config", clinic.path, *verb[at:])
        code = said.follow(" ".join(verb), child).wait()
        assert verb[0] != "verify" or code == 1, "it has found what was made wrong"
        assert "Usage:" not in child.stderr, child.stderr


def _look_at_the_page(clinic: Served, said: Said, tab: Tab) -> None:
    tab.open(clinic.url)
    tab.until("!document.querySelector('#entrance').hidden")
    tab.write("#token", ADMIN)
    tab.click("#enter button")
    tab.until("!document.querySelector('#status').hidden")
    tab.value("document.querySelector('#state').value = ''")
    tab.click("#look")
    tab.until("document.querySelectorAll('#job-rows tr').length > 0")
    tab.write("#user", "p1")
    tab.click("#ask-buckets button")
    tab.until("document.querySelectorAll('#bucket-rows tr').length > 0")
    said.texts["page"] = tab.value("document.documentElement.outerHTML")
