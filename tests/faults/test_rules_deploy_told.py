"""`rules deploy --dry-run` and `rules list` say what would be, and what is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.clinic import rules_over
from tests.faults.test_rules_deployed import BEFORE, MINE, OTHER, Story, story, text
from tests.fixtures.children import StartChild

__all__ = ["story"]
pytestmark = pytest.mark.faults


def told(story: Story, children: StartChild, *verb: str) -> tuple[int, str]:
    child = children(*verb, "--config", story.clinic.path)
    return child.wait(), child.stdout


async def test_a_dry_run_estimates_and_changes_nothing(story: Story, children: StartChild) -> None:
    story.database.execute("ANALYZE")
    path = story.folder / "other.yaml"
    path.write_text(text(OTHER | {"beds": (MINE, "SELECT * FROM wards AS beds WHERE doctor = bucket.x")}))
    code, said = told(story, children, "rules", "deploy", str(path), "--dry-run", "--json")
    facts = json.loads(said)
    assert code == 0
    assert facts["definitions"] == {"mine": "changed", "all": "kept", "beds": "new"}
    assert [(table["table"], table["rows"], table["buckets_per_row"]) for table in facts["tables"]] == [
        ("visits", 30, 1),
        ("wards", 30, 1),
    ]
    assert facts["rows"] == 60 and facts["bytes"] > 60 * 100 and facts["rows_per_second"] == 30_000
    code, said = told(story, children, "rules", "deploy", str(path), "--dry-run")
    assert code == 0 and "visits  about 30 rows" in said and "Rules 1 stay in force" in said
    path.write_text(rules_over(wards="patient"))
    code, said = told(story, children, "rules", "deploy", str(path), "--dry-run", "--json")
    assert json.loads(said)["definitions"] == {"mine": "changed", "all": "dropped"}
    path.write_text("# new\n" + text(BEFORE))
    code, said = told(story, children, "rules", "deploy", str(path), "--dry-run")
    assert "Nothing has to be read" in said
    assert story.sets() == [(1, "active")]


async def test_a_deploy_is_told_to_people_and_programs(story: Story, children: StartChild) -> None:
    path: Path = story.folder / "other.yaml"
    path.write_text(text(OTHER))
    code, said = told(story, children, "rules", "deploy", str(path))
    assert code == 0 and said.splitlines()[-1] == "rules 2 are in force"
    path.write_text(text(BEFORE))
    code, said = told(story, children, "rules", "deploy", str(path), "--json")
    assert code == 0
    assert json.loads(said) == {
        "rules": 3,
        "state": "active",
        "why": None,
        "definitions": {"mine": "changed", "all": "kept"},
    }
    code, said = told(story, children, "rules", "list", "--json")
    sets = {one["rules"]: one for one in json.loads(said)["rules"]}
    assert {number: one["state"] for number, one in sets.items()} == {1: "retired", 2: "retired", 3: "active"}
    assert sets[3]["definitions"] == {"mine": 3, "all": 1} and sets[3]["origin"] == "command"
    code, said = told(story, children, "rules", "list")
    assert code == 0 and "3  in force  from rules deploy" in said and "1#all, 3#mine" in said


async def test_where_nothing_runs_that_is_said(story: Story, children: StartChild) -> None:
    story.stop()
    path = story.folder / "other.yaml"
    path.write_text(text(OTHER))
    child = children("rules", "deploy", str(path), "--no-wait", "--config", story.clinic.path)
    assert child.wait() == 0
    assert "the next `replicator run` does it" in child.stderr
    code, said = told(story, children, "rules", "list")
    assert code == 0 and "2  being prepared" in said
