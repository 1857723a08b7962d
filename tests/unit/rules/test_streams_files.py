"""Streams as people write them: who gets which rows."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import dedent
from typing import Any

import pytest

from replicator.rules.expression import EDITION_3
from tests.unit.rules.plan_oracle import Asked, Plan, Row, buckets_for, rows_for
from tests.unit.rules.told import read


def rows(columns: str, *lines: str) -> list[Row]:
    """Rows of text; `-` is NULL, digits are a number."""

    def value(word: str) -> Any:
        return None if word == "-" else int(word) if word.isdigit() else word

    names = columns.split()
    return [dict(zip(names, map(value, line.split()), strict=True)) for line in lines]


def plan_of(text: str) -> Plan:
    found = read(dedent(text))
    assert found.problems() == []
    return Plan(tuple(found.definitions), found.context.lookups, EDITION_3)


def got(plan: Plan, tables: Mapping[str, list[Row]], asked: Asked, now: float = 0.0) -> dict[str, str]:
    """By name of table, the ids of the rows; a table is read under its own name here."""
    found: dict[str, list[str]] = {}
    for name, at in sorted(rows_for(plan, tables, asked, now)):
        found.setdefault(name, []).append(str(tables[name][at]["id"]))
    return {name: " ".join(ids) for name, ids in found.items()}


TODOS = {
    "lists": rows("id owner archived", "l1 ann 0", "l2 bob 0", "l3 bob 1", "l4 cyd 0"),
    "shares": rows("id list_id user_id", "s1 l2 ann", "s2 l3 ann", "s3 l1 cyd", "s4 - ann"),
    "todos": rows("id list_id", "t1 l1", "t2 l2", "t3 l2", "t4 l3", "t5 l4", "t6 -"),
}
SHARED_LISTS = """\
    lists:
      auto_subscribe: true
      priority: 1
      with:
        reachable: >-
          SELECT l.id FROM lists l WHERE l.archived = 0 AND (l.owner = auth.user_id()
          OR l.id IN (SELECT list_id FROM shares WHERE user_id = auth.user_id()))
      queries:
        - SELECT * FROM lists WHERE id IN reachable
        - SELECT * FROM todos WHERE list_id IN reachable
        - SELECT * FROM shares WHERE list_id IN reachable
"""


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ("ann", {"lists": "l1 l2", "todos": "t1 t2 t3", "shares": "s1 s3"}),
        ("bob", {"lists": "l2", "todos": "t2 t3", "shares": "s1"}),
        ("cyd", {"lists": "l1 l4", "todos": "t1 t5", "shares": "s3"}),
        ("dan", {}),
        (None, {}),
    ],
)
def test_lists_that_are_ones_own_or_shared(who: str | None, expected: dict[str, str]) -> None:
    plan = plan_of(SHARED_LISTS)
    [definition] = plan.definitions
    assert len(definition.variants) == 1, "however a list is reached, it is the same bucket"
    assert got(plan, TODOS, Asked(who)) == expected
    ids = expected.get("lists", "").split()
    assert buckets_for(plan, TODOS, Asked(who)) == {f"lists|0['{id}']" for id in ids}


def test_one_list_that_is_asked_for() -> None:
    plan = plan_of("""\
        todos:
          query: >-
            SELECT * FROM todos WHERE list_id = subscription.parameter('list')
            AND list_id IN (SELECT id FROM lists WHERE owner = auth.user_id())
    """)
    assert got(plan, TODOS, Asked("ann", subscription={"list": "l1"})) == {"todos": "t1"}
    assert got(plan, TODOS, Asked("ann", subscription={"list": "l2"})) == {}
    assert got(plan, TODOS, Asked("ann")) == {}


ORGS = {
    "orgs": rows("id name", "o1 one", "o2 two"),
    "members": rows("id org who role", "m1 o1 ann admin", "m2 o1 bob staff", "m3 o2 bob admin"),
    "projects": rows("id org hidden", "p1 o1 0", "p2 o1 1", "p3 o2 0"),
    "files": rows("id project", "f1 p1", "f2 p2", "f3 p3"),
}


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ("ann", {"orgs": "o1", "members": "m1 m2", "projects": "p1 p2", "files": "f1 f2"}),
        (
            "bob",
            {"orgs": "o1 o2", "members": "m1 m2 m3", "projects": "p1 p3", "files": "f1 f3"},
        ),
        ("cyd", {}),
    ],
)
def test_what_a_role_in_an_organisation_shows(who: str, expected: dict[str, str]) -> None:
    plan = plan_of("""\
        org:
          with:
            mine: SELECT org FROM members WHERE who = auth.user_id()
            led: SELECT org FROM members WHERE who = auth.user_id() AND role = 'admin'
          queries:
            - SELECT * FROM orgs WHERE id IN mine
            - SELECT * FROM members WHERE org IN mine
            - SELECT * FROM projects WHERE org IN mine AND hidden = 0 OR org IN led
            - >-
              SELECT files.* FROM files JOIN projects p ON files.project = p.id
              JOIN members m ON m.org = p.org
              WHERE m.who = auth.user_id() AND (p.hidden = 0 AND m.role = 'staff' OR m.role = 'admin')
    """)
    assert got(plan, ORGS, Asked(who)) == expected


SCHOOL = {
    "pupils": rows("id name", "a ann", "b bob"),
    "courses": rows("id title", "c1 x", "c2 y", "c3 z"),
    "enrolments": rows("id pupil course", "e1 a c1", "e2 a c2", "e3 b c2"),
    "lessons": rows("id course", "l1 c1", "l2 c2", "l3 c3"),
    "notes": rows("id lesson", "n1 l1", "n2 l2", "n3 l3"),
}


def test_many_to_many_and_three_deep() -> None:
    plan = plan_of("""\
        school:
          queries:
            - SELECT * FROM courses WHERE id IN (SELECT course FROM enrolments WHERE pupil = auth.user_id())
            - >-
              SELECT * FROM notes WHERE lesson IN (SELECT id FROM lessons WHERE course IN
              (SELECT id FROM courses WHERE id IN (SELECT course FROM enrolments
              WHERE pupil = auth.user_id())))
            - >-
              SELECT * FROM pupils WHERE id IN (SELECT theirs.pupil FROM enrolments mine, enrolments theirs
              WHERE mine.course = theirs.course AND mine.pupil = auth.user_id())
    """)
    assert got(plan, SCHOOL, Asked("a")) == {"courses": "c1 c2", "notes": "n1 n2", "pupils": "a b"}
    assert got(plan, SCHOOL, Asked("b")) == {"courses": "c2", "notes": "n2", "pupils": "a b"}
    assert got(plan, SCHOOL, Asked("c")) == {}


DAY = 86400
CLINIC = {
    "facilities": rows("id region", "f1 north", "f2 south"),
    "providers": rows("id login facility role", "d1 ann f1 doctor", "d2 bob f2 nurse", "d3 eva - doctor"),
    "patients": rows("id facility team", "p1 f1 -", "p2 f1 -", "p3 f2 -", "p4 - -", 'p5 - ["d2","d3"]'),
    "vital_signs": rows("id patient taken", f"v1 p1 {9 * DAY}", f"v2 p1 {2 * DAY}", f"v3 p3 {9 * DAY}"),
    "notes": rows("id patient sealed", "n1 p1 0", "n2 p1 1", "n3 p3 0", "n4 p3 1"),
    "codes": rows("id", "k1", "k2"),
}
CLINIC_STREAMS = """\
    codes:
      auto_subscribe: true
      priority: 0
      query: SELECT * FROM codes
    patients:
      auto_subscribe: true
      priority: 1
      with:
        own: >-
          SELECT p.id FROM patients p JOIN providers d ON p.facility = d.facility
          WHERE d.login = auth.user_id()
        doctors: SELECT login FROM providers WHERE role = 'doctor'
      queries:
        - SELECT * FROM patients WHERE id IN own
        - >-
          SELECT * FROM patients WHERE team && (SELECT id FROM providers WHERE login = auth.user_id())
        - >-
          SELECT * FROM vital_signs WHERE patient IN own
          AND datetime(taken, 'unixepoch') > now() - interval '7 days'
        - SELECT * FROM notes WHERE patient IN own AND (sealed = 0 OR auth.user_id() IN doctors)
    region:
      query: >-
        SELECT * FROM facilities WHERE region = subscription.parameter('region')
        AND region IN auth.parameter('regions')
"""


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Asked("ann"), {"patients": "p1 p2", "vital_signs": "v1", "notes": "n1 n2"}),
        (Asked("bob"), {"patients": "p3 p5", "vital_signs": "v3", "notes": "n3"}),
        (Asked("eva"), {"patients": "p5"}),
        (Asked("ann", {"regions": ["north"]}), {"patients": "p1 p2", "vital_signs": "v1", "notes": "n1 n2"}),
        (Asked("x", {"regions": ["north"]}, {}, {"region": "north"}), {"facilities": "f1"}),
        (Asked("x", {"regions": ["north"]}, {}, {"region": "south"}), {}),
        (Asked("x", {}, {}, {"region": "south"}), {}),
    ],
)
def test_a_clinic(asked: Asked, expected: dict[str, str]) -> None:
    plan = plan_of(CLINIC_STREAMS)
    assert got(plan, CLINIC, asked, now=10 * DAY) == {"codes": "k1 k2", **expected}


def test_each_stream_of_the_clinic_has_its_priority() -> None:
    plan = plan_of(CLINIC_STREAMS)
    assert {d.name: (d.priority, d.auto_subscribe) for d in plan.definitions} == {
        "codes": (0, True),
        "patients": (1, True),
        "region": (3, False),
    }
    for definition in plan.definitions:
        for variant in definition.variants:
            assert {query.priority for query in variant.queries} == {definition.priority}


def test_a_row_leaves_with_time() -> None:
    plan = plan_of(CLINIC_STREAMS)
    later = got(plan, CLINIC, Asked("bob"), now=30 * DAY)
    assert later == {"codes": "k1 k2", "patients": "p3 p5", "notes": "n3"}
