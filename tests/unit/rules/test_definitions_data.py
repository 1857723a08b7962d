"""Data queries of bucket definitions: what each comes to, and what is refused where."""

from __future__ import annotations

import pytest

from replicator.rules.expression import Call, Column, Literal, Metadata
from replicator.rules.model import Each, Output, Star, TableName, Term
from tests.unit.rules.plans import (
    DAY,
    call,
    data,
    moment,
    only,
    read,
    refused,
    since,
    terms,
    until,
    variant,
    warned,
)

A, B, C = Column("a"), Column("b"), Column("c")
ALL = Star(skips_underscored=True)

#: WHERE → the terms of a query in a bucket with the parameters x and y.
PLACED: dict[str, tuple[Term, ...]] = {
    "a = bucket.x AND b = bucket.y": (Term((), (A, B)),),
    "bucket.y = b AND bucket.x = t.a": (Term((), (A, B)),),
    "bucket.x IN a AND b = bucket.y": (Term((), (Each(A), B)),),
    "lower(a) = bucket.x AND b ->> 'k' = bucket.y": (Term((), (call("lower", A), call("->>", B, "k"))),),
    "'all' = bucket.x AND b = bucket.y": (Term((), (Literal("all"), B)),),
    "a = bucket.x AND b = bucket.y AND c = 1": (Term(only(call("=", C, 1), "c = 1"), (A, B)),),
    "a = bucket.x AND b = bucket.x AND c = bucket.y": (Term((), (A, C), same=((0, B),)),),
    "a = bucket.x AND bucket.x IN b AND c = bucket.y": (Term((), (A, C), same=((0, Each(B)),)),),
    "bucket.x IN b AND a = bucket.x AND c = bucket.y": (Term((), (A, C), same=((0, Each(B)),)),),
    "a = bucket.x AND a = bucket.x AND b = bucket.y": (Term((), (A, B)),),
    "a = bucket.x AND a = bucket.y": (Term((), (A, A)),),
    "(a = bucket.x OR b = bucket.x) AND c = bucket.y": (Term((), (A, C)), Term((), (B, C))),
    "a = bucket.x AND b = bucket.y OR b = bucket.x AND a = bucket.y": (Term((), (A, B)), Term((), (B, A))),
    "bucket.x IN (a, b) AND c = bucket.y": (Term((), (A, C)), Term((), (B, C))),
    "a IN (bucket.x) AND c = bucket.y": (Term((), (A, C)),),
    "a = bucket.x AND c = bucket.y AND (b = 1 OR b = 2)": (
        Term(only(call("or", call("=", B, 1), call("=", B, 2)), "b = 1 OR b = 2"), (A, C)),
    ),
    "a = bucket.x AND c = bucket.y AND b IN ('u', 'v')": (
        Term(only(call("in list", B, "u", "v"), "b IN ('u', 'v')"), (A, C)),
    ),
    "a = bucket.x AND c = bucket.y AND b NOT IN ('u', 'v')": (
        Term(only(call("not", call("in list", B, "u", "v")), "b NOT IN ('u', 'v')"), (A, C)),
    ),
}


@pytest.mark.parametrize("where", PLACED)
def test_every_placement_of_bucket_parameters(where: str) -> None:
    assert terms(where, "x", "y") == PLACED[where]


def test_alternatives_have_filters_of_their_own() -> None:
    assert terms("kind = 'own' AND a = bucket.x OR kind = 'shared' AND bucket.x IN b", "x") == (
        Term(only(call("=", Column("kind"), "own"), "kind = 'own'"), (A,)),
        Term(only(call("=", Column("kind"), "shared"), "kind = 'shared'"), (Each(B),)),
    )


def test_a_parameter_cast_to_text_is_compared_as_text_in_every_query_of_its_definition() -> None:
    rules = read(
        "SELECT request.user_id() AS x, 1 AS y",
        "SELECT * FROM t WHERE a = bucket.x AND b = bucket.y",
        "SELECT * FROM u WHERE a = bucket.x::text AND b = bucket.y",
        "SELECT * FROM v WHERE CAST(bucket.x AS text) = a::text AND b = bucket.y",
    )
    assert variant(rules).as_text == (True, False)
    assert [query.terms for query in variant(rules).data] == [
        (Term((), (A, B)),),
        (Term((), (A, B)),),
        (Term((), (call("cast text", A), B)),),
    ]


TABLES = {
    "SELECT * FROM t": (TableName(None, "t"), "t"),
    "SELECT * FROM t AS u": (TableName(None, "t"), "u"),
    "SELECT u.* FROM t u": (TableName(None, "t"), "u"),
    'SELECT * FROM other.t AS "U"': (TableName("other", "t"), "U"),
    "SELECT t.* FROM Other.T": (TableName("other", "t"), "t"),
    'SELECT * FROM "t_%"': (TableName(None, "t_%"), None),
    'SELECT * FROM "t_%" AS u': (TableName(None, "t_%"), "u"),
    'SELECT * FROM "%".t': (TableName("%", "t"), None),
}


@pytest.mark.parametrize("sql", TABLES)
def test_the_alias_is_what_clients_call_the_table(sql: str) -> None:
    query = data(sql)
    assert (query.table, query.output) == TABLES[sql]
    assert (query.columns, query.terms, query.at, query.text) == ((ALL,), (Term((), ()),), 0, sql)


@pytest.mark.parametrize(
    ("select", "is_told"),
    [
        ("SELECT u.* FROM t u", True),
        ("SELECT u.id, a FROM other.t u", True),
        ("SELECT * FROM t AS u WHERE u.a = 1", True),
        ("SELECT * FROM t AS u WHERE t.a = 1", False),
        ("SELECT * FROM t AS u", False),
        ("SELECT * FROM t AS u WHERE b = 'u.a'", False),
        ('SELECT u.* FROM t AS "u"', False),
        ('SELECT u.* FROM other.t "u" WHERE u.a = 1', False),
    ],
)
def test_an_alias_for_short_is_told_to_be_the_name_that_clients_see(select: str, is_told: bool) -> None:
    told = [one.partition(": d.data[0]: ")[2] for one in warned(None, select)]
    short = (
        'clients will see these rows in a table called u; write t without AS if that is not meant, or AS "u"'
    )
    assert told == ([f"{short} if it is"] if is_told else [])


COLUMNS = {
    "SELECT id, a AS b FROM t": (Output("id", Column("id")), Output("b", A)),
    "SELECT t.id, u.a FROM t AS u": (Output("id", Column("id")), Output("a", A)),
    "SELECT *, upper(a) AS a, 1 AS one FROM t": (
        ALL,
        Output("a", call("upper", A)),
        Output("one", Literal(1)),
    ),
    "SELECT key AS id, * FROM t": (Output("id", Column("key")), ALL),
    'SELECT id, _table_suffix AS org, "_rev" FROM "t_%"': (
        Output("id", Column("id")),
        Output("org", Metadata("table_suffix")),
        Output("_rev", Column("_rev")),
    ),
    "SELECT id, _table_suffix FROM t": (
        Output("id", Column("id")),
        Output("_table_suffix", Column("_table_suffix")),
    ),
}


@pytest.mark.parametrize("sql", COLUMNS)
def test_what_is_selected(sql: str) -> None:
    assert data(sql).columns == COLUMNS[sql]


def test_rows_of_a_wildcard_can_go_by_what_it_stands_for() -> None:
    rules = read("SELECT request.user_id() AS x", 'SELECT * FROM "t_%" WHERE _table_suffix = bucket.x')
    assert variant(rules).data[0].terms == (Term((), (Metadata("table_suffix"),)),)


#: A condition with now() → the windows it comes to.
WINDOWS: dict[str, list[tuple[str, float]]] = {
    "at > now() - interval '90 days'": [("until", 90 * DAY)],
    "at >= now() - interval '90 days'": [("until", 90 * DAY)],
    "now() - interval '90 days' < at": [("until", 90 * DAY)],
    "now() < at + interval '1 day'": [("until", DAY)],
    "at + interval '1 day' >= current_timestamp": [("until", DAY)],
    "interval '1 day' + at > now()": [("until", DAY)],
    "at > now()": [("until", 0)],
    "at > now() + interval '2 weeks'": [("until", -14 * DAY)],
    "at - interval '1 hour' > now() - interval '1 day'": [("until", DAY - 3600)],
    "at < now()": [("since", 0)],
    "at <= now() - '1 day'::interval": [("since", DAY)],
    "now() >= at - interval '15 minutes'": [("since", -900)],
    "at BETWEEN now() - interval '7 days' AND now() + interval '1 day'": [
        ("until", 7 * DAY),
        ("since", -DAY),
    ],
    "at > now() - interval '1 day 12:30:00.5'": [("until", DAY + 12.5 * 3600 + 0.5)],
    "at > now() - interval '-1 day +2 hours'": [("until", -DAY + 7200)],
    "at > now() - interval '1d 1h 1m 1s'": [("until", DAY + 3600 + 60 + 1)],
}


@pytest.mark.parametrize("where", WINDOWS)
def test_a_comparison_with_now_is_a_window(where: str) -> None:
    (term,) = terms(f"a = bucket.x AND {where}", "x")
    made = {"until": until, "since": since}
    assert term.windows == tuple(made[kind]("at", seconds, where) for kind, seconds in WINDOWS[where])
    assert (term.filters, term.values) == ((), (A,))


def test_a_window_with_one_fixed_end_keeps_it_as_a_filter() -> None:
    text = "at BETWEEN '2020-01-01' AND now()"
    (term,) = terms(f"a = bucket.x AND {text}", "x")
    assert term.filters == only(call(">=", Column("at"), "2020-01-01"), text)
    assert term.windows == (since("at", 0, text),)


def test_now_between_two_columns() -> None:
    text = "now() BETWEEN starts AND ends"
    (term,) = terms(f"a = bucket.x AND {text}", "x")
    assert term.windows == (since("starts", 0, text), until("ends", 0, text))


def test_a_window_may_be_one_of_several_ways() -> None:
    text = "at > now() - interval '1 day'"
    assert terms(f"a = bucket.x AND (open OR {text})", "x") == (
        Term(only(Column("open"), "open"), (A,)),
        Term((), (A,), windows=(until("at", DAY, text),)),
    )


def test_a_moment_may_be_computed() -> None:
    (term,) = terms("a = bucket.x AND b ->> 'at' > now()", "x")
    assert term.windows[0].moment == Call("unixepoch", (call("->>", B, "at"), Literal("subsec")))
    assert moment("at") == Call("unixepoch", (Column("at"), Literal("subsec")))


FORMS = "a bucket parameter stands in `bucket.x = column` or `bucket.x IN array column`"
NOW = "now() is understood as in `recorded_at > now() - interval '90 days'`"
COVER = "every bucket parameter must be used in every alternative: bucket.x is not"
ASKS = "a data query does not know who asks: select {} AS x in `parameters`, and write bucket.x"
ONE_TABLE = "one table is expected after FROM; write one query for each table"
JOINED = "one table is expected after FROM; for a join, write column IN (SELECT column FROM other WHERE …)"
INTERVAL = "an interval is a number and a unit: interval '90 days', '12 hours'"
STEADY = "months and years have no fixed length: write days, as in interval '90 days'"

#: SQL → the column of the file where each problem is, and what it is. The SQL begins at column 9.
REFUSED: dict[str, list[tuple[int, str]]] = {
    "SELECT * FROM t": [(9, COVER)],
    "SELECT * FROM t WHERE a = 1": [(31, COVER)],
    "SELECT * FROM t WHERE a = bucket.x OR b = 1": [(31, COVER)],
    "SELECT * FROM t WHERE a = bucket.y": [(35, "there is no bucket.y; what can stand here: x")],
    "SELECT * FROM t WHERE a > bucket.x": [(31, FORMS)],
    "SELECT * FROM t WHERE a != bucket.x": [(31, FORMS)],
    "SELECT * FROM t WHERE upper(bucket.x) = a": [(31, FORMS)],
    "SELECT * FROM t WHERE a IN bucket.x": [(31, f"{FORMS}, not on the right of IN")],
    "SELECT * FROM t WHERE bucket.x = bucket.x": [(31, FORMS)],
    "SELECT * FROM t WHERE a = b": [(31, COVER)],
    "SELECT * FROM t WHERE bucket.x": [(31, FORMS)],
    "SELECT * FROM t WHERE NOT a = bucket.x": [(31, "NOT is for conditions about the row only")],
    "SELECT * FROM t WHERE a = bucket.x::integer": [
        (31, "of casts, a bucket parameter can have ::text only")
    ],
    "SELECT *, bucket.x AS b FROM t WHERE a = bucket.x": [
        (19, "a bucket parameter cannot be selected: rows are the same in each bucket that holds them")
    ],
    "SELECT *, now() AS b FROM t WHERE a = bucket.x": [
        (19, "now() cannot be selected: a row is sent when it changes")
    ],
    "SELECT * FROM t WHERE a = bucket.x AND b = request.user_id()": [(52, ASKS.format("request.user_id()"))],
    "SELECT * FROM t WHERE a = bucket.x AND b = token_parameters.c": [
        (52, ASKS.format("token_parameters.c"))
    ],
    "SELECT * FROM t WHERE a = bucket.x AND b = auth.user_id()": [(52, ASKS.format("auth.user_id()"))],
    "SELECT a, b FROM t WHERE a = bucket.x": [
        (16, "clients know rows by their id: select a column named id, or `… AS id`")
    ],
    "SELECT id, upper(a), b, c AS b FROM t WHERE a = bucket.x": [
        (20, "a name is missing: `… AS name`"),
        (33, "b is selected twice"),
    ],
    "SELECT u.* FROM t WHERE a = bucket.x": [(16, "there is no table u here")],
    "SELECT * FROM t WHERE u.a = bucket.x": [(31, "u.a is no column of t; what can stand here: t")],
    "SELECT * FROM t, u WHERE a = bucket.x": [(23, ONE_TABLE)],
    "SELECT *": [(9, ONE_TABLE)],
    "SELECT * FROM t JOIN u ON a = bucket.x": [(23, JOINED)],
    "SELECT * FROM t WHERE a = bucket.x ORDER BY b": [
        (53, "ORDER BY is not part of the rules language; order rows on the client")
    ],
    "SELECT * FROM t WHERE a = bucket.x GROUP BY b": [
        (53, "GROUP BY is not part of the rules language; rows are sent as they are")
    ],
    "SELECT * FROM ONLY t WHERE a = bucket.x": [
        (28, "only `table`, `schema.table` and `table AS name` can stand here")
    ],
    "SELECT * FROM t AS u (id) WHERE a = bucket.x": [
        (23, "only `table`, `schema.table` and `table AS name` can stand here")
    ],
    "DELETE FROM t": [(9, "expected a SELECT")],
    "SELECT * FROM t WHERE a = bucket.x; SELECT 1": [(45, "expected exactly one SELECT")],
    "SELECT * FROM t WHERE a = bucket.x AND b = now()": [(48, NOW)],
    "SELECT * FROM t WHERE a = bucket.x AND NOT b > now()": [
        (48, "NOT is for conditions about the row only")
    ],
    "SELECT * FROM t WHERE a = bucket.x AND unixepoch(now()) > 5": [(48, NOW)],
    "SELECT * FROM t WHERE a = bucket.x AND now() > now() - interval '1 day'": [(48, NOW)],
    "SELECT * FROM t WHERE a = bucket.x AND b > now() - interval '1 month'": [(60, STEADY)],
    "SELECT * FROM t WHERE a = bucket.x AND b > now() - interval '2 years'": [(60, STEADY)],
    "SELECT * FROM t WHERE a = bucket.x AND b > now() - interval 'P1D'": [(60, INTERVAL)],
    "SELECT * FROM t WHERE a = bucket.x AND b > now() - interval ''": [(60, INTERVAL)],
    "SELECT * FROM t WHERE a = bucket.x AND b > now() - interval '1' DAY": [
        (60, "an interval is written as text: interval '90 days'")
    ],
    "SELECT * FROM t WHERE a = bucket.x AND b > now() - interval '99999999 days'": [
        (52, "an interval of more than a hundred years")
    ],
    "SELECT * FROM t WHERE bucket.x > now()": [(31, NOW)],
}


@pytest.mark.parametrize("sql", REFUSED)
def test_refused_where_it_stands(sql: str) -> None:
    found = refused("SELECT request.user_id() AS x", sql)
    assert found == [f"6:{column}: d.data[0]: {what}" for column, what in REFUSED[sql]]


def test_two_arrays_of_parameters_are_refused() -> None:
    sql = "SELECT request.user_id() AS x, 1 AS y"
    assert refused(sql, "SELECT * FROM t WHERE bucket.x IN a AND bucket.y IN b") == [
        "6:31: d.data[0]: only one parameter can be IN an array column"
    ]


def test_a_parameter_of_a_definition_without_any() -> None:
    assert refused(None, "SELECT * FROM t WHERE a = bucket.x") == [
        "4:35: d.data[0]: this definition has no `parameters`, so there is no bucket.x"
    ]


def test_more_alternatives_than_anybody_writes_are_refused() -> None:
    sides = " AND ".join(f"(a{i} = bucket.x OR b{i} = bucket.x)" for i in range(7))
    (found,) = refused("SELECT request.user_id() AS x", f"SELECT * FROM t WHERE {sides}")
    assert found.endswith("d.data[0]: this comes to more than 100 alternatives")


def test_data_is_read_even_if_the_parameters_are_refused() -> None:
    assert refused("SELECT a AS x", "SELECT * FROM t WHERE b = bucket.x", "SELECT b FROM t") == [
        "4:16: d.parameters[0]: a is a column, and there is no table: it needs FROM, or quotes",
        "7:16: d.data[1]: clients know rows by their id: select a column named id, or `… AS id`",
    ]


CATALOGUE = {
    ("public", "t"): {"id": 2950, "owner_id": 23, "name": 25, "at": 1184, "seconds": 20, "org": 20000},
    ("public", "u"): {"key": 25},
}
USER_IS = "SELECT request.user_id() AS x"
NEVER = "these are never equal"

#: Parameters and a data query → what is said of it when the tables are known.
WARNED: dict[tuple[str, str], list[str]] = {
    (USER_IS, "SELECT * FROM t WHERE id = bucket.x"): [],
    (USER_IS, "SELECT * FROM t WHERE org = bucket.x"): [],
    (USER_IS, "SELECT * FROM tt WHERE id = bucket.x"): [
        "6:23: d.data[0]: the source has no table tt, did you mean t?"
    ],
    (USER_IS, "SELECT * FROM t WHERE owner = bucket.x"): [
        "6:31: d.data[0]: t has no column owner, did you mean owner_id?"
    ],
    (USER_IS, "SELECT * FROM t WHERE owner_id = bucket.x"): [
        f"6:31: d.data[0]: owner_id is integer and bucket.x is text: {NEVER}; compare owner_id::text"
    ],
    (USER_IS, "SELECT * FROM t WHERE owner_id::text = bucket.x"): [],
    (USER_IS, "SELECT * FROM t WHERE owner_id = bucket.x::text"): [],
    ("SELECT request.jwt() ->> 'x' AS x", "SELECT * FROM t WHERE owner_id = bucket.x"): [],
    (
        "SELECT owner_id AS x FROM t WHERE name = request.user_id()",
        "SELECT * FROM t WHERE owner_id = bucket.x",
    ): [],
    ("SELECT id AS x FROM t WHERE owner_id = request.user_id()", "SELECT * FROM t WHERE id = bucket.x"): [
        f"4:37: d.parameters[0]: owner_id is integer and request.user_id() is text: {NEVER}; "
        "compare owner_id::text"
    ],
    (USER_IS, "SELECT * FROM t WHERE id = bucket.x AND owner_id = '1'"): [
        f"6:49: d.data[0]: owner_id is integer and the text is text: {NEVER}; compare with a number"
    ],
    (USER_IS, "SELECT * FROM u WHERE key = bucket.x"): [
        "6:23: d.data[0]: u has no column id, by which clients know rows: add `… AS id`"
    ],
    (USER_IS, "SELECT *, key AS id FROM u WHERE key = bucket.x"): [],
    (USER_IS, "SELECT * FROM t WHERE id = bucket.x AND at > now()"): [],
    (USER_IS, "SELECT * FROM t WHERE id = bucket.x AND seconds > now()"): [
        "6:49: d.data[0]: seconds is no timestamp: this never holds as it is meant"
    ],
    (USER_IS, "SELECT * FROM t WHERE id IN (SELECT owner_id FROM t WHERE id = bucket.x)"): [
        "6:45: d.data[0]: id is never equal to owner_id: write ::text after both"
    ],
    (USER_IS, "SELECT * FROM t WHERE id = bucket.x AND NOT name = 'a'"): [
        "6:49: d.data[0]: this also holds where name is NULL; if that is not meant, add `AND … IS NOT NULL`"
    ],
    (USER_IS, "SELECT * FROM t WHERE id = bucket.x AND (name IS NOT NULL AND NOT name = 'a')"): [],
}


@pytest.mark.parametrize(("parameters", "sql"), WARNED)
def test_what_can_be_seen_to_fail_is_warned_of(parameters: str, sql: str) -> None:
    assert warned(parameters, sql, tables=CATALOGUE) == WARNED[parameters, sql]


def test_without_a_catalogue_nothing_is_said_of_tables() -> None:
    assert warned(USER_IS, "SELECT * FROM nowhere WHERE nothing = bucket.x") == []


def test_columns_of_a_wildcard_are_those_of_all_its_tables() -> None:
    tables = {("public", "t_1"): {"id": 25}, ("public", "t_2"): {"id": 25, "b": 25}}
    assert warned(None, 'SELECT * FROM "t_%" WHERE b = 1 AND c = 1', tables=tables) == [
        "4:35: d.data[0]: b is text and the number is integer: these are never equal; "
        "compare with text, or write CAST(b AS numeric)",
        "4:45: d.data[0]: t_% has no column c; what can stand here: b, id",
    ]
