"""Lists, arrays, and values that Postgres writes in one way only: what nothing is equal to is told."""

from __future__ import annotations

import json

import pytest

from replicator.rules.parse import parse_rules
from tests.unit.rules.plans import warned, written
from tests.unit.rules.told import read

COLUMNS = {
    "id": 25, "owner": 25, "owners": 1009, "numbers": 1007, "json": 3802, "number": 23, "code": 1042,
    "codes": 1014, "uuid": 2950, "uuids": 2951, "members": 3802,
}  # fmt: skip
TABLES = {("public", "t"): COLUMNS}
BIG = "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"
SMALL = BIG.lower()
UUID = "is uuid in the source, which is written in small letters and with hyphens here"
CHAR = "is char(n) in the source: its values are filled up with blanks to that length"


def of_definition(where: str, looked: bool = True) -> list[str]:
    """What is told of a data query whose one parameter is the user's id, x."""
    query = f"SELECT * FROM t WHERE {where}"
    return warned("SELECT request.user_id() AS x", query, tables=TABLES if looked else None)


def of_stream(where: str, looked: bool = True) -> list[str]:
    query = json.dumps(f"SELECT * FROM t WHERE {where}")
    return read(f"s:\n  query: {query}", tables=TABLES if looked else None).warnings()


@pytest.mark.parametrize("column", ["owners", "json", "owner"])
def test_one_thing_in_parentheses_is_no_list(column: str) -> None:
    one, other = (
        parse_rules(written("SELECT request.user_id() AS x", f"SELECT * FROM t WHERE {where}"), "f", TABLES)
        for where in (f"bucket.x IN ({column})", f"bucket.x IN {column}")
    )
    assert [v.data[0].terms for v in one.variants()] == [v.data[0].terms for v in other.variants()]
    assert one.warnings == other.warnings == ()


@pytest.mark.parametrize("listed", ["bucket.x", "'a'", "lower(owner)", "owner, id"])
def test_what_is_no_array_is_a_list_in_parentheses(listed: str) -> None:
    [where] = [f"owner IN ({listed})" if listed == "bucket.x" else f"bucket.x = id AND owner IN ({listed})"]
    assert of_definition(where) == []


@pytest.mark.parametrize("column", ["number", "uuid", "code"])
def test_members_of_what_is_no_array_are_told_of(column: str) -> None:
    for where in (f"{column}", f"({column})"):
        for told in (of_definition(f"bucket.x IN {where}"), of_stream(f"auth.user_id() IN {where}")):
            assert [
                f"{column} is no array, and so has no members; write = {column}" in one for one in told
            ] == [True]
        assert of_stream(f"auth.user_id() IN {where}", looked=False) == []


@pytest.mark.parametrize("looked", [True, False])
@pytest.mark.parametrize("listed", ["IN (owner, id)", "= owner", "IN owners"])
def test_what_is_plainly_a_list_or_an_array_is_not_told_of(listed: str, looked: bool) -> None:
    assert of_definition(f"bucket.x {listed}", looked) == []
    assert of_stream(f"auth.user_id() {listed}", looked) == []


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("auth.user_id() IN numbers", "is text and a member of numbers is integer: these are never equal"),
        ("owner = auth.user_id() AND owner IN numbers", "never equal; cast it: owner::integer"),
        ("owner = auth.user_id() AND '5' IN numbers", "never equal; compare with a number"),
        ("owner = auth.user_id() AND number IN owners", "never equal; cast it: number::text"),
        ("owner = auth.user_id() AND 5 IN owners", "never equal; compare with text"),
        (
            "owner = auth.user_id() AND numbers && owners",
            "a member of numbers is integer and one of owners is",
        ),
    ],
)
def test_members_that_nothing_equals_are_told_of(where: str, said: str) -> None:
    assert [said in one for one in of_stream(where)] == [True]
    assert of_stream(where, looked=False) == []


def test_a_parameter_that_no_member_equals_is_told_of() -> None:
    [told] = of_definition("bucket.x IN numbers")
    assert "a member of numbers is integer and bucket.x is text: these are never equal; write" in told
    assert of_definition("bucket.x::text IN numbers") == of_definition("bucket.x IN owners") == []
    [told] = warned(
        "SELECT id AS x FROM t WHERE request.user_id() IN numbers",
        "SELECT * FROM t WHERE id = bucket.x",
        tables=TABLES,
    )
    assert "a member of numbers is integer: these are never equal" in told


@pytest.mark.parametrize("where", ["numbers && '[1]'", "1 IN numbers", "owner IN owners", "owner IN json"])
def test_members_that_may_be_equal_are_not_told_of(where: str) -> None:
    assert of_stream(f"owner = auth.user_id() AND {where}") == []


@pytest.mark.parametrize(
    "where",
    [
        f"uuid = {BIG}",
        f"{BIG} = uuid",
        f"uuid IS DISTINCT FROM {BIG}",
        f"uuid IN ({SMALL}, {BIG})",
        f"uuid IN '[\"{BIG[1:-1]}\"]'",
        f"{BIG} IN uuids",
        "uuid = 'a0eebc999c0b4ef8bb6d6bb9bd380a11'",
        "uuid = 'nobody'",
    ],
)
def test_a_text_that_no_uuid_is_written_as_is_told_of(where: str) -> None:
    [told] = of_stream(f"owner = auth.user_id() AND {where}")
    assert UUID in told and "A0EE" not in told
    [told] = of_definition(f"bucket.x = owner AND {where}")
    assert UUID in told
    assert of_stream(f"owner = auth.user_id() AND {where}", looked=False) == []


@pytest.mark.parametrize("where", [f"uuid = {SMALL}", "uuid = id", f"{SMALL} IN uuids", f"owner = {BIG}"])
def test_a_text_that_a_uuid_may_be_written_as_is_not(where: str) -> None:
    assert of_stream(f"owner = auth.user_id() AND {where}") == []


@pytest.mark.parametrize("where", ["code = 'a'", "code IN ('a', 'b')", "code = owner", "'a' IN codes"])
def test_what_is_filled_up_with_blanks_is_told_of(where: str) -> None:
    [told] = of_stream(f"owner = auth.user_id() AND {where}")
    assert CHAR in told
    assert [CHAR in one for one in of_stream("code = auth.user_id()")] == [True]
    assert [CHAR in one for one in of_definition("code = bucket.x")] == [True]


@pytest.mark.parametrize("where", ["rtrim(code) = 'a'", "code = 'a  '", "code = code", "code IS NULL"])
def test_what_is_filled_up_on_both_sides_is_not(where: str) -> None:
    assert of_stream(f"owner = auth.user_id() AND {where}") == []
