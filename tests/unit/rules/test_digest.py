"""A table's digest changes with what the rules make of its rows, and with nothing else."""

from __future__ import annotations

import json

import pytest

from replicator.rules.digest import digest_of
from replicator.rules.parse import parse_rules

PARAMETERS = "SELECT request.user_id() AS patient"
VISITS = "SELECT * FROM visits WHERE patient = bucket.patient"
JOINED = "SELECT * FROM visits WHERE ward IN (SELECT id FROM wards WHERE owner = bucket.patient)"


def digest(
    *data: str, parameters: str = PARAMETERS, name: str = "mine", table: str = "visits", **top: object
) -> str:
    said = {"bucket_definitions": {name: {"parameters": parameters, "data": data}}, **top}
    return digest_of(parse_rules(json.dumps(said), "rules.yaml"), "public", table)


@pytest.mark.parametrize(
    "other",
    [
        digest("SELECT * FROM visits WHERE doctor = bucket.patient"),
        digest("SELECT id, note FROM visits WHERE patient = bucket.patient"),
        digest("SELECT * FROM visits WHERE patient = bucket.patient AND open = 1"),
        digest(VISITS, name="yours"),
        digest(VISITS, VISITS.replace("*", "id, note")),
        digest(VISITS, config={"edition": 2}),
        digest(JOINED),
        digest(VISITS, parameters="SELECT patient FROM visits WHERE doctor = request.user_id()"),
    ],
)
def test_another_meaning_is_another_digest(other: str) -> None:
    assert other != digest(VISITS)


@pytest.mark.parametrize(
    "same",
    [
        digest("SELECT  *  FROM visits WHERE bucket.patient = visits.patient"),
        digest(VISITS, parameters="SELECT request.jwt() ->> 'patient' AS patient"),
        digest(VISITS, "SELECT * FROM wards WHERE owner = bucket.patient"),
    ],
)
def test_other_words_tables_and_users_are_not(same: str) -> None:
    assert same == digest(VISITS)


def test_a_table_that_is_only_looked_up_has_a_digest_of_what_is_looked_up() -> None:
    by_owner = digest(JOINED, table="wards")
    assert by_owner != digest(JOINED.replace("owner", "nurse"), table="wards")
    assert by_owner == digest(JOINED.replace("*", "id, ward"), table="wards")
