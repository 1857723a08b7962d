"""A definition's digest changes with what its buckets hold, and with nothing else."""

from __future__ import annotations

import json

import pytest

from replicator.rules.digest import digest_of
from replicator.rules.parse import parse_rules

PARAMETERS = "SELECT request.user_id() AS patient"
VISITS = "SELECT * FROM visits WHERE patient = bucket.patient"
JOINED = "SELECT * FROM visits WHERE ward IN (SELECT id FROM wards WHERE owner = bucket.patient)"


def digest(*data: str, parameters: str = PARAMETERS, priority: int = 3, **top: object) -> str:
    mine = {"parameters": parameters, "data": data, "priority": priority}
    rules = parse_rules(json.dumps({"bucket_definitions": {"mine": mine}, **top}), "rules.yaml")
    return digest_of(rules.definitions[0], rules.dialect)


@pytest.mark.parametrize(
    "other",
    [
        digest("SELECT * FROM visits WHERE doctor = bucket.patient"),
        digest("SELECT id, note FROM visits WHERE patient = bucket.patient"),
        digest("SELECT * FROM visits WHERE patient = bucket.patient AND open = 1"),
        digest(VISITS, VISITS.replace("*", "id, note")),
        digest(VISITS, "SELECT * FROM wards WHERE owner = bucket.patient"),
        digest(VISITS, config={"edition": 2}),
        digest(JOINED),
    ],
)
def test_another_meaning_is_another_digest(other: str) -> None:
    assert other != digest(VISITS)


def test_what_is_looked_up_is_part_of_the_meaning() -> None:
    assert digest(JOINED) != digest(JOINED.replace("owner", "nurse"))


@pytest.mark.parametrize(
    "same",
    [
        digest("SELECT  *  FROM visits WHERE bucket.patient = visits.patient"),
        digest(VISITS, parameters="SELECT request.jwt() ->> 'patient' AS patient"),
        digest(VISITS, parameters="SELECT patient FROM visits WHERE doctor = request.user_id()"),
        digest(VISITS, priority=1),
    ],
)
def test_other_words_users_and_priorities_are_not(same: str) -> None:
    assert same == digest(VISITS)
