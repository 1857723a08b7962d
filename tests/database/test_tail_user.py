"""`replicator tail --user` against a running server: what it is sent, and how it ends."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.database.served import Served
from tests.fixtures.children import Child, StartChild
from tests.fixtures.postgres import Database
from tests.fixtures.tokens import token as token_of

pytestmark = pytest.mark.migrated


@pytest.fixture
async def clinic(database: Database, tmp_path: Path, children: StartChild) -> AsyncIterator[Served]:
    served = Served(database, tmp_path, children)
    await served.build()
    served.measure("stable angina", times=2)
    served.replicate()
    await asyncio.to_thread(served.catch_up)
    await asyncio.to_thread(served.serve)
    await asyncio.to_thread(served.until_ready)
    yield served


def tail(clinic: Served, *options: str) -> Child:
    config = ("--config", str(clinic.config), "--server", clinic.url)
    return clinic.start_child("tail", *config, *options)


def events(child: Child) -> list[dict[str, Any]]:
    """What has been printed so far, as whole lines of JSON."""
    return [json.loads(line) for line in child.stdout.split("\n")[:-1]]


def until(child: Child, name: str, **fields: Any) -> dict[str, Any]:
    """The first event of this name that has these fields."""
    deadline = time.monotonic() + 60
    while True:
        for event in events(child):
            if event["event"] == name and fields.items() <= event.items():
                return event
        assert time.monotonic() < deadline and child.code is None, (child.stdout, child.stderr)
        time.sleep(0.05)


def test_it_shows_a_users_tables_and_that_sums_hold(clinic: Served) -> None:
    mine = clinic.people()[0]
    child = tail(clinic, "--user", mine, "--limit", "1")
    assert child.wait() == 0, child.stderr
    assert "sum right; users 1, vital_signs 2" in child.stdout
    assert "3 puts" in child.stdout
    assert "angina" not in child.stdout


def test_rows_are_shown_when_they_are_asked_for(clinic: Served) -> None:
    child = tail(clinic, "--user", clinic.people()[0], "--limit", "1", "--rows")
    assert child.wait() == 0
    assert child.stdout.count("stable angina") == 2


def test_it_follows_changes_and_writes_and_connects_again(clinic: Served) -> None:
    mine = clinic.people()[0]
    child = tail(clinic, "--user", mine, "--json")
    assert until(child, "complete", rows={"users": 1, "vital_signs": 2})["ok"] is True
    clinic.measure("new")
    until(child, "complete", rows={"users": 1, "vital_signs": 3}, ok=True)
    clinic.database.execute("DELETE FROM vital_signs WHERE patient_id = %s", [mine])
    until(child, "complete", rows={"users": 1}, ok=True)
    before = len([event for event in events(child) if event["event"] == "data"])
    # The server ends every connection when it ends; another one goes on where this one stopped.
    assert clinic.serving is not None
    clinic.serving.terminate()
    assert clinic.serving.wait() == 0
    clinic.serve_again()
    deadline = time.monotonic() + 60
    while len([event for event in events(child) if event["event"] == "complete"]) < 4:
        assert time.monotonic() < deadline and child.code is None, (child.stdout, child.stderr)
        time.sleep(0.05)
    assert len([event for event in events(child) if event["event"] == "connected"]) == 2
    assert len([event for event in events(child) if event["event"] == "data"]) == before
    child.terminate()
    assert child.wait() == 0


def test_a_wrong_sum_ends_it_with_1(clinic: Served) -> None:
    mine = clinic.people()[0]
    clinic.database.execute(
        """INSERT INTO replicator.totals (bucket, op_id, checksum, count)
           SELECT bucket, max(op_id), 12345, count(*) FROM replicator.ops GROUP BY bucket
           ON CONFLICT (bucket, op_id) DO UPDATE SET checksum = 12345"""
    )
    child = tail(clinic, "--user", mine, "--limit", "1")
    assert child.wait() == 1
    assert "sums do not hold" in child.stderr and mine in child.stderr
    assert "wrong" in child.stdout


def test_a_token_that_is_given_is_sent(clinic: Served) -> None:
    mine, other, _ = clinic.people()
    given = ("--token", token_of(mine), "--server", clinic.url, "--limit", "1")
    child = clinic.start_child("tail", *given)  # no configuration is needed
    assert child.wait() == 0, child.stderr
    assert "vital_signs 2" in child.stdout
    refused = tail(clinic, "--user", other, "--token", token_of(mine))
    assert refused.wait() == 2 and "not this user's" in refused.stderr
    expired = tail(clinic, "--token", token_of(mine, exp=int(time.time()) - 600))
    assert expired.wait() == 1 and "PSYNC_S2103" in expired.stderr
    assert tail(clinic, "--user", mine, "--from-start").wait() == 2


def test_a_server_that_does_not_answer_is_tried_again(clinic: Served) -> None:
    assert clinic.serving is not None
    clinic.serving.kill()
    child = tail(clinic, "--user", clinic.people()[0], "--json", "--limit", "1")
    ended = until(child, "disconnected")
    assert ended["why"] == f"no connection to {clinic.url} (ClientConnectorError); trying again"
    assert child.code is None
    clinic.serve_again()
    assert child.wait() == 0, child.stderr
