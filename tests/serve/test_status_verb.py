"""`replicator status`: the same words for a person, a pipe and a program; also where nothing runs."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.database.served import Served
from tests.fixtures.children import ROOT, StartChild
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.migrated


@pytest.fixture
async def clinic(database: Database, tmp_path: Path, children: StartChild) -> AsyncIterator[Served]:
    served = Served(database, tmp_path, children)
    await served.build()
    yield served


def status(clinic: Served, *options: str) -> tuple[int, str]:
    child = clinic.start_child("status", *options, "--config", clinic.path)
    code = child.wait()
    assert child.stderr == ""
    return code, child.stdout


def facts(clinic: Served) -> dict[str, Any]:
    return dict(json.loads(status(clinic, "--json")[1]))


def until(clinic: Served, holds: Any) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while not holds(found := facts(clinic)):
        assert time.monotonic() < deadline, found
    return found


async def test_it_says_what_is_wrong_from_before_the_first_start_on(clinic: Served) -> None:
    await asyncio.to_thread(_a_day, clinic)


def _a_day(clinic: Served) -> None:
    code, text = status(clinic)
    assert "nothing has been replicated yet" in text and "\x1b" not in text
    first, serving = clinic.replicate(), clinic.serve()
    clinic.catch_up()
    found = until(clinic, lambda found: found["running"] == {"replicate": 1, "serve": 1, "work": 0})
    assert (found["status"], found["troubles"]) == ("ok", [])
    assert found["source"]["is_read"] and found["source"]["retained_bytes"] > 0
    assert {one["state"] for one in found["copies"]} == {"copied"} and found["rules"]["version"] == 1
    code, text = status(clinic)
    assert code == 0 and text.startswith("all is well")
    assert "0 clients connected" in text and "7 of 7 copied" in text and clinic.slot in text
    first.kill()
    found = until(clinic, lambda found: found["status"] == "error")
    assert codes(found) == {"replicate.down"}
    code, text = status(clinic)
    assert code == 1 and "nobody replicates" in text and "since" in text
    serving.terminate()
    serving.wait()
    found = until(clinic, lambda found: found["running"]["serve"] == 0)
    assert codes(found) == {"replicate.down", "serve.down"}


def codes(found: dict[str, Any]) -> set[str]:
    """What is wrong, whatever room there is on this machine's disk for the log of a source nobody reads."""
    return {one["code"] for one in found["troubles"]} - {"slot.room"}


async def test_a_source_that_is_away_is_said_to_be_and_what_is_stored_is_told(clinic: Served) -> None:
    given = json.loads(clinic.path.read_text())
    given["storage"] = {"dsn": given["source"]["dsn"]}
    given["source"]["dsn"] = "postgresql://nobody:s3cret@127.0.0.1:1/clinic"
    clinic.path.write_text(json.dumps(given))
    code, text = await asyncio.to_thread(status, clinic)
    assert code == 1 and "does not answer" in text and "127.0.0.1:1" in text and "s3cret" not in text
    assert "no checkpoint yet" in text


async def test_storage_that_was_never_migrated_names_the_remedy(clinic: Served) -> None:
    clinic.database.execute("DROP SCHEMA replicator CASCADE")
    code, text = await asyncio.to_thread(status, clinic)
    assert code == 1 and "replicator migrate" in text


async def test_on_a_terminal_it_is_drawn_again_and_again_and_the_terminal_given_back(clinic: Served) -> None:
    shown = await asyncio.to_thread(_on_a_terminal, clinic)
    assert shown.count("\x1b[H") >= 2, "drawn twice, each time from the corner"
    assert "\x1b[33m" in shown, "with colour"
    assert shown.startswith("\x1b[?1049h") and shown.endswith("\x1b[?1049l"), "on the other screen, and back"


def _on_a_terminal(clinic: Served) -> str:
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "replicator",
        "status",
        "--watch",
        "--every",
        "0.2",
        "--config",
        str(clinic.path),
    ]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, cwd=ROOT)
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + 120
    try:
        while shown.count(b"\x1b[H") < 2:
            assert select.select([ours], [], [], max(0.0, deadline - time.monotonic()))[0], shown
            shown += os.read(ours, 1 << 16)
        process.terminate()
        while select.select([ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
            try:
                shown += os.read(ours, 1 << 16)
            except OSError:  # the other end is closed
                break
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return shown.decode()
