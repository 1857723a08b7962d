"""Where what a client sends decides about rows: what the token protects, and what only mentions it."""

from __future__ import annotations

import pytest

from tests.unit.rules.plans import read, refused, warned
from tests.unit.rules.told import of_query

P, Q = "request.parameters() ->> 'x'", "request.parameter('q')"
ME = "request.user_id()"
ROLE = "request.jwt() ->> 'role'"

#: Nothing of the token decides which rows there are.
OPEN = (
    # Nothing of it is there.
    f"SELECT {P} AS x",
    "SELECT user_parameters.x AS x",
    "SELECT value AS x FROM json_each(request.parameters() -> 'xs')",
    f"SELECT id AS x FROM t WHERE code = {Q}",
    f"SELECT id AS x FROM t WHERE a IN (SELECT b FROM u WHERE c = {Q})",
    # It is beside what the client sends, in one value.
    f"SELECT coalesce({P}, {ME}) AS x",
    f"SELECT coalesce({ME}, {P}) AS x",
    f"SELECT ifnull({P}, {ME}) AS x",
    f"SELECT {P} || {ME} AS x",
    f"SELECT iif({ME} IS NULL, {ME}, {P}) AS x",
    f"SELECT CASE WHEN {ME} IS NOT NULL THEN {P} END AS x",
    f"SELECT CASE WHEN {Q} = '1' THEN {ME} ELSE {P} END AS x",
    f"SELECT replace({ME}, {ME}, {P}) AS x",
    f"SELECT id AS x FROM t WHERE owner = coalesce({P}, {ME})",
    # The client says which claim, or what is in it.
    f"SELECT request.jwt() ->> ({P}) AS x",
    f"SELECT request.jwt() -> 'orgs' ->> ({P}) AS x",
    f"SELECT json_extract(request.jwt(), {Q}) AS x",
    f"SELECT id AS x FROM t WHERE owner = request.jwt() ->> ({P})",
    f"SELECT value AS x FROM json_each(request.jwt() -> ({P}))",
    # It is there, and that is all that is asked.
    f"SELECT {P} AS x WHERE {ME} IS NOT NULL",
    f"SELECT {P} AS x WHERE {ROLE} IS NOT NULL",
    f"SELECT {P} AS x WHERE {ME} != ''",
    f"SELECT {P} AS x WHERE {ME} > ''",
    f"SELECT {P} AS x WHERE {ME} LIKE '%'",
    f"SELECT {P} AS x WHERE length({ME}) > 0",
    f"SELECT {P} AS x WHERE typeof({ME}) = 'text'",
    f"SELECT {P} AS x WHERE {ME} = {ME}",
    f"SELECT {P} AS x WHERE request.jwt() ->> 'sub' = {ME}",
    f"SELECT {P} AS x WHERE request.jwt() ->> 'aud' = 'app'",
    f"SELECT {P} AS x WHERE request.jwt() ->> 'iss' IN ('a', 'b')",
    f"SELECT {P} AS x WHERE request.jwt() ->> 'exp' > 0",
    f"SELECT {P} AS x WHERE {ROLE} = 'authenticated'",
    f"SELECT {P} AS x WHERE {ROLE} IN ('admin', 'authenticated')",
    f"SELECT {P} AS x WHERE coalesce({ROLE}, 'admin') = 'admin'",
    f"SELECT {P} AS x WHERE NOT ({ROLE} = 'guest')",
    f"SELECT {P} AS x WHERE {ROLE} != 'guest'",
    f"SELECT {P} AS x WHERE {ROLE} = 'admin' OR {Q} = '1'",
    f"SELECT {P} AS x WHERE {ROLE} = 'admin' OR {ME} IS NOT NULL",
    f"SELECT {P} AS x WHERE {ROLE} = {Q}",
    f"SELECT {P} AS x WHERE {ME} = 'a' OR {Q} = 'b'",
    f"SELECT {P} AS x, {ME} IS NOT NULL AS y",
    f"SELECT {P} AS x, typeof({ME}) AS y",
    f"SELECT {P} AS x, length({ME}) AS y",
    f"SELECT {P} AS x, CASE WHEN {ME} IS NULL THEN 'a' ELSE 'b' END AS y",
    f"SELECT id AS x FROM t WHERE owner = {P} AND {ME} IS NOT NULL",
    f"SELECT id AS x FROM t WHERE owner = {P} AND typeof({ME}) = kind",
    # It reads like the user, and is the same for everybody.
    f"SELECT {P} AS x, coalesce('public', {ME}) AS y",
    f"SELECT {P} AS x, substring({ME}, 1, 0) AS y",
    f"SELECT {P} AS x, {ME} * 0 AS y",
    f"SELECT {P} AS x, nullif({ME}, {ME}) AS y",
    f"SELECT {P} AS x, iif({ME} IS NOT NULL, 'all', {ME}) AS y",
    f"SELECT {P} AS x, upper(coalesce('all', request.jwt() ->> 'org')) AS y",
    f"SELECT id AS x FROM t WHERE a = {P} AND owner = coalesce('public', {ME})",
    f"SELECT id AS x FROM t WHERE a = {P} AND substring(owner, 1, 0) = substring({ME}, 1, 0)",
    f"SELECT id AS x FROM t WHERE a = {P} AND substring(owner, 1, 0) = {ME}",
    f"SELECT {P} AS x, value AS y FROM json_each(request.jwt())",
    # The client says who it is, or who else is.
    f"SELECT {P} AS x WHERE {ME} = {Q}",
    f"SELECT {P} AS x WHERE {ME} IN request.parameters() -> 'lists'",
    f"SELECT WHERE {ME} IN request.parameters() -> 'lists'",
    f"SELECT id AS x FROM t WHERE owner = {P} AND {ME} IN request.parameters() -> 'lists'",
    f"SELECT value AS x FROM json_each(request.parameters() -> 'xs') WHERE {ME} = key",
    f"SELECT value AS x FROM json_each(request.parameters() -> 'xs')"
    f" WHERE 'a' IN (SELECT c FROM u WHERE request.parameters() -> 'xs' && cs AND d = {Q})",
    f"SELECT {P} AS x WHERE (request.jwt() -> 'orgs') && (request.parameters() -> 'orgs')",
)
#: The token decides who may ask, and a client which rows: told, and accepted.
GATED = (
    f"SELECT {P} AS x WHERE {ROLE} = 'admin'",
    f"SELECT {P} AS x WHERE 'admin' = {ROLE}",
    f"SELECT {P} AS x WHERE {Q} = 'a' AND {ROLE} = 'admin'",
    f"SELECT {P} AS x WHERE {ROLE} IN ('admin', 'nurse')",
    f"SELECT {P} AS x WHERE coalesce({ROLE}, 'none') = 'admin'",
    f"SELECT {P} AS x WHERE 'admin' IN request.jwt() -> 'roles'",
    f"SELECT {P} AS x WHERE request.jwt() -> 'app_metadata' ->> 'is_admin'",
    f"SELECT {P} AS x WHERE token_parameters.is_admin IS TRUE",
    f"SELECT {P} AS x WHERE request.jwt() ->> 'level' >= 3",
    f"SELECT {P} AS x WHERE request.jwt() ->> 'email' LIKE '%@clinic.example'",
    f"SELECT {P} AS x WHERE {ROLE} = 'admin' OR {ME} = 'u1'",
    f"SELECT {P} AS x WHERE {ROLE} = 'admin' AND {ME} IS NOT NULL",
    f"SELECT id AS x FROM t WHERE code = {Q} AND {ROLE} = 'admin'",
    # What the row of the user says, and others' too.
    f"SELECT {P} AS x, key AS y FROM json_each(request.jwt() -> 'orgs')",
)
#: Which rows there are follows from the token, or not from what a client sends.
BOUND = (
    f"SELECT {ME} AS x WHERE {Q} = '2'",
    f"SELECT {ME} AS x WHERE ifnull({P}, '1') = '1'",
    f"SELECT {P} AS x, {ME} AS y",
    f"SELECT {P} AS x, upper({ME}) AS y",
    f"SELECT {P} AS x, coalesce(request.jwt() ->> 'org', {ME}) AS y",
    f"SELECT {P} AS x, CASE WHEN {ROLE} = 'a' THEN {ME} END AS y",
    f"SELECT value AS x, {ME} AS y FROM json_each(request.parameters() -> 'xs')",
    f"SELECT {P} AS x WHERE {P} = {ME}",
    f"SELECT {P} AS x WHERE {P} IN request.jwt() -> 'orgs'",
    f"SELECT upper({P}) AS x WHERE {P} = {ME}",
    f"SELECT value AS x FROM json_each(request.parameters() -> 'xs') WHERE value = {ME}",
    "SELECT value AS x FROM json_each(request.parameters() -> 'xs') WHERE value IN request.jwt() -> 'orgs'",
    f"SELECT value AS x FROM json_each(request.jwt() -> 'orgs') WHERE value = {P}",
    f"SELECT id AS x FROM t WHERE a = {P} AND owner = {ME}",
    f"SELECT id AS x FROM t WHERE a = {P} AND {ME} IN members",
    f"SELECT id AS x FROM t WHERE a = {P} AND org IN request.jwt() -> 'orgs'",
    f"SELECT id AS x FROM t WHERE a = {P} AND b IN (SELECT c FROM u WHERE d = {ME})",
    f"SELECT id AS x FROM t WHERE owner = {P} AND {P} = {ME}",
    f"SELECT {P} AS x WHERE {P} IN (SELECT c FROM u WHERE d = {ME})",
    "SELECT id AS x FROM t WHERE public = 1",
    f"SELECT WHERE {Q} = 'a' AND {ROLE} = 'admin'",
    f"SELECT FROM t WHERE code = {Q} AND owner = {ME}",
    f"SELECT {P} AS x, CAST({ME} AS INTEGER) AS y",
    f"SELECT {P} AS x, substring({ME}, 1, 8) AS y",
    f"SELECT {P} AS x, 'user:' || {ME} AS y",
    f"SELECT {P} AS x, {ME} * 1 AS y",
    f"SELECT {P} AS x, value AS y FROM json_each(request.jwt() -> 'orgs')",
    f"SELECT id AS x FROM t WHERE a = {P} AND lower(owner) = lower({ME})",
)


def data(parameters: str) -> str:
    names = "xy" if " AS y" in parameters else "x" if " AS x" in parameters else ""
    where = " AND ".join(f"{name} = bucket.{name}" for name in names)
    return f"SELECT * FROM t WHERE {where}" if where else "SELECT * FROM t"


@pytest.mark.parametrize("sql", OPEN)
@pytest.mark.parametrize("top", ["", "config: {edition: 2}\n"])
def test_a_token_that_is_only_mentioned_does_not_protect(sql: str, top: str) -> None:
    [problem] = refused(sql, data(sql), top=top)
    assert "these buckets depend only on what a client sends" in problem
    assert "accept_potentially_dangerous_queries: true" in problem
    accepted = "    accept_potentially_dangerous_queries: true"
    assert read(sql, data(sql), top=top, extra=accepted).definitions


@pytest.mark.parametrize("sql", GATED)
def test_a_token_that_says_who_may_ask_is_told_of(sql: str) -> None:
    whys = warned(sql, data(sql))
    assert [why for why in whys if "whoever the token lets in gets whichever of these rows" in why], whys
    accepted = "    accept_potentially_dangerous_queries: true"
    assert not [why for why in warned(sql, data(sql), extra=accepted) if "lets in" in why]


@pytest.mark.parametrize("sql", BOUND)
def test_a_token_that_decides_about_rows_protects(sql: str) -> None:
    assert not [why for why in warned(sql, data(sql)) if "lets in" in why]


ORG = f"{P} AS org"
#: What the rows of somebody's organisation are; the token stands against what no row says.
HELD_OPEN = (
    (f"SELECT {ROLE} AS r, {ORG}", "bucket.r = 'authenticated'"),
    (f"SELECT {ROLE} AS r, {ORG}", "'authenticated' = bucket.r"),
    (f"SELECT {ROLE} AS r, {ORG}", "bucket.r IN ('admin', 'authenticated')"),
    (f"SELECT {ROLE} AS r, {ORG}", "(bucket.r = 'admin' OR bucket.r = 'authenticated')"),
    (f"SELECT {ROLE} AS r, {ORG}", """bucket.r IN '["authenticated"]'"""),
    (f"SELECT {ROLE} AS r, {ORG}", "bucket.r = iif(1 = 1, 'authenticated', 'x')"),
    (f"SELECT {ROLE} AS r, {ORG}", "bucket.r = iif(a IS NULL, 'authenticated', 'x')"),
    (f"SELECT {ME} IS NOT NULL AS r, {ORG}", "bucket.r = 1"),
    (f"SELECT {ROLE} AS r, {ORG}", "id IN (SELECT doc FROM m WHERE bucket.r = 'authenticated')"),
    (f"SELECT request.jwt() ->> 'aud' AS r, {ORG}", "bucket.r = 'app'"),
    (f"SELECT request.jwt() ->> 'aud' AS r, {ORG}", "bucket.r = kind"),
    (f"SELECT request.jwt() -> 'aud' ->> 0 AS r, {ORG}", "bucket.r = kind"),
    (f"SELECT request.jwt() ->> '$.iss' AS r, {ORG}", "bucket.r IN kinds"),
    (f"SELECT upper(request.jwt() ->> 'iss') AS r, {ORG}", "1 IN (SELECT a FROM m WHERE b = bucket.r)"),
    (f"SELECT id AS r, {ORG} FROM m WHERE a = request.jwt() ->> 'iat'", "bucket.r = kind"),
    (f"SELECT id AS r, {ORG} FROM m WHERE a IN request.jwt() -> 'aud'", "bucket.r = kind"),
    (f"SELECT value AS r, {ORG} FROM json_each(request.jwt() -> 'aud')", "bucket.r = kind"),
)
HELD_GATED = (
    (f"SELECT {ROLE} AS r, {ORG}", "bucket.r = 'admin'"),
    (f"SELECT {ROLE} AS r, {ORG}", "bucket.r IN ('admin', 'nurse')"),
    (f"SELECT {ROLE} AS r, {ORG}", """bucket.r IN '["admin"]'"""),
    (f"SELECT {ROLE} AS r, {ORG}", "(bucket.r = 'admin' OR bucket.r = 'nurse')"),
    (f"SELECT {ROLE} AS r, {ORG}", "bucket.r = kind"),
    (f"SELECT {ROLE} AS r, {ORG}", "bucket.r IN kinds"),
    (f"SELECT {ME} AS r, {ORG}", """bucket.r IN '["me"]'"""),
    (f"SELECT {ME} AS r, {ORG}", "bucket.r = 'me'"),
    (f"SELECT {ME} AS r, {ORG}", "1 IN (SELECT active FROM users WHERE id = bucket.r)"),
    (f"SELECT {ME} AS r, {ORG}", "(owner = bucket.r OR bucket.r = 'me')"),
    (f"SELECT {ME} AS r, {ORG}", "id IN (SELECT doc FROM m WHERE bucket.r = 'me')"),
    (f"SELECT role AS r, {ORG} FROM m WHERE who = {ME}", "bucket.r = 'admin'"),
    (f"SELECT role AS r, {ORG} FROM m WHERE who = {ME}", "bucket.r = 'authenticated'"),
    (f"SELECT id AS r, {ORG} FROM m WHERE role = {ROLE}", "bucket.r = kind"),
    (f"SELECT id AS r, {ORG} FROM m WHERE role IN request.jwt() -> 'roles'", "bucket.r = kind"),
)
HELD_BOUND = (
    (f"SELECT {ME} AS r, {ORG}", "bucket.r = owner"),
    (f"SELECT {ME} AS r, {ORG}", "bucket.r = upper(owner)"),
    (f"SELECT {ME} AS r, {ORG}", "bucket.r IN owners"),
    (f"SELECT {ME} AS r, {ORG}", "bucket.r = owner AND bucket.r = 'me'"),
    (f"SELECT {ME} AS r, {ORG}", "team IN (SELECT team FROM users WHERE id = bucket.r)"),
    (f"SELECT {ME} AS r, {ORG}", "(owner = bucket.r OR team IN (SELECT team FROM u WHERE id = bucket.r))"),
    (f"SELECT {ME} AS r, {ORG}", "bucket.r = iif(owner IS NULL, author, owner)"),
    (f"SELECT id AS r, {ORG} FROM m WHERE who = {ME}", "bucket.r = team"),
    (f"SELECT id AS r, {ORG} FROM m WHERE who = {ME} AND role = {ROLE}", "bucket.r = team"),
)


def of_org(where: str) -> str:
    return f"SELECT * FROM docs WHERE org = bucket.org AND {where}"


@pytest.mark.parametrize(("sql", "where"), HELD_OPEN)
def test_a_token_that_is_held_against_what_no_row_says_does_not_protect(sql: str, where: str) -> None:
    [problem] = refused(sql, of_org(where))
    assert "these buckets depend only on what a client sends" in problem
    accepted = "    accept_potentially_dangerous_queries: true"
    assert read(sql, of_org(where), extra=accepted).definitions


@pytest.mark.parametrize(("sql", "where"), HELD_GATED)
def test_a_value_held_against_what_only_lets_in_is_told_of(sql: str, where: str) -> None:
    whys = warned(sql, of_org(where))
    assert [why for why in whys if "whoever the token lets in gets whichever of these rows" in why], whys


@pytest.mark.parametrize(("sql", "where"), HELD_BOUND)
def test_a_value_that_rows_must_have_protects(sql: str, where: str) -> None:
    assert not [why for why in warned(sql, of_org(where)) if "lets in" in why]


def test_every_data_query_counts() -> None:
    sql = f"SELECT {ROLE} AS r, {ME} AS u, {ORG}"
    good = of_org("owner = bucket.u AND bucket.r = 'authenticated'")
    bad = of_org("'me' = bucket.u AND bucket.r = 'authenticated'")
    assert not [why for why in warned(sql, good, good) if "lets in" in why]
    assert [why for why in warned(sql, good, bad) if "lets in" in why]


def test_what_tables_are_called_is_what_rows_say_where_there_may_be_several() -> None:
    sql = f"SELECT request.jwt() ->> 'tenant' AS r, {ORG}"
    many = 'SELECT * FROM "docs_%" WHERE org = bucket.org AND bucket.r = table_suffix'
    assert not [why for why in warned(sql, many) if "lets in" in why]


def test_queries_that_select_in_another_order_are_held_against_the_same() -> None:
    queries = [f"SELECT {ROLE} AS r, {ORG}", f"SELECT {ORG}, {ROLE} AS r"]
    problems = refused(queries, of_org("bucket.r = 'authenticated'"))
    assert [problem.split(": ")[1] for problem in problems] == ["d.parameters[0]", "d.parameters[1]"]


X = "connection.parameter('x')"
S = "subscription.parameter('s')"
I = "auth.user_id()"  # noqa: E741  # who asks

OPEN_STREAMS = (
    f"SELECT * FROM a WHERE x = {X}",
    f"SELECT * FROM a WHERE x = {I} OR x = {S}",
    f"SELECT * FROM a WHERE x IN (SELECT y FROM b WHERE z = {S})",
    f"SELECT * FROM a WHERE x = {X} AND {I} IS NOT NULL",
    f"SELECT * FROM a WHERE x = ifnull({X}, {I})",
    f"SELECT * FROM a WHERE x = CASE WHEN {I} IS NULL THEN {I} ELSE {X} END",
    f"SELECT * FROM a WHERE x = auth.parameter({X})",
    f"SELECT * FROM a WHERE x = auth.parameters() ->> {S}",
    f"SELECT * FROM a WHERE x IN (SELECT y FROM b WHERE z = {X}) AND length({I}) > 0",
    f"SELECT * FROM a WHERE {S} = {I}",
    f"SELECT * FROM a WHERE x = {X} AND {S} = {I}",
    f"SELECT * FROM a WHERE {I} IN connection.parameters() -> 'lists'",
    f"SELECT * FROM a WHERE x = {X} AND {I} IN connection.parameters() -> 'lists'",
    "SELECT * FROM a WHERE x IN connection.parameters() -> 'lists'",
    f"SELECT a.* FROM a, b WHERE a.x = b.x AND b.y = {X}",
    f"SELECT * FROM a WHERE x = {X} AND auth.parameter('aud') = 'app'",
    f"SELECT * FROM a WHERE x = {X} AND NOT auth.parameter('r') = 'guest'",
    f"SELECT * FROM a WHERE x = {X} AND kind = auth.parameter('aud')",
    f"SELECT * FROM a WHERE x = {X} AND kind IN auth.parameters() -> 'aud'",
    f"SELECT * FROM a WHERE x = {X} AND x IN (SELECT y FROM b WHERE z = auth.parameter('iss'))",
)
GATED_STREAMS = (
    f"SELECT * FROM a WHERE x = {X} AND auth.parameter('r') = 'admin'",
    f"SELECT * FROM a WHERE x = {X} AND {I} IN (SELECT who FROM admins)",
    f"SELECT * FROM a WHERE x = {X} AND 'admin' IN auth.parameters() -> 'roles'",
    f"SELECT * FROM a WHERE x = {X} AND kind = auth.parameter('role')",
    f"SELECT * FROM a WHERE x = {X} AND kind IN auth.parameters() -> 'roles'",
    f"SELECT * FROM a WHERE x = {X} AND 1 IN (SELECT active FROM users WHERE id = {I})",
)
BOUND_STREAMS = (
    f"SELECT * FROM a WHERE x = {S} AND y = {I}",
    f"SELECT * FROM a WHERE x = {S} AND x = {I}",
    f"SELECT * FROM a WHERE x = {S} AND {S} = {I}",
    f"SELECT * FROM a WHERE x = {S} AND {S} IN auth.parameters() -> 'orgs'",
    f"SELECT * FROM a WHERE x = {S} AND x IN auth.parameters() -> 'orgs'",
    f"SELECT * FROM a WHERE x = {S} AND {I} IN members",
    f"SELECT * FROM a WHERE x = {S} AND x IN (SELECT y FROM b WHERE z = {I})",
    f"SELECT * FROM a WHERE x = {S} AND {S} IN (SELECT y FROM b WHERE z = {I})",
    f"SELECT * FROM a WHERE x IN (SELECT y FROM b WHERE z = {S} AND w = {I})",
    f"SELECT a.* FROM a, b, c WHERE a.x = b.x AND b.y = {X} AND a.z = c.z AND c.w = {I}",
    f"SELECT a.* FROM a, b, c WHERE a.x = b.x AND b.y = {X} AND b.z = c.z AND c.w = {I}",
    f"SELECT a.* FROM a, b WHERE a.x = b.x AND b.y = {X} AND b.z = {I}",
    f"SELECT * FROM a WHERE x = ifnull(auth.parameter('org'), {I}) AND y = {S}",
    f"SELECT * FROM a WHERE {S} = '2' AND x = {I}",
    f"SELECT * FROM a WHERE {S} = '2' AND auth.parameter('r') = 'admin'",
)


@pytest.mark.parametrize("sql", OPEN_STREAMS)
@pytest.mark.parametrize("edition", [2, 3])
def test_a_stream_that_only_mentions_the_token_is_refused(sql: str, edition: int) -> None:
    [problem] = of_query(sql.replace("*", "id", 1) if "a.*" not in sql else sql, edition).problems()
    assert "these buckets depend only on what a client sends" in problem
    assert not of_query(sql, edition, accept_potentially_dangerous_queries="true").problems()


@pytest.mark.parametrize("sql", GATED_STREAMS)
def test_a_stream_that_asks_who_may_ask_is_told_of(sql: str) -> None:
    found = of_query(sql)
    assert found.problems() == []
    [told] = found.warnings()
    assert "whoever the token lets in gets whichever of these rows" in told


@pytest.mark.parametrize("sql", BOUND_STREAMS)
def test_a_stream_whose_rows_the_token_decides_is_quiet(sql: str) -> None:
    found = of_query(sql)
    assert (found.problems(), found.warnings()) == ([], [])
