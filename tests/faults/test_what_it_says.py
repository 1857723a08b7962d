"""What an operator reads in the log of a day on which nothing is wrong: little, and never a secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.faults.clinic import Clinic
from tests.fixtures.children import Child, StartChild
from tests.fixtures.postgres import Database

pytestmark = [pytest.mark.faults, pytest.mark.migrated]


def said(child: Child) -> list[tuple[str, str]]:
    """The level and the name of each line."""
    lines = [json.loads(line) for line in child.stderr.splitlines()]
    return [(line["level"], line["event"]) for line in lines]


async def test_it_says_that_it_starts_streams_waits_and_ends(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Clinic(database, tmp_path, children)
    await clinic.build()
    first = clinic.run()
    clinic.catch_up()
    second = clinic.run()
    second.wait_for("waiting")
    for child in (second, first):
        child.terminate()
        assert child.wait() == 0
    assert said(second) == [("info", "starting"), ("info", "waiting"), ("info", "stopped")]
    copies = {("info", "copying"), ("info", "copied")}
    assert [one for one in said(first) if one not in copies] == [
        ("info", "starting"),
        ("info", "rules deployed"),
        ("info", "streaming"),
        ("info", "rules switched"),
        ("info", "stopped"),
    ]
    starting = json.loads(first.stderr.splitlines()[0])
    assert starting["slot"] == clinic.slot and starting["publication"] == "powersync"
    assert database.name in starting["source"] and "schema replicator" in starting["storage"]
    assert str(conninfo_to_dict(database.dsn)["password"]) not in first.stderr + second.stderr
