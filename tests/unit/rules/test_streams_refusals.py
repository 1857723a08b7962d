"""What is no stream is refused where it stands, with the nearest form that is."""

from __future__ import annotations

from textwrap import dedent

import pytest

from replicator.rules.expression import EDITION_3
from tests.unit.rules.told import of_query, read

#: ^ stands before the place that is told.
QUERIES = {
    "SELECT * FROM a WHERE^": "syntax error at end of input",
    "^UPDATE a SET x = 1": "expected a SELECT",
    "SELECT * FROM a; ^SELECT * FROM b": "expected exactly one SELECT",
    "^SELECT": "FROM is missing",
    "^SELECT 1 AS id": "FROM is missing",
    "SELECT * FROM a LEFT JOIN ^b ON a.x = b.y": "LEFT JOIN is not supported; write JOIN … ON",
    "SELECT * FROM a RIGHT JOIN ^b ON a.x = b.y": "RIGHT JOIN is not supported",
    "SELECT * FROM a FULL JOIN ^b ON a.x = b.y": "FULL JOIN is not supported",
    "SELECT * FROM a JOIN ^b USING (x)": "USING and NATURAL are not supported; write JOIN … ON a.x = b.y",
    "SELECT * FROM a NATURAL JOIN ^b": "USING and NATURAL",
    "SELECT * FROM (a JOIN ^b ON a.x = b.y) AS j": "a join is not nested or named here",
    "SELECT a.*, ^b.x FROM a, b WHERE a.x = b.x": "all columns must come from one table",
    "SELECT ^* FROM a, b WHERE a.x = b.x": "write a.* instead of *",
    "SELECT ^a.x || b.y AS id FROM a, b WHERE a.x = b.x": "all columns must come from one table",
    "SELECT ^x FROM a, b WHERE a.x = b.x": "say of which: a.x or b.x",
    "SELECT ^1 AS id FROM a, b WHERE a.x = b.x": "select some of its columns",
    "SELECT ^value FROM json_each(auth.parameter('x'))": "json_each can only be in conditions",
    "SELECT ^* FROM (SELECT id FROM a) AS s": "write SELECT * FROM table WHERE column IN (…)",
    "SELECT ^s.id FROM (SELECT id FROM a) AS s": "a subquery, `with` or json_each can only be in conditions",
    "SELECT ^s.* FROM (SELECT id FROM a) AS s": "needs a table in FROM that is called s",
    "SELECT *, ^auth.user_id() AS who FROM a": "a column cannot depend on who asks",
    "SELECT id, ^upper(x) FROM a": "needs a name: … AS name",
    "SELECT id, x AS y, ^z AS y FROM a": "two columns are called y",
    "SELECT * FROM a WHERE x IN (SELECT ^* FROM b)": "* cannot stand in a subquery; name its columns",
    "SELECT * FROM a WHERE ^x IN (SELECT y, z FROM b)": "must return exactly one column",
    "SELECT * FROM a WHERE ^(x, y) IN (SELECT y, z FROM b)": "one value is expected before IN",
    "SELECT * FROM a WHERE ^x NOT IN (SELECT y FROM b)": "a subquery cannot be negated",
    "SELECT * FROM a WHERE NOT (y = 1 OR ^x IN (SELECT y FROM b))": "a subquery cannot be negated",
    "SELECT * FROM a WHERE NOT ^x && (SELECT y FROM b)": "a subquery cannot be negated",
    "SELECT * FROM a WHERE ^EXISTS (SELECT 1 FROM b)": "EXISTS is not part of the rules language; write x IN",
    "SELECT * FROM a WHERE x = ^(SELECT y FROM b)": "a subquery is not a value here",
    "SELECT * FROM a WHERE ^x = ANY (SELECT y FROM b)": "a subquery is not a value here",
    "SELECT * FROM a WHERE ^(SELECT y FROM b)": "a subquery is not a value here",
    "SELECT ^(SELECT y FROM b) AS id FROM a": "subquery",
    "WITH ^b AS (SELECT 1) SELECT * FROM b": "name the query under `with:`",
    "SELECT * FROM a WHERE x IN (SELECT y FROM b UNION SELECT ^z FROM c)": "write two conditions with OR",
    "SELECT * FROM a UNION SELECT ^* FROM b": "UNION is not part",
    "SELECT * FROM a GROUP BY ^x": "GROUP BY is not part",
    "SELECT x AS id FROM a GROUP BY ^x HAVING x > 1": "is not part of the rules language",
    "SELECT * FROM a ORDER BY ^x": "ORDER BY is not part of the rules language; order rows on the client",
    "SELECT * FROM a LIMIT ^3": "LIMIT is not part",
    "SELECT * FROM a OFFSET ^3": "OFFSET is not part",
    "^SELECT * FROM a FOR UPDATE": "FOR is not part",
    "SELECT DISTINCT ON (^x) * FROM a": "DISTINCT ON is not part of the rules language; leave it out",
    "SELECT ^count(*) AS id FROM a": "count is of many rows, and rows are sent one by one",
    "SELECT * FROM a WHERE ^x > auth.user_id()": "only = can stand between two tables",
    "SELECT * FROM a WHERE ^x != auth.user_id()": "only = can stand between two tables",
    "SELECT * FROM a WHERE NOT ^x = auth.user_id()": "only = can stand between two tables",
    "SELECT * FROM a WHERE ^x = y || auth.user_id()": "with each side about one of them",
    "SELECT * FROM a WHERE ^x NOT IN auth.parameter('xs')": "only = can stand between",
    "SELECT a.* FROM a JOIN b ON ^a.x = b.y + a.z": "with each side about one of them",
    "SELECT a.* FROM a, ^b": "nothing ties b to the other tables or to the request: a condition such as b.x",
    "SELECT a.* FROM a, ^b, c WHERE b.x = c.y": "nothing ties b",
    "SELECT a.* FROM a, b WHERE a.x = b.x AND b.y IN (SELECT c.z FROM c, ^d)": "nothing ties d",
    "SELECT a.* FROM a, ^json_each(auth.parameter('x')) AS j": "nothing is demanded of the members",
    "SELECT a.* FROM a, ^json_each(a.m) AS j WHERE j.key = auth.user_id()": "only value can be used, with =",
    "SELECT a.* FROM a, ^json_each(a.m) AS j WHERE j.value > 3": "only value can be used, with =",
    "SELECT a.* FROM a, ^json_each(a.m) j WHERE j.value = auth.user_id() AND j.value > 'a'": "only value can",
    "SELECT a.* FROM a, ^json_each(a.m) j, json_each(j.value) k WHERE k.value = auth.user_id()": "only value",
    "SELECT a.* FROM a, ^json_each(a.m, '$.x') AS j": "json_each(array) AS name is the one function in FROM",
    "SELECT * FROM ^generate_series(1, 2) AS g": "generate_series cannot stand after FROM",
    "SELECT a.* FROM a, ^json_each(a.m) AS j(x) WHERE j.x = 1": "are called key and value",
    "SELECT a.* FROM a, json_each(a.m) AS j WHERE ^j.x = 1": "j has no column x",
    "SELECT a.* FROM a, LATERAL (SELECT ^1 AS x) AS s": "LATERAL is not part",
    "SELECT a.* FROM a, (SELECT ^upper(x) FROM b) AS s WHERE s.y = a.z": "needs a name",
    "SELECT a.* FROM a, ^a": "two things in FROM are called a; write AS name",
    "SELECT * FROM ^db.public.a": "there is one source",
    "SELECT * FROM a WHERE ^b.x = 1": "nothing in FROM is called b",
    "SELECT * FROM a WHERE ^bucket.x = y": "a stream has no bucket parameters",
    "SELECT * FROM a WHERE x = ^token_parameters.y": "write auth.parameter('…')",
    "SELECT * FROM a WHERE x = ^user_parameters.y": "write connection.parameter('…')",
    "SELECT * FROM a WHERE x = ^request.user_id()": "write auth.user_id(), auth.parameter('…') or connection",
    "SELECT * FROM a WHERE x = ^auth.parametr('y')": "did you mean parameter",
    "SELECT * FROM a WHERE x = ^auth.user_id('y')": "has no arguments",
    "SELECT * FROM a WHERE x = ^auth.parameter()": "needs one name",
    "SELECT * FROM a WHERE ^b.schema() = 1": "needs a table in FROM that is called b",
    "SELECT * FROM a WHERE NOT ^x > now()": "cannot be negated",
    "SELECT * FROM a WHERE x > ^now() - auth.parameter('days')": "now()",
    "SELECT * FROM a WHERE ^auth.parameter('t') > now()": "now()",
    "^SELECT * FROM a WHERE x = connection.parameter('x')": "depend only on what a client sends",
    "^SELECT * FROM a WHERE x = auth.user_id() OR x = subscription.parameter('x')": "depend only on what a",
    "^SELECT * FROM a WHERE x IN (SELECT y FROM b WHERE z = subscription.parameter('x'))": "depend only on",
}


@pytest.mark.parametrize("marked", QUERIES)
def test_what_is_no_query_of_a_stream(marked: str) -> None:
    sql, expected = marked.replace("^", ""), QUERIES[marked]
    found = of_query(sql)
    [problem] = found.context.document.problems
    assert expected in problem.what
    assert (problem.line, problem.column, problem.key) == (3, 5 + marked.index("^"), "s.query")
    assert found.definitions == []


STREAMS = {
    "s: 1": ["1:4: s: a stream is a mapping with `query` or `queries`"],
    "s: {priority: 1}": ["1:4: s: exactly one of `query` and `queries` is expected"],
    "s: {query: SELECT * FROM a, queries: [SELECT * FROM b]}": ["1:38: s: exactly one of"],
    "s: {query: [SELECT * FROM a]}": ["1:12: s.query: a SELECT is expected"],
    "s: {queries: SELECT * FROM a}": ["1:14: s.queries: a list of SELECTs is expected"],
    "s: {queries: []}": ["1:14: s.queries: a list of SELECTs is expected"],
    "s: {query: SELECT * FROM a, data: 1}": ["1:29: s.data: unknown key; what can stand here: accept"],
    "s: {query: SELECT * FROM a, prioritty: 1}": ["1:29: s.prioritty: unknown key, did you mean priority?"],
    "s: {query: SELECT * FROM a, priority: 4}": [
        "1:39: s.priority: a number from 0 (first) to 3 is expected"
    ],
    "s: {query: SELECT * FROM a, priority: '1'}": ["1:39: s.priority: a number from 0"],
    "s: {query: SELECT * FROM a, auto_subscribe: 1}": ["1:45: s.auto_subscribe: true or false is expected"],
    "s: {query: SELECT * FROM a, with: SELECT 1}": ["1:35: s.with: a mapping from names to SELECTs"],
    "s: {query: SELECT * FROM a, with: {m: SELECT * FROM b}}": ["1:46: s.with.m: * cannot stand under"],
    "s: {query: SELECT * FROM a WHERE NOT x IN m, with: {m: SELECT y FROM b}}": [
        "1:38: s.query: a subquery cannot be negated"
    ],
    "s: {query: SELECT * FROM a WHERE x IN m, with: {n: SELECT y FROM b, m: SELECT y FROM n}}": [
        "1:86: s.with.m: queries under `with` cannot use each other"
    ],
    "s: {query: SELECT * FROM a WHERE x IN m, with: {m: SELECT y FROM b WHERE z.z = 1}}": [
        "1:74: s.with.m: nothing in FROM is called z"
    ],
    "s: {query: SELECT * FROM a WHERE x IN m, with: {m: SELECT y FROM b WHERE z > auth.user_id()}}": [
        "1:74: s.with.m: only = can stand between"
    ],
}


@pytest.mark.parametrize("text", STREAMS)
def test_what_is_no_stream(text: str) -> None:
    found = read(text)
    problems = [problem.removeprefix("rules.yaml:") for problem in found.problems()]
    assert len(problems) == len(STREAMS[text])
    for problem, expected in zip(problems, STREAMS[text], strict=True):
        assert problem.startswith(expected)
    assert found.definitions == []


def test_all_queries_of_a_stream_are_read_even_if_one_is_refused() -> None:
    found = read("s: {queries: [SELECT x FROM, SELECT * FROM a WHERE b.c, SELECT * FROM a LIMIT 1]}")
    assert [problem.key for problem in found.context.document.problems] == [
        "s.queries[0]",
        "s.queries[1]",
        "s.queries[2]",
    ]


def ors(letter: str, count: int) -> str:
    return " OR ".join(f"x = auth.parameter('{letter}{i}')" for i in range(count))


def test_at_most_a_hundred_alternatives() -> None:
    many = f"SELECT * FROM t WHERE ({ors('a', 10)}) AND ({ors('b', 10)})"
    assert of_query(many).problems() == []
    [problem] = of_query(f"{many} AND ({ors('c', 2)})").context.document.problems
    assert "more than 100 alternatives; split it into several `queries`" in problem.what


def test_at_most_a_hundred_kinds_of_bucket() -> None:
    lines = [f"    - SELECT * FROM t{i} WHERE x = auth.parameter('p{i}')\n" for i in range(101)]
    assert len(read("s:\n  queries:\n" + "".join(lines[:100])).definitions[0].variants) == 100
    [problem] = read("s:\n  queries:\n" + "".join(lines)).problems()
    assert problem == "rules.yaml:2:3: s: this comes to more than 100 kinds of bucket; split the stream"


def test_nesting_ends_somewhere() -> None:
    sql = "SELECT * FROM t WHERE x IN (" * 40 + "SELECT y FROM u" + ")" * 40
    sql = sql.replace("IN (SELECT *", "IN (SELECT y")
    [problem] = of_query(sql).context.document.problems
    assert "too deep" in problem.what
    joins = "".join(f" JOIN t{i} ON t{i}.x = t.x" for i in range(200))
    [problem] = of_query(f"SELECT t.* FROM t{joins}").context.document.problems
    assert problem.line == 3


def test_tables_are_counted_wherever_they_are_read() -> None:
    joined = "SELECT a0.x FROM a0" + "".join(f" JOIN a{i} ON a{i}.x = a0.x" for i in range(1, 51))
    query = "SELECT * FROM t WHERE x IN m AND y IN m"
    [problem] = read(f"s: {{query: {query}, with: {{m: {joined}}}}}").context.document.problems
    assert problem.what == "more than 100 tables are read, subqueries and `with` included"
    assert read(f"s: {{query: {query.partition(' AND')[0]}, with: {{m: {joined}}}}}").problems() == []


def test_names_under_with_differ_by_more_than_their_case() -> None:
    [problem] = read("s: {query: SELECT * FROM t, with: {m: SELECT a FROM u, M: SELECT b FROM u}}").problems()
    assert problem == "rules.yaml:1:56: s.with.M: m is the same name: letters' case is ignored"


def test_a_bucket_has_a_bounded_name() -> None:
    conditions = " AND ".join(f"c{i} = auth.parameter('p{i}')" for i in range(65))
    [problem] = of_query(f"SELECT * FROM t WHERE {conditions}").context.document.problems
    assert "at most 64 parameters" in problem.what


ACCEPTED = (
    "query: SELECT * FROM a WHERE x = connection.parameter('x') AND auth.parameter('r') = 'admin'",
    "query: SELECT * FROM a WHERE x = subscription.parameter('x') AND y = auth.user_id()",
    "query: SELECT * FROM a WHERE x = subscription.parameter('x')"
    " AND x IN (SELECT y FROM b WHERE z = auth.user_id())",
    "{query: SELECT * FROM a, accept_potentially_dangerous_queries: false}",
    "{query: SELECT * FROM a WHERE x = connection.parameter('x'), "
    "accept_potentially_dangerous_queries: true}",
)


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_the_token_vouches_for_is_not_dangerous(text: str) -> None:
    assert read(f"s:\n  {text}").problems() == []


def test_edition_2_needs_an_id() -> None:
    [problem] = of_query("SELECT name FROM t", edition=2).problems()
    assert problem == "rules.yaml:3:5: s.query: clients need a column id: select it, or write … AS id"


WARNINGS = {
    "SELECT ^name FROM t": None,
    "^SELECT name FROM t": "without it all rows have the same empty id",
    "SELECT upper(id) AS id, ^* FROM t": "write it first",
    "SELECT t.* FROM ^things AS t JOIN u ON u.x = t.x": 'or AS "t" if it is',
    "SELECT t.* FROM ^things t WHERE t.x = 1": 'or AS "t" if it is',
    "SELECT DISTINCT ^* FROM t": "DISTINCT changes nothing",
    "SELECT * FROM t WHERE x IN (SELECT DISTINCT ^y FROM u)": "DISTINCT changes nothing",
    "SELECT * FROM t WHERE ^auth.parameter('r') != 'guest'": "also holds",
    "SELECT * FROM t WHERE NOT ^x = 1": "also holds where x is NULL",
}


@pytest.mark.parametrize("marked", WARNINGS)
def test_what_may_not_be_meant_is_told(marked: str) -> None:
    found = of_query(marked.replace("^", ""))
    assert found.problems() == []
    expected = WARNINGS[marked]
    if expected is None:
        return
    [warned] = found.context.warnings
    assert expected in warned.what
    assert (warned.line, warned.column, warned.key) == (3, 5 + marked.index("^"), "s.query")


QUIET = (
    "SELECT *, upper(name) AS name FROM t",
    "SELECT * FROM things AS t",
    'SELECT t.* FROM things AS "t" WHERE t.x = 1',
    'SELECT t.* FROM things AS "t" JOIN u ON u.x = t.x',
    "SELECT * FROM t WHERE x != 1 AND x IS NOT NULL",
    "SELECT * FROM t WHERE auth.parameter('r') != 'g' AND y = auth.parameter('r')",
)


@pytest.mark.parametrize("sql", QUIET)
def test_what_is_plain_is_not_warned_of(sql: str) -> None:
    assert of_query(sql).warnings() == []


def test_tables_and_columns_that_the_source_lacks_are_told() -> None:
    tables = {("public", "lists"): {"id": 25, "owner": 25, "size": 23}, ("public", "rows"): {"key": 25}}
    text = dedent("""\
        s:
          with: {lists: SELECT id FROM public.lists WHERE owner = auth.user_id()}
          queries:
            - SELECT * FROM rows WHERE list IN lists
            - SELECT * FROM list
            - SELECT l.* FROM public.lists AS "l" WHERE l.size = 'large'
        """)
    *warned, last = read(text, tables=tables).warnings()
    assert [one.removeprefix("rules.yaml:") for one in warned] == [
        "2:10: s.with.lists: the source has a table lists too; here, lists means this query",
        "4:32: s.queries[0]: rows has no column list; what can stand here: key",
        "4:7: s.queries[0]: rows has no column id; write … AS id",
        "5:21: s.queries[1]: the source has no table list, did you mean lists?",
    ]
    assert last.startswith("rules.yaml:6:49: s.queries[2]: size is integer")


def test_an_unused_query_is_told() -> None:
    found = read("s: {query: SELECT * FROM a, with: {m: SELECT y FROM b}}")
    assert found.warnings() == ["rules.yaml:1:39: s.with.m: nothing refers to this query"]
    assert found.context.dialect == EDITION_3


@pytest.mark.parametrize(
    ("where", "array"),
    [
        ("org IN {}", "auth.parameters() -> 'orgs'"),
        ("id = 'a' AND auth.user_id() IN {}", "members -> 'all'"),
        ("o = auth.user_id() AND 'x' IN {}", "auth.parameters() -> 'roles'"),
        ("o = auth.user_id() AND a IN (SELECT b FROM u WHERE c IN {})", "auth.parameters() -> 'orgs'"),
    ],
)
def test_parentheses_around_an_array_make_no_list_of_it(where: str, array: str) -> None:
    one, other = (of_query(f"SELECT * FROM t WHERE {where.format(what)}") for what in (f"({array})", array))
    assert one.told() == other.told()
    assert one.warnings() == other.warnings() == []
