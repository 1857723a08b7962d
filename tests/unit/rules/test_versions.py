"""Names get another version when what they stand for becomes something else, and keep it otherwise."""

from __future__ import annotations

import json

from replicator.rules.model import Find, Rules
from replicator.rules.parse import parse_rules
from replicator.rules.versions import Versions, only_new, versioned, versions_of

MINE = "SELECT request.user_id() AS patient"
BY_WARD = "SELECT ward AS patient FROM nurses WHERE id = request.user_id()"
VISITS = "SELECT * FROM visits WHERE patient = bucket.patient"
JOINED = "SELECT * FROM visits WHERE ward IN (SELECT id FROM wards WHERE owner = bucket.patient)"


def rules(edition: int = 1, **definitions: tuple[str, str]) -> Rules:
    said = {name: {"parameters": asked, "data": [data]} for name, (asked, data) in definitions.items()}
    return parse_rules(json.dumps({"bucket_definitions": said, "config": {"edition": edition}}), "rules.yaml")


def deployed(*sets: Rules) -> list[Versions]:
    """One after the other, each put in force."""
    made: list[Versions] = []
    for number, one in enumerate(sets, 1):
        made.append(versions_of(one, number, made[-1] if made else None))
    return made


def test_a_definition_keeps_its_name_until_it_means_something_else() -> None:
    first = rules(a=(MINE, VISITS), b=(MINE, VISITS))
    second = rules(a=(MINE, JOINED), b=(BY_WARD, VISITS))
    assert [versions.buckets() for versions in deployed(first, second, second, first)] == [
        {"1#a", "1#b"},
        {"2#a", "1#b"},
        {"2#a", "1#b"},
        {"4#a", "1#b"},
    ]


def test_every_name_in_the_rules_has_its_version() -> None:
    made = rules(a=(BY_WARD, JOINED))
    _, versions = deployed(rules(a=(MINE, VISITS)), made)
    found = versioned(made, versions)
    (variant,) = found.variants()
    (join,) = variant.data[0].terms[0].joins
    (step,) = variant.queries[0].steps
    assert isinstance(step, Find)
    assert variant.name == "2#a"
    assert {lookup.id for lookup in found.lookups} == {join.lookup, step.lookup} == versions.maintained()
    assert join.lookup.startswith("2#") and step.lookup.startswith("2#")


def test_a_lookup_that_says_who_asks_is_shared_while_one_that_brings_rows_is_made_anew() -> None:
    first = rules(a=(BY_WARD, JOINED))
    second = rules(a=(BY_WARD, JOINED.replace("*", "id, ward")))
    before, after = deployed(first, second)
    assert before.lookups == after.lookups
    (joined,) = after.definitions["a"].lookups
    assert after.maintained() - before.maintained() == {f"2#{joined}"}
    new = only_new(versioned(second, after), after, 2)
    assert [lookup.id for lookup in new.lookups] == [f"2#{joined}"]
    assert new.tables() == (("public", "visits"), ("public", "wards"))


def test_nothing_is_new_where_only_who_asks_has_changed_but_what_that_takes() -> None:
    first, second = rules(a=(MINE, VISITS)), rules(a=(BY_WARD, VISITS))
    _, after = deployed(first, second)
    new = only_new(versioned(second, after), after, 2)
    assert new.definitions == () and new.tables() == (("public", "nurses"),)


def test_another_dialect_shares_nothing() -> None:
    before, after = deployed(rules(1, a=(BY_WARD, VISITS)), rules(2, a=(BY_WARD, VISITS)))
    assert not before.maintained() & after.maintained() and not before.buckets() & after.buckets()


def test_a_name_that_was_gone_does_not_come_back() -> None:
    first, second = rules(a=(BY_WARD, JOINED)), rules(b=(MINE, VISITS))
    one, _, three = deployed(first, second, first)
    assert not one.maintained() & three.maintained() and not one.buckets() & three.buckets()


def test_versions_survive_json() -> None:
    (versions,) = deployed(rules(a=(BY_WARD, JOINED), b=(MINE, VISITS)))
    assert Versions.from_json(json.loads(json.dumps(versions.as_json()))) == versions
