"""Parameter queries of bucket definitions: what each form comes to, and what is refused where."""

from __future__ import annotations

import pytest

from replicator.rules.expression import Column, Expression, Found, Literal, Request
from replicator.rules.model import (
    Each,
    Find,
    ForEach,
    Key,
    Lookup,
    ParameterQuery,
    Predicate,
    Step,
    TableName,
    When,
)
from tests.unit.rules.plans import (
    DAY,
    USER,
    array,
    call,
    client,
    jwt,
    only,
    queried,
    read,
    refused,
    until,
    variant,
    warned,
)

LISTS = TableName(None, "lists")


def when(test: Expression, text: str) -> When:
    return When(Predicate(test, text))


STATIC: dict[str, tuple[tuple[Step, ...], tuple[Expression, ...]]] = {
    "SELECT request.user_id() AS x": ((), (USER,)),
    "SELECT token_parameters.user_id AS x": ((), (USER,)),
    "SELECT token_parameters.user_id() AS x": ((), (USER,)),
    "SELECT token_parameters.org AS x": ((), (call("->>", Request("token_parameters"), "org"),)),
    "SELECT request.jwt() ->> 'a' AS x, 'b' AS y": ((), (jwt("a"), Literal("b"))),
    "SELECT upper(request.jwt() ->> 'a') AS x": ((), (call("upper", jwt("a")),)),
    "SELECT": ((), ()),
    "SELECT WHERE request.jwt() ->> 'role' = 'admin'": (
        (when(call("=", jwt("role"), "admin"), "request.jwt() ->> 'role' = 'admin'"),),
        (),
    ),
    "SELECT request.user_id() AS x WHERE request.jwt() ->> 'a' AND (request.jwt() ->> 'b' OR 1 = 1)": (
        (
            when(jwt("a"), "request.jwt() ->> 'a'"),
            when(call("or", jwt("b"), call("=", 1, 1)), "request.jwt() ->> 'b' OR 1 = 1"),
        ),
        (USER,),
    ),
    "SELECT request.user_id() AS x, request.parameter('p') AS y": ((), (USER, client("p"))),
    "SELECT request.user_id() AS x, user_parameters.p AS y": ((), (USER, client("p"))),
}


@pytest.mark.parametrize("sql", STATIC)
def test_a_query_without_from_is_about_the_request_alone(sql: str) -> None:
    (query,), lookups = queried(sql)
    assert (query.steps, query.values) == STATIC[sql]
    assert (query.priority, query.text, lookups) == (3, sql, ())


#: WHERE → the lookup's filters and keys, and what is looked up.
MATCHED: dict[str, tuple[tuple[Predicate, ...], tuple[Key, ...], tuple[Key, ...]]] = {
    "owner = request.user_id()": ((), (Column("owner"),), (USER,)),
    "request.user_id() = lists.owner": ((), (Column("owner"),), (USER,)),
    "owner = request.user_id() AND org = token_parameters.org": (
        (),
        (Column("owner"), Column("org")),
        (USER, call("->>", Request("token_parameters"), "org")),
    ),
    "owner = request.user_id() AND helper = request.user_id()": (
        (),
        (Column("owner"), Column("helper")),
        (USER, USER),
    ),
    "owner = request.user_id() AND active = 1": (
        only(call("=", Column("active"), 1), "active = 1"),
        (Column("owner"),),
        (USER,),
    ),
    "owner = request.user_id() AND (a IS NULL OR b)": (
        only(call("or", call("is null", Column("a")), Column("b")), "a IS NULL OR b"),
        (Column("owner"),),
        (USER,),
    ),
    "upper(name) = request.jwt() ->> 'n'": ((), (call("upper", Column("name")),), (jwt("n"),)),
    "id IN request.jwt() -> 'ids'": ((), (Column("id"),), (Each(array("ids")),)),
    "request.user_id() IN members": ((), (Each(Column("members")),), (USER,)),
    "tags && (request.jwt() -> 'tags')": ((), (Each(Column("tags")),), (Each(array("tags")),)),
    "(request.jwt() -> 'tags') && tags": ((), (Each(Column("tags")),), (Each(array("tags")),)),
    "active = 1": (only(call("=", Column("active"), 1), "active = 1"), (), ()),
}


@pytest.mark.parametrize("where", MATCHED)
def test_equalities_of_row_and_request_are_looked_up(where: str) -> None:
    filters, keys, asked = MATCHED[where]
    (query,), (lookup,) = queried(f"SELECT id AS x FROM lists WHERE {where}")
    assert lookup == Lookup(lookup.id, LISTS, filters, keys, (Column("id"),))
    assert (query.steps, query.values) == ((Find(lookup.id, asked),), (Found(0, 0),))


def test_the_request_is_asked_before_anything_is_looked_up() -> None:
    sql = (
        "SELECT id AS x, request.jwt() ->> 'o' AS y FROM lists "
        "WHERE owner = request.user_id() AND token_parameters.a"
    )
    (query,), (lookup,) = queried(sql)
    a = call("->>", Request("token_parameters"), "a")
    assert query.steps == (when(a, "token_parameters.a"), Find(lookup.id, (USER,)))
    assert query.values == (Found(1, 0), jwt("o"))


def test_two_columns_of_one_row_stay_together() -> None:
    (query,), (lookup,) = queried(
        "SELECT id AS x, org AS y, id AS z FROM lists WHERE owner = request.user_id()"
    )
    assert lookup.values == (Column("id"), Column("org"))
    assert query.values == (Found(0, 0), Found(0, 1), Found(0, 0))


def test_a_gate_brings_nothing_but_that_there_is_a_row() -> None:
    (query,), (lookup,) = queried("SELECT FROM users WHERE id = request.user_id() AND is_admin")
    assert lookup.values == () and query.values == ()
    assert lookup.filters == only(Column("is_admin"), "is_admin")
    assert query.steps == (Find(lookup.id, (USER,)),)


def test_the_same_lookup_in_two_places_is_one() -> None:
    sql = "SELECT id AS x FROM lists WHERE owner = request.user_id()"
    rules = read([sql, sql.replace("lists ", "lists AS l ")], "SELECT * FROM t WHERE x = bucket.x")
    assert len(rules.lookups) == 1


def test_or_of_the_same_request_value_is_one_query_for_each_side() -> None:
    both, lookups = queried(
        "SELECT id AS x FROM lists WHERE owner = request.user_id() OR helper = request.user_id()"
    )
    assert [lookup.keys for lookup in lookups] == [(Column("owner"),), (Column("helper"),)]
    assert [query.steps for query in both] == [(Find(lookup.id, (USER,)),) for lookup in lookups]


def test_one_of_several_request_values() -> None:
    both, lookups = queried(
        "SELECT id AS x FROM lists WHERE owner IN (request.user_id(), request.jwt() ->> 'boss')"
    )
    assert len(lookups) == 1
    assert [query.steps for query in both] == [
        (Find(lookups[0].id, (value,)),) for value in (USER, jwt("boss"))
    ]


def test_a_wildcard_reads_all_tables_whose_names_begin_so() -> None:
    _, (lookup,) = queried(
        'SELECT id AS x, _table_suffix AS y FROM other."users_%" WHERE o = request.user_id()'
    )
    assert lookup.table == TableName("other", "users_%") and lookup.table.matches("other", "users_1")
    assert [type(value).__name__ for value in lookup.values] == ["Column", "Metadata"]


EACH: dict[str, tuple[tuple[Step, ...], tuple[Expression, ...]]] = {
    "SELECT value AS x FROM json_each(request.jwt() -> 'a')": ((ForEach(array("a")),), (Found(0, 1),)),
    "SELECT e.key AS x, e.value AS y FROM json_each(request.jwt() -> 'a') AS e": (
        (ForEach(array("a")),),
        (Found(0, 0), Found(0, 1)),
    ),
    "SELECT value ->> 'id' AS x FROM json_each(request.jwt() -> 'a') "
    "WHERE value ->> 'on' AND request.user_id() = 'u'": (
        (
            when(call("=", USER, "u"), "request.user_id() = 'u'"),
            ForEach(array("a")),
            when(call("->>", Found(1, 1), "on"), "value ->> 'on'"),
        ),
        (call("->>", Found(1, 1), "id"),),
    ),
}


@pytest.mark.parametrize("sql", EACH)
def test_json_each_goes_through_an_array_of_the_request(sql: str) -> None:
    (query,), lookups = queried(sql)
    assert (query.steps, query.values) == EACH[sql]
    assert lookups == ()


def test_a_subquery_is_looked_up_first() -> None:
    sql = (
        "SELECT id AS x FROM lists WHERE org IN "
        "(SELECT org FROM members WHERE who = request.user_id() AND active)"
    )
    (query,), (members, lists) = queried(sql)
    assert members.keys == (Column("who"),) and members.values == (Column("org"),)
    assert members.filters == only(Column("active"), "active")
    assert lists.keys == (Column("org"),)
    assert query.steps == (Find(members.id, (USER,)), Find(lists.id, (Found(0, 0),)))
    assert query.values == (Found(1, 0),)


def test_a_subquery_within_a_subquery_is_looked_up_before_it() -> None:
    sql = (
        "SELECT id AS x FROM t WHERE a IN "
        "(SELECT b FROM u WHERE c IN (SELECT d FROM v WHERE e = request.user_id()))"
        " AND request.jwt() ->> 'on'"
    )
    (query,), (v, u, t) = queried(sql)
    on = when(jwt("on"), "request.jwt() ->> 'on'")
    finds = (Find(v.id, (USER,)), Find(u.id, (Found(1, 0),)), Find(t.id, (Found(2, 0),)))
    assert query.steps == (on, *finds)
    assert query.values == (Found(3, 0),)


def test_a_request_value_in_a_subquery_asks_whether_there_is_a_row() -> None:
    sql = (
        "SELECT request.user_id() AS x WHERE request.user_id() IN "
        "(SELECT who FROM admins WHERE org = token_parameters.o)"
    )
    (query,), (admins,) = queried(sql)
    assert (admins.keys, admins.values) == ((Column("org"), Column("who")), ())
    assert query.steps == (Find(admins.id, (call("->>", Request("token_parameters"), "o"), USER)),)


def test_a_union_is_one_query_for_each_member() -> None:
    sql = (
        "SELECT id AS x FROM t WHERE a IN (SELECT b FROM u WHERE c = request.user_id() "
        "UNION ALL SELECT d FROM v WHERE e = request.user_id())"
    )
    queries, lookups = queried(sql)
    assert [str(lookup.table) for lookup in lookups] == ["u", "v", "t"]
    assert [len(query.steps) for query in queries] == [2, 2]


def test_a_window_of_a_lookup() -> None:
    sql = "SELECT id AS x FROM t WHERE a = request.user_id() AND ends_at > now() - interval '1 day'"
    _, (lookup,) = queried(sql)
    assert lookup.windows == (until("ends_at", DAY, "ends_at > now() - interval '1 day'"),)


def test_several_queries_may_select_the_names_in_any_order() -> None:
    sql = [
        "SELECT request.user_id() AS x, 'k' AS y",
        "SELECT 'l' AS y, id AS x FROM t WHERE o = request.user_id()",
    ]
    rules = read(sql, "SELECT * FROM t WHERE x = bucket.x AND y = bucket.y")
    assert variant(rules).parameters == ("x", "y")
    assert [query.values for query in variant(rules).queries] == [
        (USER, Literal("k")),
        (Found(0, 0), Literal("l")),
    ]


def test_without_parameters_there_is_one_bucket_for_everybody() -> None:
    assert variant(read(None, "SELECT * FROM t")).queries == (ParameterQuery((), (), 3, "SELECT"),)


PRIORITIES = {
    ("SELECT request.user_id() AS x, 0 AS _priority", ""): 0,
    ("SELECT 3 AS _priority, request.user_id() AS x", ""): 3,
    ("SELECT request.user_id() AS x", "    priority: 1"): 1,
    ("SELECT request.user_id() AS x", ""): 3,
}


@pytest.mark.parametrize(("sql", "extra"), PRIORITIES)
def test_a_priority_stands_in_the_query_or_in_the_definition(sql: str, extra: str) -> None:
    rules = read(sql, "SELECT * FROM t WHERE x = bucket.x", extra=extra)
    assert variant(rules).queries[0].priority == PRIORITIES[sql, extra]
    assert variant(rules).parameters == ("x",)


def test_the_parameters_of_the_file_have_names() -> None:
    top = "parameters:\n  me: SELECT request.jwt() ->> 'sub'\n  org: SELECT token_parameters.org"
    rules = read(
        "SELECT id AS x FROM t WHERE o = parameters.me", "SELECT * FROM t WHERE x = bucket.x", top=top
    )
    assert variant(rules).queries[0].steps == (Find(rules.lookups[0].id, (jwt("sub"),)),)
    assert [str(warning) for warning in rules.warnings] == [
        "f:3:3: parameters.org: nothing refers to this name"
    ]


MIXED = (
    "a condition about both row and request is `column = request value`, `column IN request array`, "
    "`request value IN array column` or `array column && request array`"
)
OR = "both sides of OR must use the same values of the request; split it into two queries"
ACCEPT = (
    "compare with the token, such as `column = request.user_id()`, or accept it with "
    "`accept_potentially_dangerous_queries: true`"
)
OPEN = f"these buckets depend only on what a client sends, and a client can send anything; {ACCEPT}"
MENTIONED = (
    "these buckets depend only on what a client sends, and a client can send anything: "
    f"the token is mentioned, and does not decide which rows there are; {ACCEPT}"
)
JOINED = "one table is expected after FROM; for a join, write column IN (SELECT column FROM other WHERE …)"
ONE_IN = "only one condition can go through an array of the request"

#: SQL → the column of the file where each problem is, and what it is. The SQL begins at column 9.
REFUSED: dict[str, list[tuple[int, str]]] = {
    "SELECT id AS x FROM t WHERE a > request.user_id()": [(37, MIXED)],
    "SELECT id AS x FROM t WHERE a = b || request.user_id()": [(37, MIXED)],
    "SELECT id AS x FROM t WHERE NOT a = request.user_id()": [
        (37, "NOT is for conditions about the row only, or about the request only")
    ],
    "SELECT id AS x FROM t WHERE a = request.user_id() OR b = 1": [(37, OR)],
    "SELECT id AS x FROM t WHERE a = request.user_id() OR a = request.jwt() ->> 'b'": [(37, OR)],
    "SELECT id AS x FROM t WHERE a IN request.jwt() -> 'a' AND b IN request.jwt() -> 'b'": [(9, ONE_IN)],
    "SELECT * FROM t": [(16, "name each column: `*` cannot be a bucket's parameter")],
    "SELECT upper(id), b AS x, c AS x FROM t": [
        (16, "a name is missing: `… AS name`"),
        (35, "x is selected twice"),
    ],
    "SELECT 1 FROM t WHERE a = request.user_id()": [
        (
            16,
            "a name is missing: `… AS name`; to ask only whether there is such a row, write "
            "`SELECT FROM table WHERE …`",
        )
    ],
    "SELECT id || request.user_id() AS x FROM t": [
        (16, "a parameter is of the row or of the request; select both, each with its name")
    ],
    "SELECT a AS x": [(16, "a is a column, and there is no table: it needs FROM, or quotes")],
    "SELECT bucket.a AS x FROM t": [(16, "`bucket.` is known in data queries only: here it is being made")],
    "SELECT u.a AS x FROM t": [(16, "u.a is no column of t; what can stand here: t")],
    "SELECT a AS x FROM t, u": [(28, "one table is expected after FROM; use one query for each")],
    "SELECT a AS x FROM t JOIN u ON true": [(28, JOINED)],
    "SELECT a AS x FROM (SELECT 1) AS t": [(36, "one table is expected after FROM")],
    "SELECT DISTINCT a AS x FROM t": [
        (9, "DISTINCT is not part of the rules language; leave it out: nothing is sent twice")
    ],
    "SELECT a AS x FROM t LIMIT 1": [
        (36, "LIMIT is not part of the rules language; a condition must say which rows belong")
    ],
    "SELECT a AS x FROM t UNION SELECT 1": [
        (16, "UNION is not part of the rules language; write one query for each")
    ],
    'SELECT a AS x FROM "a%b"': [(28, '% stands for anything at the end of a name only: "name_%"')],
    "SELECT a AS x FROM a.b.c": [(28, "there is one source: `table` and `schema.table` can stand here")],
    'SELECT a AS x FROM "tag.public".t': [
        (28, "there is one source: `table` and `schema.table` can stand here")
    ],
    "SELECT a AS x FROM json_each(request.jwt())": [
        (16, "json_each has the columns key and value; what can stand here: key, value")
    ],
    "SELECT value AS x FROM json_tree(request.jwt())": [
        (32, "json_tree cannot stand after FROM: of functions, only json_each(array) can")
    ],
    "SELECT request.foo() AS x": [
        (16, "there is no function request.foo; what can stand here: jwt, parameter, parameters, user_id")
    ],
    "SELECT request.user_id AS x": [(16, "a function is called with parentheses: request.user_id()")],
    "SELECT request.user_id(1) AS x": [(16, "request.user_id() has nothing between its parentheses")],
    "SELECT request.parameter() AS x": [(16, "request.parameter('name') needs one name")],
    "SELECT token_parameters.org() AS x": [
        (16, "this is no function; token_parameters.org is the value of that name")
    ],
    "SELECT auth.user_id() AS x": [(16, "auth.user_id is a word of streams; here it is request.user_id()")],
    "SELECT 4 AS _priority": [(16, "a priority is a number from 0 (first) to 3")],
    "SELECT request.user_id() AS _priority": [(16, "a priority is a number from 0 (first) to 3")],
    "SELECT id AS x FROM t WHERE a NOT IN (SELECT b FROM u)": [
        (37, "a subquery cannot be negated: it would grant whatever is not found")
    ],
    "SELECT id AS x FROM t WHERE EXISTS (SELECT 1 FROM u)": [
        (37, "only `value IN (SELECT column FROM table WHERE …)` is understood of subqueries")
    ],
    "SELECT id AS x FROM t WHERE a IN (SELECT b, c FROM u)": [
        (50, "exactly one column is expected between SELECT and FROM here")
    ],
    "SELECT id AS x FROM t WHERE a IN (SELECT b FROM u EXCEPT SELECT c FROM v)": [
        (50, "of SELECTs, only UNION makes one: use one IN for each")
    ],
    "SELECT request.user_id() AS x WHERE now() > 5": [
        (45, "now() is compared with a column, and there is no table")
    ],
    # What a client sends decides alone.
    "SELECT request.parameters() ->> 'p' AS x": [(9, OPEN)],
    "SELECT user_parameters.p AS x": [(9, OPEN)],
    "SELECT value AS x FROM json_each(request.parameters() -> 'p')": [(9, OPEN)],
    "SELECT id AS x FROM t WHERE code = request.parameter('code') AND public = 1": [(9, OPEN)],
    "SELECT WHERE request.parameter('p') = 'a' OR request.user_id() = 'b'": [(9, MENTIONED)],
    "SELECT id AS x FROM t WHERE a IN (SELECT b FROM u WHERE c = request.parameter('c'))": [(9, OPEN)],
}


@pytest.mark.parametrize("sql", REFUSED)
def test_refused_where_it_stands(sql: str) -> None:
    names = ["x"] if " AS x" in sql else []
    where = " WHERE x = bucket.x" if names else ""
    found = [line for line in refused(sql, f"SELECT * FROM t{where}") if "parameters" in line]
    assert found == [f"4:{column}: d.parameters[0]: {what}" for column, what in REFUSED[sql]]


TRUSTED = (
    "SELECT request.parameter('p') AS x, request.user_id() AS y",
    "SELECT request.parameter('p') AS x WHERE request.jwt() ->> 'role' = 'admin'",
    "SELECT request.parameter('p') AS x "
    "WHERE request.parameter('q') = 'a' AND request.jwt() ->> 'role' = 'admin'",
    "SELECT id AS x FROM t WHERE a = request.parameter('p') AND owner = request.user_id()",
    "SELECT id AS x FROM t WHERE a = request.parameter('p') "
    "AND b IN (SELECT c FROM u WHERE d = request.user_id())",
    "SELECT id AS x FROM t WHERE public = 1",
)


@pytest.mark.parametrize("sql", TRUSTED)
def test_what_a_client_sends_may_choose_among_what_the_token_allows(sql: str) -> None:
    queries, _ = queried(sql)
    assert queries


@pytest.mark.parametrize(
    ("parameters", "extra"),
    [
        ("SELECT request.parameter('p') AS x", "    accept_potentially_dangerous_queries: true"),
        ("!accept_potentially_dangerous_queries SELECT request.parameter('p') AS x", ""),
    ],
)
def test_a_file_can_accept_what_anybody_can_widen(parameters: str, extra: str) -> None:
    assert variant(read(parameters, "SELECT * FROM t WHERE x = bucket.x", extra=extra)).queries
    if extra:
        assert refused(parameters, "SELECT * FROM t WHERE x = bucket.x", extra=extra.replace("true", "false"))


def test_another_tag_is_refused() -> None:
    assert refused("!accept SELECT 1 AS x", "SELECT * FROM t WHERE x = bucket.x") == [
        "4:9: tags are not read; quote text that begins with !"
    ]


def test_a_priority_in_two_places_is_refused() -> None:
    sql = "SELECT request.user_id() AS x, 1 AS _priority"
    assert refused(sql, "SELECT * FROM t WHERE x = bucket.x", extra="    priority: 1") == [
        "5:9: d.parameters[0]: the definition has a `priority` too: one of them must go"
    ]


def test_queries_of_one_definition_select_the_same_names() -> None:
    sql = ["SELECT 1 AS x, 2 AS y", "SELECT 1 AS x", "SELECT 1 AS x, 2 AS z"]
    assert refused(sql, "SELECT * FROM t WHERE x = bucket.x AND y = bucket.y") == [
        "5:9: d.parameters[1]: every parameter query selects the same names; the first selects x, y",
        "6:9: d.parameters[2]: every parameter query selects the same names; the first selects x, y",
    ]


NULL: dict[str, list[str]] = {
    "SELECT request.user_id() AS x WHERE NOT (request.jwt() ->> 'role' = 'guest')": [
        "4:45: d.parameters[0]: this also holds for a request without the claim role; "
        "if that is not meant, add `AND … IS NOT NULL`"
    ],
    "SELECT id AS x FROM t WHERE o = request.user_id() AND NOT (kind IN ('a', 'b'))": [
        "4:63: d.parameters[0]: this also holds where kind is NULL; "
        "if that is not meant, add `AND … IS NOT NULL`"
    ],
    "SELECT request.user_id() AS x WHERE request.jwt() ->> 'role' != 'guest'": [],
    "SELECT request.user_id() AS x WHERE NOT (request.jwt() ->> 'a' IS NULL)": [],
    "SELECT 1 AS x WHERE request.jwt() ->> 'a' IS NOT NULL AND NOT (request.jwt() ->> 'a' = 'b')": [],
    "SELECT 1 AS x WHERE request.jwt() ->> 'a' IS NULL OR NOT (request.jwt() ->> 'a' = 'b')": [],
    "SELECT 1 AS x WHERE NOT (request.user_id() = 'b')": [],
    "SELECT request.user_id() AS x WHERE NOT (ifnull(request.jwt() ->> 'a', '') = 'b')": [],
    "SELECT request.user_id() AS x WHERE request.jwt() ->> 'a' = NULL": [
        "4:45: d.parameters[0]: nothing equals NULL: write IS NULL"
    ],
    "SELECT id AS x FROM t WHERE id IN (request.jwt() -> 'ids')": [],
}


@pytest.mark.parametrize("sql", NULL)
def test_a_condition_that_may_not_mean_what_its_writer_thinks_is_warned_of(sql: str) -> None:
    assert warned(sql, "SELECT * FROM t WHERE x = bucket.x") == NULL[sql]
