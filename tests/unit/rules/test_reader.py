"""What SQL means to the rules: names, conditions and their alternatives, and what they are about."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.rules.compute.expressions import plain
from replicator.rules.compute.scalars import truth
from replicator.rules.expression import (
    EDITION_2,
    BucketParameter,
    Call,
    Column,
    Found,
    Literal,
    Metadata,
    Now,
    Request,
    Scalar,
)
from replicator.rules.sql.reader import (
    MOST_TERMS,
    Dependencies,
    NotUnderstood,
    Signed,
    bool_parts,
    conjuncts,
    dependencies,
    dnf,
    read,
)
from replicator.rules.sql.sqltext import SqlError, SqlNode, parse_select, text_of
from tests.unit.rules.at_hand import Names, expression, node_of


def where(sql: str) -> SqlNode:
    node: SqlNode = parse_select(f"SELECT * FROM t WHERE {sql}")["whereClause"]
    return node


A, B = Column("a"), Column("b")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("a", A),
        ("t.a", Column("t.a")),
        ("'x'", Literal("x")),
        ("''", Literal("")),
        ("0", Literal(0)),
        ("-5", Literal(-5)),
        ("2147483648", Literal(2147483648)),
        ("-9223372036854775808", Literal(-9223372036854775808)),
        ("1.50", Literal(1.5)),
        ("NULL", Literal(None)),
        ("true", Literal(1)),
        ("false", Literal(0)),
        ("request.user_id()", Request("user_id")),
        ("auth.parameter('k')", Call("->>", (Request("jwt"), Literal("k")))),
        ("a <> b", Call("!=", (A, B))),
        ("a NOT LIKE 'x'", Call("not", (Call("like", (A, Literal("x"))),))),
        ("a NOT ILIKE 'x'", Call("not", (Call("ilike", (A, Literal("x"))),))),
        ("a NOT BETWEEN 1 AND 2", Call("not", (Call("between", (A, Literal(1), Literal(2))),))),
        ("a NOT IN (1)", Call("not", (Call("in list", (A, Literal(1))),))),
        ("a IN (1)", Call("in list", (A, Literal(1)))),
        ("a IN (b)", Call("in", (A, B))),
        ("a IN (b, b)", Call("in list", (A, B, B))),
        ("a IN (lower(b))", Call("in list", (A, Call("lower", (B,))))),
        ("a IN b", Call("in", (A, B))),
        ("a NOT IN b", Call("not", (Call("in", (A, B)),))),
        ("a IN b -> 'c'", Call("in", (A, Call("->", (B, Literal("c")))))),
        ("a IN (b) -> 'c'", Call("in", (A, Call("->", (B, Literal("c")))))),
        ("ARRAY['a', 1]", Literal('["a",1]')),
        ("a::int", Call("cast integer", (A,))),
        ("CAST(a AS real)", Call("cast real", (A,))),
        ("a::numeric", Call("cast numeric", (A,))),
        ("a IS NOT TRUE", Call("is not true", (A,))),
        ("a AND b AND a", Call("and", (A, B, A))),
        ("now() - interval '1 day'", Call("-", (Now(), Literal(86400)))),
        ("LOWER(a)", Call("lower", (A,))),
        ("iif(a, 1, 2)", Call("case", (A, Literal(1), Literal(2)))),
        ("case a when 1 then b end", Call("case", (Call("=", (A, Literal(1))), B, Literal(None)))),
        ("nullif(a, b)", Call("nullif", (A, B))),
        ("((a))", A),
    ],
)
def test_what_is_read(sql: str, expected: object) -> None:
    assert repr(expression(sql)) == repr(expected)  # 1, 1.0 and True would be equal


@pytest.mark.parametrize(
    ("sql", "marked", "said"),
    [
        ("a & 1", "&", "generated column"),
        ("1 + (a | 2)", "|", "operator |"),
        ("a << 1", "<<", "operator <<"),
        ("a >> 1", ">>", "operator >>"),
        ("a # 1", "#", "operator #"),
        ("a ^ 2", "^", "operator ^"),
        ("~ a", "~", "operator ~"),
        ("a ~* 'x'", "~*", "ILIKE"),
        ("a @> b", "@>", "value IN array"),
        ("a #>> '{b}'", "#>>", "->> '$.a.b'"),
        ("a OPERATOR(other.=) b", "OPERATOR", "operator ="),
        ("a = ANY(b)", "=", "value IN array"),
        ("a = ALL(b)", "=", "ALL"),
        ("a SIMILAR TO 'x'", "SIMILAR", "LIKE"),
        ("a LIKE 'x' ESCAPE '!'", "LIKE", "ESCAPE"),
        ("a LIKE 'x\\'", "LIKE", "escape character"),
        ("a BETWEEN SYMMETRIC 2 AND 1", "BETWEEN", "SYMMETRIC"),
        ("a IN 'no'", "'no'", "JSON array"),
        ("a IN 5", "5", "JSON array"),
        ("a IN (SELECT b FROM c)", "IN", "subquery"),
        ("a = (SELECT b FROM c)", "(SELECT", "subquery"),
        ("EXISTS (SELECT 1)", "EXISTS", "subquery"),
        ("a::jsonb", "jsonb", "leave the cast out"),
        ("a::varchar(5)", "varchar", "a cast is to"),
        ("a::int[]", "int", "a cast is to"),
        ("a::boolean", "boolean", "compare instead"),
        ("a > now() - interval '3 months'", "interval", "days"),
        ("interval '90' day", "interval", "days"),
        ("current_date", "current_date", "now()"),
        ("nowhere(a)", "nowhere", "not part of the rules language"),
        ("uper(a)", "uper", "did you mean upper?"),
        ("other.upper(a)", "other", "other.upper"),
        ("strpos(a, b)", "strpos", "instr"),
        ("upper()", "upper", "1 argument, not 0"),
        ("upper(a, b)", "upper", "1 argument, not 2"),
        ("substring(a)", "substring", "2 to 3 arguments"),
        ("now(1)", "now", "0 arguments"),
        ("concat()", "concat", "at least 1 argument,"),
        ("count(*)", "count", "count is of many rows"),
        ("max(a)", "max", "let the client compute it"),
        ("upper(DISTINCT a)", "upper", "DISTINCT"),
        ("upper(a) OVER ()", "upper", "OVER"),
        ("upper(a) FILTER (WHERE b)", "upper", "FILTER"),
        ("upper(x => a)", "x", "in their order"),
        ("json_extract(a, 'b')", "json_extract", "$"),
        ("unixepoch(a, 'utc')", "unixepoch", "subsec"),
        ("unixepoch('now')", "unixepoch", "the time is now()"),
        ("datetime('yesterday', 'subsec')", "datetime", "the time is now()"),
        ("age(a)", "age", "now() - interval"),
        ("datetime(a, '+1 day')", "datetime", "subsec"),
        ("a[1]", "a", "json -> 0"),
        ("(a).b", "a", "->>"),
        ("a COLLATE \"C\"", "COLLATE", "COLLATE"),
        ("$1", "$1", "numbered"),
        ("greatest(a, b)", "greatest", "CASE"),
        ("ROW(a, b)", "ROW", "after IN"),
        ("B'101'", "B'", "bit string"),
        ("1e999", "1e999", "number"),
        ("ARRAY[a]", "ARRAY", "constants only"),
        ("t.*", "t.*", "name a column"),
        ("overlay(a placing b from 1)", "overlay", "overlay"),
        ("a AT TIME ZONE 'UTC'", "AT", "timezone"),
    ],
)  # fmt: skip
def test_what_is_refused_is_shown_where_it_stands(sql: str, marked: str, said: str) -> None:
    before = "'é' = "  # places are counted in bytes
    for head in ("", before):
        text = f"SELECT {head}({sql})" if head else f"SELECT {sql}"
        node = parse_select(text)["targetList"][0]["ResTarget"]["val"]
        with pytest.raises(NotUnderstood) as caught:
            read(node, Names(), EDITION_2)
        assert said in caught.value.what
        at = len(text.encode()[: caught.value.location].decode())
        assert text[at:].startswith(marked), text[at:]


def test_text_that_is_a_moment_may_be_written() -> None:
    assert expression("unixepoch('2024-01-31')") == Call("unixepoch", (Literal("2024-01-31"),))
    assert expression("datetime(NULL)") == Call("datetime", (Literal(None),))


def test_an_expression_may_be_deep_but_not_too_deep() -> None:
    expression("upper(" * 59 + "a" + ")" * 59)
    with pytest.raises(NotUnderstood, match="nested deeper than 60"):
        expression("upper(" * 60 + "a" + ")" * 60)
    with pytest.raises(NotUnderstood, match="nested deeper"):
        expression("a" + " || a" * 100)


def test_an_expression_that_repeats_itself_is_refused_before_it_is_built() -> None:
    sql = "a"
    for _ in range(30):
        sql = f"CASE {sql} WHEN 1 THEN 2 WHEN 2 THEN 1 END"
    with pytest.raises(NotUnderstood, match="too large"):
        expression(sql)


def test_a_case_has_an_end() -> None:
    expression("CASE" + " WHEN a THEN 1" * 60 + " END")
    with pytest.raises(NotUnderstood, match="WHEN"):
        expression("CASE" + " WHEN a THEN 1" * 61 + " END")


# Membership without parentheses.


def test_only_the_word_in_is_taken_for_membership() -> None:
    sql = "a = 'x IN y' AND \"IN\" = 1 AND t.in = 2 /* b IN c */ AND b IN c -- d IN e\n"
    first, second, third, last = conjuncts(where(sql))
    assert read(first, Names(), EDITION_2) == Call("=", (A, Literal("x IN y")))
    assert read(second, Names(), EDITION_2) == Call("=", (Column("IN"), Literal(1)))
    assert read(third, Names(), EDITION_2) == Call("=", (Column("t.in"), Literal(2)))
    assert read(last, Names(), EDITION_2) == Call("in", (B, Column("c")))


@pytest.mark.parametrize(
    "text", ["$$ x IN y $$", "$q$ IN $$ y $q$", "E'\\' IN y'", "U&'x IN y'", "'it''s IN y'"]
)
def test_no_kind_of_string_is_looked_into(text: str) -> None:
    found = expression(f"a = {text}")
    assert isinstance(found, Call) and isinstance(found.args[1], Literal)
    assert "IN" in str(found.args[1].value)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("a /* /* x IN y */ b IN c */ IN b", Call("in", (A, B))),
        ("a NOT /* not */ IN -- in\n b", Call("not", (Call("in", (A, B)),))),
        ("a in-1 -> b", Call("in", (A, Call("->", (Literal(-1), B))))),
        ("a$in IN b", Call("in", (Column("a$in"), B))),
        ("a IN\tb", Call("in", (A, B))),
        ("a IN (b, a)", Call("in list", (A, B, A))),
        ("a IN ((b))", Call("in list", (A, B))),
        ("a IN (b) AND a", Call("and", (Call("in", (A, B)), A))),
        ("a IN (b)::text", Call("in", (A, Call("cast text", (B,))))),
        ("a IN '[1]' || b", Call("in", (A, Call("||", (Literal("[1]"), B))))),
        ("instr(a, b IN a)", Call("instr", (A, Call("in", (B, A))))),
        ("position(a IN b)", Call("instr", (B, A))),
    ],
)
def test_membership_among_everything_else(sql: str, expected: object) -> None:
    assert expression(sql) == expected


def test_places_stay_true_behind_a_membership() -> None:
    sql = "é NOT IN bucket.x AND lower(ä) IN y AND nothing(1)"
    text = f"SELECT * FROM t WHERE {sql}"
    with pytest.raises(NotUnderstood) as caught:
        read(conjuncts(where(sql))[2], Names(), EDITION_2)
    assert text.encode()[caught.value.location :].startswith(b"nothing")


def test_a_name_that_looks_like_an_operator_is_not_one() -> None:
    assert expression("a <> b") == Call("!=", (A, B))
    assert expression("(a <> b) IN c") == Call("in", (Call("!=", (A, B)), Column("c")))


def test_two_memberships_in_a_row_need_parentheses() -> None:
    with pytest.raises(SqlError) as caught:
        where("a IN b IN c")
    assert 'near "IN"' in caught.value.what
    assert caught.value.offset == len("SELECT * FROM t WHERE a IN b ")


def test_in_binds_as_in_postgres() -> None:
    assert expression("NOT a IN b || 'x'") == Call("not", (Call("in", (A, Call("||", (B, Literal("x"))))),))
    assert expression("a + 1 IN b") == Call("in", (Call("+", (A, Literal(1))), B))


@pytest.mark.parametrize("sql", ["SELECT a; SELECT b", "SELECT a;;SELECT b IN c"])
def test_a_second_statement_is_refused(sql: str) -> None:
    with pytest.raises(SqlError) as caught:
        parse_select(sql)
    assert sql[caught.value.offset :].lstrip(";").startswith("SELECT b")


@settings(deadline=None, max_examples=500)
@given(st.text(alphabet="aIN nin()'\"$-*/<>=\\EéÄ,.1;\n", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    sql = f"SELECT {text}"
    try:
        targets = parse_select(sql).get("targetList", [])
    except SqlError as error:
        assert 0 <= error.offset <= len(sql)
        return
    for target in targets:
        try:
            read(target["ResTarget"]["val"], Names(), EDITION_2)
        except NotUnderstood as error:
            assert error.location <= len(sql.encode())
        assert text_of(sql, target)


# Alternatives.


def terms(sql: str) -> list[list[str]]:
    text = f"SELECT * FROM t WHERE {sql}"
    node = parse_select(text)["whereClause"]
    return [[("not " if s.is_negated else "") + text_of(text, s.node) for s in term] for term in dnf(node)]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("a", [["a"]]),
        ("a AND b", [["a", "b"]]),
        ("a OR b AND c", [["a"], ["b", "c"]]),
        ("(a OR b) AND (c OR d)", [["a", "c"], ["a", "d"], ["b", "c"], ["b", "d"]]),
        ("NOT (a AND b)", [["not a"], ["not b"]]),
        ("NOT (a OR NOT b)", [["not a", "b"]]),
        ("NOT NOT a", [["a"]]),
    ],
)
def test_a_condition_is_taken_apart_into_alternatives(sql: str, expected: list[list[str]]) -> None:
    assert terms(sql) == expected


def test_no_condition_is_one_alternative_that_demands_nothing() -> None:
    assert dnf(None) == [[]]
    assert conjuncts(None) == []


def test_a_demand_is_kept_once() -> None:
    node = node_of("a")
    both = {"BoolExpr": {"boolop": "AND_EXPR", "args": [node, node]}}
    assert dnf(both) == [[Signed(node, False)]]


def test_too_many_alternatives_are_refused_before_they_are_made() -> None:
    sql = " AND ".join(f"(a{i} OR b{i})" for i in range(40))
    with pytest.raises(NotUnderstood, match=str(MOST_TERMS)):
        terms(sql)
    assert len(terms(" AND ".join(f"(a{i} OR b{i})" for i in range(6)))) == 64


def test_conditions_have_a_depth_as_well() -> None:
    with pytest.raises(NotUnderstood, match="nested deeper"):
        terms("NOT (a AND " * 61 + "b" + ")" * 61)


conditions = st.recursive(
    st.sampled_from("abcd"),
    lambda part: (
        st.builds("NOT ({})".format, part)
        | st.builds("({} AND {})".format, part, part)
        | st.builds("({} OR {})".format, part, part)
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=300)
@given(conditions, st.fixed_dictionaries({name: st.sampled_from([None, 0, 1, "x"]) for name in "abcd"}))
def test_the_alternatives_mean_what_the_condition_means(sql: str, row: dict[str, Scalar]) -> None:
    def holds(node: SqlNode) -> bool:
        expr = read(node, Names(), EDITION_2)
        return truth(plain(expr, lambda leaf: row[leaf.name if isinstance(leaf, Column) else ""], EDITION_2))

    node = where(sql)
    alternatives = dnf(node)
    assert any(all(holds(s.node) is not s.is_negated for s in term) for term in alternatives) == holds(node)
    assert all(holds(part) for part in conjuncts(node)) == holds(node)
    assert all(bool_parts(s.node) is None for term in alternatives for s in term)


# What they are about, and how they look.


def test_what_an_expression_is_about() -> None:
    parts = (
        Column("a", 1),
        Metadata("schema", 2),
        Request("jwt"),
        BucketParameter(4),
        Found(5, 0),
        Now(),
        Literal(1),
    )
    found = dependencies(Call("concat", (Call("concat", parts), Request("user_id"))))
    assert found == Dependencies(
        frozenset({1, 2}), frozenset({"jwt", "user_id"}), frozenset({4}), frozenset({5}), True
    )
    assert not (found.is_row or found.is_request or found.is_constant)
    assert dependencies(Call("upper", (A,))).is_row
    assert dependencies(Call("=", (Request("jwt"), Literal(1)))).is_request
    assert dependencies(Call("+", (Literal(1), Literal(2)))).is_constant
    assert not dependencies(Call("=", (A, Now()))).is_row


@pytest.mark.parametrize(
    "sql",
    [
        "a = 1",
        "(a + 1) * 2 = b",
        "a IN (1, 2)",
        "a IN bucket.x",
        "a NOT IN b",
        "a IN (SELECT b FROM c WHERE d = auth.user_id())",
        "lower(a) = request.user_id()",
        "a IS NOT NULL",
        "CASE WHEN a THEN b ELSE c END",
        "a::text = 'it''s é'",
        "a -> 'x' ->> 'y' = \"Odd Name\"",
        "NOT (a OR b)",
        "a BETWEEN 1 AND 2",
        "a > now() - interval '90 days'",
    ],
)
def test_a_condition_is_shown_as_it_was_written(sql: str) -> None:
    for text in (f"SELECT * FROM t WHERE {sql}", f"SELECT * FROM t WHERE x AND {sql} AND y"):
        node = parse_select(text)["whereClause"]
        shown = text_of(text, conjuncts(node)[1] if "x AND" in text else node)
        assert shown == sql


def test_what_is_shown_stands_on_one_line() -> None:
    text = "SELECT * FROM t WHERE a =\n   1"
    assert text_of(text, parse_select(text)["whereClause"]) == "a = 1"
    assert text_of(text, {}) == "SELECT * FROM t WHERE a = 1"
