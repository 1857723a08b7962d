"""`IN (SELECT … UNION …)` in data queries: lookups that lead from a row's key to the buckets' values."""

from __future__ import annotations

import pytest

from replicator.rules.expression import Column
from replicator.rules.model import Brought, Each, Join, Lookup, TableName, Term
from tests.unit.rules.plans import DAY, call, only, read, refused, until, variant

A, B, C, E, F, G = (Column(name) for name in "abcefg")
TWO = "SELECT request.user_id() AS x, request.jwt() ->> 'org' AS y"


def joined(where: str) -> tuple[tuple[Term, ...], tuple[Lookup, ...]]:
    """The terms and lookups of `SELECT * FROM t WHERE …` in a bucket with the parameters x and y."""
    rules = read(TWO, f"SELECT * FROM t WHERE {where}")
    return variant(rules).data[0].terms, rules.lookups


def test_a_subquery_leads_from_the_key_to_the_value() -> None:
    text = "a IN (SELECT e FROM u WHERE f = bucket.x)"
    (term,), (lookup,) = joined(f"{text} AND b = bucket.y")
    assert lookup == Lookup(lookup.id, TableName(None, "u"), (), (E,), (F,))
    assert term == Term((), (Brought(0, 0), B), (Join(lookup.id, A, text),))


def test_several_parameters_of_one_subquery_are_brought_together() -> None:
    text = "a::text IN (SELECT e::text FROM other.u WHERE bucket.y = f AND u.g = bucket.x AND f > 1)"
    (term,), (lookup,) = joined(text)
    filters = only(call(">", F, 1), "f > 1")
    assert lookup == Lookup(lookup.id, TableName("other", "u"), filters, (call("cast text", E),), (F, G))
    assert term == Term((), (Brought(0, 1), Brought(0, 0)), (Join(lookup.id, call("cast text", A), text),))


def test_a_union_is_a_term_for_each_member() -> None:
    text = (
        "a IN (SELECT e FROM u WHERE f = bucket.x UNION SELECT e FROM v WHERE g = bucket.x "
        "UNION ALL SELECT b FROM w WHERE c = bucket.x)"
    )
    terms, lookups = joined(f"{text} AND b = bucket.y")
    assert [(str(lookup.table), lookup.keys, lookup.values) for lookup in lookups] == [
        ("u", (E,), (F,)),
        ("v", (E,), (G,)),
        ("w", (B,), (C,)),
    ]
    assert terms == tuple(Term((), (Brought(0, 0), B), (Join(lookup.id, A, text),)) for lookup in lookups)


def test_or_within_a_subquery_is_a_lookup_for_each_side() -> None:
    terms, lookups = joined("a IN (SELECT e FROM u WHERE f = bucket.x OR g = bucket.x) AND b = bucket.y")
    assert [lookup.values for lookup in lookups] == [(F,), (G,)]
    assert [term.joins[0].lookup for term in terms] == [lookup.id for lookup in lookups]


def test_two_subqueries_bring_a_value_each() -> None:
    (term,), lookups = joined(
        "a IN (SELECT e FROM u WHERE f = bucket.x) AND b IN (SELECT e FROM v WHERE f = bucket.y)"
    )
    assert term.values == (Brought(0, 0), Brought(1, 0))
    assert [join.lookup for join in term.joins] == [lookup.id for lookup in lookups]


def test_what_two_subqueries_bring_for_one_parameter_must_be_the_same() -> None:
    (term,), _ = joined(
        "a IN (SELECT e FROM u WHERE f = bucket.x) "
        "AND b IN (SELECT e FROM v WHERE f = bucket.x AND g = bucket.y)"
    )
    assert term.values == (Brought(0, 0), Brought(1, 1))
    assert term.same == ((0, Brought(1, 0)),)


def test_what_the_row_says_itself_comes_first() -> None:
    (term,), _ = joined("a IN (SELECT e FROM u WHERE f = bucket.x) AND b = bucket.x AND c = bucket.y")
    assert term.values == (B, C)
    assert term.same == ((0, Brought(0, 0)),)


def test_what_a_subquery_brings_comes_before_the_members_of_an_array() -> None:
    (term,), _ = joined("bucket.x IN b AND a IN (SELECT e FROM u WHERE f = bucket.x) AND c = bucket.y")
    assert term.values == (Brought(0, 0), C)
    assert term.same == ((0, Each(B)),)


def test_one_parameter_twice_in_a_subquery_must_be_the_same() -> None:
    (term,), (lookup,) = joined("a IN (SELECT e FROM u WHERE f = bucket.x AND g = bucket.x) AND b = bucket.y")
    assert lookup.values == (F, G)
    assert (term.values, term.same) == ((Brought(0, 0), B), ((0, Brought(0, 1)),))


def test_two_parameters_of_one_column_are_one_value() -> None:
    (term,), (lookup,) = joined("a IN (SELECT e FROM u WHERE f = bucket.x AND f = bucket.y)")
    assert lookup.values == (F,)
    assert term.values == (Brought(0, 0), Brought(0, 0))


def test_a_subquery_without_parameters_asks_whether_there_is_a_row() -> None:
    text = "a IN (SELECT e FROM u WHERE f = 1)"
    (term,), (lookup,) = joined(f"b = bucket.x AND c = bucket.y AND {text}")
    assert (lookup.keys, lookup.values) == ((E,), ())
    assert term == Term((), (B, C), (Join(lookup.id, A, text),))


def test_a_subquery_within_an_alternative() -> None:
    terms, (lookup,) = joined(
        "b = bucket.y AND (a = bucket.x OR c = 1 AND a IN (SELECT e FROM u WHERE f = bucket.x))"
    )
    assert [(term.filters, term.values) for term in terms] == [
        ((), (A, B)),
        (only(call("=", C, 1), "c = 1"), (Brought(0, 0), B)),
    ]
    assert [len(term.joins) for term in terms] == [0, 1] and terms[1].joins[0].lookup == lookup.id


def test_a_window_within_a_subquery() -> None:
    text = "at > now() - interval '1 day'"
    _, (lookup,) = joined(f"a IN (SELECT e FROM u WHERE f = bucket.x AND {text}) AND b = bucket.y")
    assert lookup.windows == (until("at", DAY, text),)


def test_a_cast_within_a_subquery_is_about_the_parameter_everywhere() -> None:
    sql = "SELECT * FROM t WHERE a IN (SELECT e FROM u WHERE f = bucket.x::text)"
    assert variant(read("SELECT request.user_id() AS x", sql)).as_text == (True,)


FORM = "only `value IN (SELECT column FROM table WHERE …)` is understood of subqueries"

#: WHERE → the column of the file where the problem is, and what it is. It begins at column 31.
REFUSED = {
    "a NOT IN (SELECT e FROM u WHERE f = bucket.x)": (
        31,
        "a subquery cannot be negated: it would take in whatever is not found",
    ),
    "EXISTS (SELECT 1 FROM u WHERE f = bucket.x)": (31, FORM),
    "a = (SELECT e FROM u WHERE f = bucket.x)": (31, FORM),
    "a > ANY (SELECT e FROM u WHERE f = bucket.x)": (33, FORM),
    "a = ALL (SELECT e FROM u WHERE f = bucket.x)": (33, FORM),
    "(a, b) IN (SELECT e, f FROM u WHERE f = bucket.x)": (
        31,
        "one value is expected before IN; use one IN for each column",
    ),
    "bucket.x IN (SELECT e FROM u)": (
        31,
        "what stands before IN is of the row; conditions on a parameter belong in `parameters`",
    ),
    "a IN (SELECT * FROM u WHERE f = bucket.x)": (
        44,
        "exactly one column is expected between SELECT and FROM here",
    ),
    "a IN (SELECT e FROM u, v WHERE f = bucket.x)": (44, "exactly one table is expected after FROM here"),
    "a IN (SELECT e FROM u WHERE f = bucket.x LIMIT 1)": (
        78,
        "LIMIT is not part of the rules language; a condition must say which rows belong",
    ),
    "a IN (SELECT e FROM u WHERE f = bucket.x INTERSECT SELECT e FROM v)": (
        44,
        "of SELECTs, only UNION makes one: use one IN for each",
    ),
    "a IN (SELECT e FROM u WHERE f = t.b AND g = bucket.x)": (
        63,
        "t.b is no column of u; what can stand here: u",
    ),
    "a IN (SELECT e FROM u WHERE f IN (SELECT g FROM v WHERE c = bucket.x))": (
        44,
        "a subquery within a subquery is not understood; select it in `parameters`",
    ),
    "a IN (SELECT e FROM u WHERE bucket.x IN f)": (
        44,
        "in a subquery, a parameter stands in `column = bucket.x`",
    ),
    "a IN (SELECT bucket.x FROM u WHERE f = bucket.x)": (44, "what a subquery selects is of its own table"),
    "a IN (SELECT 1 FROM u WHERE f = bucket.x)": (44, "what a subquery selects is of its own table"),
    "a IN (SELECT e FROM u WHERE f = request.user_id())": (
        63,
        "a data query does not know who asks: select request.user_id() AS x in `parameters`, "
        "and write bucket.x",
    ),
    "a IN (SELECT e FROM u WHERE f = 1)": (
        31,
        "every bucket parameter must be used in every alternative: bucket.x is not",
    ),
    "a IN (SELECT e FROM u WHERE f = bucket.x UNION SELECT e FROM v)": (
        31,
        "every bucket parameter must be used in every alternative: bucket.x is not",
    ),
    "a IN (VALUES (1), (2))": (45, "VALUES is not part of the rules language; write a list: x IN (1, 2)"),
}


@pytest.mark.parametrize("where", REFUSED)
def test_refused_where_it_stands(where: str) -> None:
    column, what = REFUSED[where]
    found = refused("SELECT request.user_id() AS x", f"SELECT * FROM t WHERE {where}")
    assert found == [f"6:{column}: d.data[0]: {what}"]
