"""Rules files changed at random: each is read, or its problems have places in it; nothing else happens."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.errors import ConfigError
from replicator.rules.context import Tables
from replicator.rules.model import Find, Rules
from replicator.rules.parse import parse_rules
from replicator.text.nodes import Problems
from tests.unit.rules.plans import written

HERE = Path(__file__).parent
FILES = [
    path.read_text() for folder in ("seeds", "examples") for path in sorted((HERE / folder).glob("*.yaml"))
]
CATALOGUE: Tables = {("public", "t"): {"id": 25, "a": 23, "b": 25, "at": 1184}, ("public", "u"): {"id": 25}}

#: Pieces of SQL that mean something somewhere; sentences of them are mostly wrong, in many ways.
WORDS = """
SELECT FROM WHERE AND OR NOT IN AS UNION ALL NULL IS BETWEEN LIKE CASE WHEN THEN ELSE END EXISTS ANY DISTINCT
( ) , . * = != < > <= >= && || -> ->> :: + - / % ; ' " $1 [ ] : ? @>
a b c id t u 1 0 -1 1.5 '' 'a' '1 day' "A" "t_%" true false interval text integer
bucket.x bucket.y bucket bucket.x::text request.user_id() request.jwt() request.parameters()
request.parameter('p')
request.user_id
token_parameters.user_id() token_parameters.a user_parameters.a auth.user_id() parameters.me
now() current_timestamp json_each( value key _priority _table_suffix upper( ifnull( unixepoch( ARRAY[ ROW(
interval'90 days' (SELECT id FROM u WHERE a = bucket.x) (SELECT a FROM u) now()-interval'1d'
""".split()
WORDS += [
    "interval '90 days'",
    "(SELECT id FROM u WHERE a = bucket.x)",
    "now() - interval '1 day'",
    "IS NOT NULL",
]

sql = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)
condition = st.recursive(
    st.sampled_from(
        [
            "a = 1",
            "b = bucket.x",
            "bucket.x IN b",
            "a::text = bucket.x::text",
            "at > now() - interval '1 day'",
            "now() BETWEEN at AND b",
            "a IN (SELECT id FROM u WHERE a = bucket.x)",
            "a IN (SELECT id FROM u WHERE a = bucket.x UNION SELECT id FROM t)",
            "b = request.user_id()",
            "b IN request.jwt() -> 'c'",
            "b = request.parameter('c')",
            "b IS NOT NULL",
            "b != 'c'",
            "x",
        ]
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" AND ", " OR "]), inner).map("".join).map("({})".format),
        inner.map("NOT ({})".format),
        inner.map("ifnull({}, 1)".format),
        inner.map("a IN (SELECT id FROM u WHERE {})".format),
    ),
    max_leaves=10,
)


def parsed(text: str, tables: Tables | None = None) -> Rules | None:
    """The rules, or None if there are problems; each of those stands somewhere in the text."""
    try:
        return parse_rules(text, "f", tables)
    except Problems as found:
        assert found.problems
        lines = text.splitlines() or [""]
        for problem in found.problems:
            assert 1 <= problem.line <= len(lines) + 1 and problem.column >= 1 and problem.what
    except ConfigError as error:
        assert str(error)
    return None


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_file_with_a_piece_of_another_is_read_or_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(FILES))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 40)))
        other = data.draw(st.sampled_from(FILES))
        at = data.draw(st.integers(0, len(other)))
        piece = data.draw(st.one_of(st.text(max_size=5), sql, st.just(other[at : at + 40])))
        text = text[:start] + piece + text[end:]
    parsed(text)


@settings(max_examples=300, deadline=None)
@given(sql, sql)
def test_sentences_of_the_words_of_sql_are_read_or_refused(parameters: str, data: str) -> None:
    parsed(written(quoted(parameters), quoted(data)), CATALOGUE)
    parsed(written("SELECT request.user_id() AS x", quoted(f"SELECT * FROM t WHERE {data}")), CATALOGUE)
    parsed(written(quoted(f"SELECT id AS x FROM t WHERE {parameters}"), "SELECT * FROM t"), CATALOGUE)


@settings(max_examples=300, deadline=None)
@given(condition, condition)
def test_conditions_in_any_arrangement_are_read_or_refused(parameters: str, data: str) -> None:
    rules = parsed(
        written(
            quoted(f"SELECT id AS x FROM t WHERE {parameters}"),
            quoted(f"SELECT * FROM t WHERE b = bucket.x AND {data}"),
            extra="    accept_potentially_dangerous_queries: true",
        ),
        CATALOGUE,
    )
    parsed(written("SELECT request.user_id() AS x", quoted(f"SELECT * FROM t WHERE {data}")), CATALOGUE)
    if rules is not None:
        _check_references(rules)


def _check_references(rules: Rules) -> None:
    """Everything a plan refers to is there."""
    known = {lookup.id: lookup for lookup in rules.lookups}
    for variant in rules.variants():
        for query in variant.queries:
            assert len(query.values) == len(variant.parameters)
            for step in query.steps:
                if isinstance(step, Find):
                    assert len(known[step.lookup].keys) == len(step.keys)
        for data in variant.data:
            assert data.terms
            for term in data.terms:
                assert len(term.values) == len(variant.parameters)
                assert all(len(known[join.lookup].keys) == 1 for join in term.joins)


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | sql,
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "config",
                        "edition",
                        "bucket_definitions",
                        "streams",
                        "with",
                        "parameters",
                        "data",
                        "priority",
                        "d",
                    ]
                ),
                inner,
            )
        ),
        max_leaves=12,
    )
)
def test_any_tree_is_read_or_refused(tree: object) -> None:
    parsed(json.dumps(tree))
