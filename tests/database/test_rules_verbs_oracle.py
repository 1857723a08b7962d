"""What `rules test` finds in a source equals what the plan, carried out slowly, brings; on random rules."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from replicator.observe.rules.got import Subscription, User
from replicator.observe.rules.row import place
from replicator.observe.rules.user import get
from replicator.rules.model import Rules
from replicator.rules.parse import parse_rules
from tests.database.clinics import configure
from tests.unit.rules import random_definitions
from tests.unit.rules.plan_oracle import Asked, Plan, rows_for
from tests.unit.rules.plans import written
from tests.unit.rules.random_queries import TABLES, question, request, world

if TYPE_CHECKING:
    from tests.fixtures.postgres import Database

SEEDS = int(os.environ.get("RULES_TEST_SEEDS", "40"))
TOP = "config: {edition: 2}\nparameters: {org: \"SELECT request.jwt() ->> 'org'\"}"
ACCEPT = "accept_potentially_dangerous_queries: true"
Tables = dict[str, list[dict[str, Any]]]


def definitions(seed: int) -> Rules:
    asked = random_definitions.definition(seed)
    text = written(
        [json.dumps(sql) for sql in asked.parameters],
        *(json.dumps(both.rules) for both in asked.data.values()),
        extra=f"    {ACCEPT}",
        top=TOP,
    )
    return parse_rules(text, f"seed {seed}")


def streams(seed: int) -> Rules | None:
    asked = question(seed)
    queries = {"queries": [both.rules for both in asked.queries.values()], ACCEPT.partition(":")[0]: True}
    if asked.ctes:
        queries["with"] = {name: both.rules for name, both in asked.ctes.items()}
    try:
        return parse_rules(json.dumps({"config": {"edition": 3}, "streams": {"s": queries}}), f"seed {seed}")
    except Exception as error:
        assert "seed" in str(error)  # it is no stream, and says so
        return None


def fill(database: Database, seed: int) -> Tables:
    """Small tables whose columns have types: the same in the database and for the plan."""
    worlds = [world(seed * 4 + number) for number in range(4)]
    tables = {name: [row for one in worlds for row in one[name]] for name in TABLES}
    for name in TABLES:
        database.execute(f"TRUNCATE {name}")
        for number, row in enumerate(tables[name]):
            row["id"] = f"{name}r{number}"
            row["a"], row["b"] = (None if row[c] is None else str(row[c]) for c in ("a", "b"))
            row["c"] = {"u1": 1, "u2": 2}.get(row["c"], row["c"])
            database.execute(
                f"INSERT INTO {name} VALUES (%(id)s, %(n)s, %(a)s, %(b)s, %(c)s, %(xs)s, %(ys)s)", row
            )
    return tables


@pytest.fixture
def filled(database: Database) -> Database:
    for name in TABLES:
        database.execute(
            f"CREATE TABLE {name} (id text PRIMARY KEY, n integer, a text, b varchar, c bigint, "
            "xs json, ys json)"
        )
    database.execute("CREATE PUBLICATION powersync FOR ALL TABLES")
    return database


def expected(rules: Rules, tables: Tables, who: Asked) -> set[tuple[str, str]]:
    plan = Plan(rules.definitions, {lookup.id: lookup for lookup in rules.lookups}, rules.dialect)
    of = {query.output: query.table.name for variant in rules.variants() for query in variant.data}
    return {(name, tables[of[name]][at]["id"]) for name, at in rows_for(plan, tables, who)}


@pytest.mark.parametrize("kind", ["definitions", "streams"])
async def test_a_user_gets_what_the_plan_brings(filled: Database, kind: str) -> None:
    config, counted = configure(filled.dsn), Counter[str]()
    for seed in range(SEEDS):
        rules = definitions(seed) if kind == "definitions" else streams(seed)
        if rules is None:
            continue
        tables = fill(filled, seed)
        for number in range(2):
            who, _ = request(seed * 97 + number)
            assert who.user_id is not None
            subscriptions = (Subscription("s", who.subscription),) if kind == "streams" else ()
            user = User(who.user_id, who.jwt, who.parameters, subscriptions)
            got = await get(config, rules, user, most_buckets=10_000, most_rows=10_000)
            found = {(row.object_type, row.object_id) for row in got.rows}
            assert found == expected(rules, tables, who), f"seed {seed}: {rules} for {who}"
            assert got.counts.total() == len(got.rows)
            counted["compared" if found else "empty"] += 1
            # Whoever gets nothing is told why.
            assert got.granted or got.nothing
            assert all(one.why for one in got.nothing)
    print(counted)
    assert counted["compared"] > SEEDS // 4


async def test_what_is_told_of_a_row_is_what_replication_decides(filled: Database) -> None:
    config, counted = configure(filled.dsn), Counter[str]()
    for seed in range(SEEDS // 4):
        rules, tables = definitions(seed), fill(filled, seed)
        for name in {query.table.name for variant in rules.variants() for query in variant.data}:
            ways = Counter(
                query.output
                for variant in rules.variants()
                for query in variant.data
                if query.table.name == name
                for _ in query.terms
            )
            for row in tables[name][:6]:
                placement = await place(config, rules, name, row["id"], None)
                shut = Counter(out.output for out in placement.is_out)
                is_open = {output for output, count in ways.items() if shut[output or ""] < count}
                assert {one.output for one in placement.is_in} == is_open, f"seed {seed}: {name} {row}"
                counted["in" if placement.is_in else "out"] += 1
    print(counted)
    assert counted["in"] and counted["out"]
