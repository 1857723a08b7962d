"""`verify` compares what clients are sent, also while buckets of other rules stand beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replicator.config import load
from replicator.errors import Unavailable
from replicator.observe.verify import verify
from replicator.rules.parse import parse_rules
from replicator.rules.versions import versioned
from tests.faults.clinic import Clinic, rules_over
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

#: More than a bucket's page holds.
ROWS = 2500
TABLES = f"""
CREATE TABLE visits (id integer PRIMARY KEY, patient text, doctor text);
ALTER TABLE visits REPLICA IDENTITY FULL;
INSERT INTO visits SELECT i, 'p1', 'd1' FROM generate_series(1, {ROWS}) AS i;
CREATE PUBLICATION powersync FOR ALL TABLES;
"""


async def by_patient(database: Database, tmp_path: Path, children: StartChild) -> Clinic:
    """A clinic whose visits are in their patients' buckets."""
    clinic = Clinic(database, tmp_path, children, rules=rules_over(visits="patient"))
    await clinic.build(tables=TABLES)
    clinic.run()
    clinic.catch_up()
    return clinic


async def test_rules_that_are_over_are_no_difference_until_they_should_be_gone(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = await by_patient(database, tmp_path, children)
    clinic.rules.write_text(rules_over(visits="doctor"))
    assert clinic.ask("rules", "deploy", str(clinic.rules)) == 0
    database.execute("DELETE FROM visits WHERE id % 5 = 0")  # which those that are over do not hear of
    clinic.catch_up()
    assert verified(clinic, children) == (0, [])
    # Had they been taken away, nothing of them could be left.
    database.execute("UPDATE replicator.rule_sets SET cleaned_at = now() WHERE state = 'retired'")
    assert verified(clinic, children) == (1, [("stranger", '1#mine["p1"]')])


async def test_rules_that_come_into_force_meanwhile_are_said_to_and_no_difference(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = await by_patient(database, tmp_path, children)
    _, content, versions = clinic.in_force()
    rules = versioned(parse_rules(content, "in force"), versions)

    def deploy(_: int) -> None:
        if clinic.rules.read_text() == content:
            clinic.rules.write_text(rules_over(visits="doctor"))
            assert clinic.ask("rules", "deploy", str(clinic.rules)) == 0
            database.execute("DELETE FROM visits WHERE id % 5 = 0")
            clinic.catch_up()

    with pytest.raises(Unavailable, match="rules 2 came into force while buckets were compared by rules 1"):
        await verify(load(clinic.path, {}), rules, user=None, sample=None, say=deploy)


def verified(clinic: Clinic, children: StartChild) -> tuple[int, list[tuple[str, str]]]:
    child = children("verify", "--all", "--json", "--config", clinic.path)
    code = child.wait()
    return code, [(one["kind"], one["bucket"]) for one in json.loads(child.stdout)["differences"]]
