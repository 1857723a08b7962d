"""GET /metrics of a running server: who may, and whether it counts what happens."""

from __future__ import annotations

import asyncio
import math
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from replicator.database import migrate, pooled
from replicator.observe.metrics.jobs import JobAges
from replicator.observe.status.model import Silent
from tests.database.served import ADMIN, Served
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.fixtures.tokens import token as token_of
from tests.unit.looks import a_look
from tests.unit.test_metrics import names, samples

pytestmark = pytest.mark.migrated

SCRAPER = "a-scraper-may-only-read"


@pytest.fixture
async def clinic(database: Database, tmp_path: Path, children: StartChild) -> AsyncIterator[Served]:
    served = Served(database, tmp_path, children, scrape_tokens=[SCRAPER])
    await served.build()
    served.replicate()
    await asyncio.to_thread(served.catch_up)
    await asyncio.to_thread(served.serve)
    await asyncio.to_thread(served.until_ready)
    yield served


def scraped(clinic: Served, token: str | None = SCRAPER) -> str:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{clinic.url}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return str(answer.read().decode())


def until(clinic: Served, name: str, value: float) -> dict[str, float]:
    """The first samples in which it is so much."""
    deadline = time.monotonic() + 120
    while (found := samples(scraped(clinic))).get(name) != value:
        assert time.monotonic() < deadline, (name, value, found.get(name))
        time.sleep(0.1)
    return found


def test_only_who_has_a_token_may_scrape_and_a_scraper_may_nothing_else(clinic: Served) -> None:
    for token in (None, "wrong", SCRAPER[:-1]):
        with pytest.raises(urllib.error.HTTPError) as refused:
            scraped(clinic, token)
        assert refused.value.code == 401
        refused.value.close()
    assert scraped(clinic, ADMIN)
    for path, body in (("status", None), ("queue", None), ("buckets", {"user": "u"}), ("diagnostics", {})):
        assert clinic.request(f"/api/admin/v1/{path}", body, token=SCRAPER)[0] == 401


def test_what_is_replicated_is_counted_and_how_long_it_took(clinic: Served) -> None:
    patients, began = len(clinic.people()), time.monotonic()
    clinic.measure("a private matter", times=4)
    clinic.catch_up()
    found = until(clinic, "replicator_source_rows_total", 4 * patients)
    assert found["replicator_source_transactions_total"] == 4
    assert found["replicator_ops_total"] >= 4 * patients
    assert found["replicator_ops_bytes_total"] > 0
    assert found["replicator_commit_to_checkpoint_seconds_count"] == 4
    assert found["replicator_commit_to_checkpoint_seconds_sum"] <= 4 * (time.monotonic() - began)
    assert found["replicator_writer_up"] == found["replicator_slot_active"] == 1
    assert found['replicator_tables{state="copied"}'] == 7
    assert found['replicator_processes{part="serve"}'] == 1


def test_counts_go_on_where_a_killed_process_left_them(clinic: Served) -> None:
    patients = len(clinic.people())
    clinic.measure("a private matter")
    until(clinic, "replicator_source_rows_total", patients)
    assert clinic._last is not None
    clinic._last.kill()
    assert until(clinic, "replicator_writer_up", 0)["replicator_source_rows_total"] == patients
    clinic.replicate()
    clinic.measure("another")
    found = until(clinic, "replicator_source_rows_total", 2 * patients)
    assert found['replicator_restarts_total{part="replicate"}'] == 1


def test_whoever_ends_as_it_is_meant_to_says_all_it_counted_and_is_no_restart(clinic: Served) -> None:
    patients = len(clinic.people())
    clinic.measure("a private matter")
    clinic.catch_up()
    assert clinic._last is not None
    clinic._last.terminate()
    assert clinic._last.wait() == 0
    found = samples(scraped(clinic))
    assert found["replicator_source_rows_total"] == patients and found["replicator_writer_up"] == 0
    clinic.replicate()
    clinic.measure("another")
    found = until(clinic, "replicator_source_rows_total", 2 * patients)
    assert found['replicator_restarts_total{part="replicate"}'] == 0


async def test_how_long_a_change_takes_to_an_app_is_counted_once_for_each_that_follows(
    clinic: Served,
) -> None:
    person = clinic.people()[0]
    headers = {"authorization": f"Token {token_of(person)}"}
    body = {"raw_data": True, "buckets": []}
    async with (
        aiohttp.ClientSession(clinic.url) as http,
        http.post("/sync/stream", json=body, headers=headers) as got,
    ):
        await _complete(got)
        found = await asyncio.to_thread(until, clinic, "replicator_clients", 1)
        assert found["replicator_commit_to_client_seconds_count"] == 0, "a first download is no measure"
        began = time.monotonic()
        for _ in range(2):
            await asyncio.to_thread(clinic.measure, "a private matter")
            await _complete(got)
        found = await asyncio.to_thread(until, clinic, "replicator_checkpoints_sent_total", 2)
        assert found["replicator_commit_to_client_seconds_count"] == 2
        assert 0 <= found["replicator_commit_to_client_seconds_sum"] <= 2 * (time.monotonic() - began)
    await asyncio.to_thread(until, clinic, "replicator_clients", 0)


async def _complete(got: aiohttp.ClientResponse) -> None:
    async for line in got.content:
        if b"checkpoint_complete" in line:
            return
    raise AssertionError("the stream ended")


async def test_how_old_jobs_were_is_counted_from_the_first_look_on(database: Database) -> None:
    await migrate(database.dsn, "replicator")
    finish = """INSERT INTO replicator.ehr_jobs_done
        (lane, seq, source_table, mapping, record_key, operation, commit_lsn, ordinal, part, priority,
         may_merge, state, created_at, finished_at)
        VALUES (1, %s, 't', 't', 'k', 'create', '0/1', 1, 0, 0,
                false, %s, now() - %s * interval '1 s', now())"""
    async with pooled(database.dsn, "test", schema="replicator") as connect:
        ages = JobAges(connect, margin_s=0.0)
        database.execute(finish, [1, "done", 3.0])
        assert (await ages.read(a_look())).count == 0
        for seq, state, age in ((2, "done", 0.3), (3, "done", 40.0), (4, "skipped", 40.0)):
            database.execute(finish, [seq, state, age])
        found = await ages.read(a_look())
        assert (found.count, round(found.sum, 1)) == (2, 40.3)
        assert dict(zip((*found.bounds, math.inf), found.counts, strict=True))[0.5] == 1
        assert (await ages.read(a_look())).count == 2, "each is counted once"
        assert (await ages.read(a_look(stored=Silent("", "")))).count == 2


def test_nobody_is_named_in_it(clinic: Served) -> None:
    clinic.measure("a private matter")
    until(clinic, "replicator_source_rows_total", len(clinic.people()))
    text = scraped(clinic)
    assert "private" not in text and clinic.slot not in text
    assert not any(person in text for person in clinic.people())
    assert all(one.startswith(("replicator_", "process_")) for one in names(text))
