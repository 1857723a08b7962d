"""What only the source's types show of rules is told when replicating begins, once, and stops nothing."""

from __future__ import annotations

import logging

import pytest

from replicator.database import connected
from replicator.rules.doubts import Doubts, doubts_of
from replicator.rules.parse import parse_rules
from replicator.wal.messages import Column, Relation
from tests.fixtures.postgres import Database

RULES = """
streams:
  warm:
    query: SELECT * FROM readings WHERE temperature > 37 AND owner = auth.user_id()
  own:
    queries:
      - SELECT * FROM readings WHERE token = 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11' AND owner = auth.user_id()
      - SELECT * FROM readings WHERE sex = 'f' AND code = 'f' AND owner = auth.user_id()
      - SELECT * FROM absent WHERE owner = auth.user_id()
  plain:
    query: SELECT * FROM readings WHERE auth.parameter('x') != 'y' AND owner = auth.user_id()
config: {edition: 3}
"""
PLACES = [
    ("rules.yaml:4:41", "warm.query"),
    ("rules.yaml:7:38", "own.queries[0]"),
    ("rules.yaml:8:52", "own.queries[1]"),
]


@pytest.fixture
def readings(database: Database) -> Database:
    database.execute(
        "CREATE TABLE readings (id text PRIMARY KEY, owner text, temperature numeric, token uuid, "
        "sex char(1), code char(8))"
    )
    database.execute("CREATE PUBLICATION powersync FOR TABLE readings")
    return database


async def test_what_the_types_show_is_told_once(readings: Database, caplog: pytest.LogCaptureFixture) -> None:
    rules, doubts = parse_rules(RULES, "rules.yaml"), Doubts("rules.yaml")
    with caplog.at_level(logging.INFO, "replicator"):
        async with connected(readings.dsn, "test") as source:
            await doubts.tell(rules, source, "powersync")
            told = [record for record in caplog.records if record.getMessage() == "rules doubted"]
            await doubts.tell(parse_rules(RULES, "rules.yaml"), source, "powersync")
    assert [(record.fields["at"], record.fields["rule"]) for record in told] == PLACES  # type: ignore[attr-defined]  # what a mark carries
    assert all(record.levelno == logging.WARNING for record in told)
    assert "A0EE" not in caplog.text
    assert [record.getMessage() for record in caplog.records].count("rules doubted") == len(told)


def test_what_would_be_refused_is_told_too_and_what_was_told_is_not() -> None:
    rules = parse_rules(RULES, "rules.yaml")
    columns = (
        Column("temperature", 1700, -1, False),
        Column("id", 25, -1, True),
        Column("owner", 25, -1, False),
    )
    [one] = doubts_of(rules, "rules.yaml", [Relation(1, "public", "readings", "d", columns)])
    assert one.what.startswith(
        "temperature is numeric in the source, and text here, and the number is integer"
    )
    assert list(doubts_of(rules, "rules.yaml", [])) == []
