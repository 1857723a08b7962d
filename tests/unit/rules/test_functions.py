"""Every operator and function comes to the value that existing rules rely on."""

from __future__ import annotations

import itertools
import random

import pytest

from replicator.rules.compute.functions import FUNCTIONS, computing
from replicator.rules.compute.scalars import EvaluationError
from replicator.rules.expression import EDITION_1, EDITION_2, EDITION_3, Dialect, Scalar
from tests.unit.rules.at_hand import Failed, value_of

EDITIONS = (EDITION_1, EDITION_2, EDITION_3)
ROW = {
    "n": None,
    "i": 7,
    "r": 2.5,
    "t": "Anna",
    "b": b"\x01\xff",
    "e": "",
    "smile": "a😀b",
    "big": (1 << 63) - 1,
    "json": '{"a": {"b": [10, {"c": 1.0}]}, "x.y": "dotted", "yes": true, "none": null,'
    ' "big": 9007199254740993}',
    "list": '["a", 1, 2.0, true, null, {"k": 1}]',
    "empty": "[]",
    "when": "2023-03-06T15:47:00.123456Z",
}

SAME_EVERYWHERE = [
    # Comparisons: NULL is neither; no type is converted; null < number < text < blob.
    ("i = 7", 1),
    ("i = 7.0", 1),
    ("i = '7'", 0),
    ("'7' = i", 0),
    ("i < '0'", 1),
    ("t < b", 1),
    ("b = b", 1),
    ("b > 'zzz'", 1),
    ("n = 1", None),
    ("n = n", None),
    ("n < 1", None),
    ("1 >= n", None),
    ("i <= 7", 1),
    ("i > r", 1),
    ("'a' < 'b'", 1),
    ("'Z' < 'a'", 1),
    ("i != 8", 1),
    ("i <> 7", 0),
    ("n IS NULL", 1),
    ("i IS NOT NULL", 1),
    ("n IS DISTINCT FROM NULL", 0),
    ("n IS DISTINCT FROM 1", 1),
    ("i IS NOT DISTINCT FROM 7", 1),
    # AND, OR and NOT know two values.
    ("n AND 1", 0),
    ("n OR 1", 1),
    ("NOT n", 1),
    ("NOT (n = 1)", 1),
    ("NOT i", 0),
    ("'1x' AND 1", 1),
    ("'x1' OR '0.5' OR b OR ''", 0),
    ("' -3' AND '0x1f'", 1),
    ("r AND 1", 1),
    ("0.0 OR 0", 0),
    ("true AND NOT false", 1),
    ("1 IS TRUE", 1),
    ("2 IS TRUE", 0),
    ("n IS TRUE", 0),
    ("n IS NOT TRUE", 1),
    ("0 IS FALSE", 1),
    ("n IS NOT FALSE", 1),
    ("n IS UNKNOWN", 1),
    ("i IS NOT UNKNOWN", 1),
    # Arithmetic.
    ("7 / 2", 3),
    ("-7 / 2", -3),
    ("7 / 2.0", 3.5),
    ("7 / 0", None),
    ("7.5 / 0", None),
    ("7 % 3", 1),
    ("-7 % 3", -1),
    ("7 % 0", None),
    ("7.5 % 2", 1.5),
    ("i + n", None),
    ("big + 1", 9.223372036854775808e18),
    ("big - 1", 9223372036854775806),
    ("-big - 1", -9223372036854775808),
    ("-(-big - 1)", 9.223372036854775808e18),
    ("'12 months' + 1", 13),
    ("'-1.5e1x' * 2", -30.0),
    ("'.5' + 0", 0.5),
    ("t + 1", 1),
    ("+i", 7),
    ("-'3'", -3),
    ("-n", None),
    ("1e308 * 10", float("inf")),
    ("1e308 * 10 - 1e308 * 10", None),
    # Text.
    ("t || 1 || 2.5 || 3.0", "Anna12.53"),
    ("t || n", None),
    ("upper('straße')", "STRASSE"),
    ("lower('ÄB')", "äb"),
    ("upper(n)", None),
    ("length('')", 0),
    ("length(smile)", 4),
    ("length(b)", 2),
    ("length(12.0)", 2),
    ("substring('hello', 2)", "ello"),
    ("substring('hello', 2, 3)", "ell"),
    ("substr('hello', 2, 3)", "ell"),
    ("substring('hello' from 2 for 3)", "ell"),
    ("substring('hello', -3, 2)", "ll"),
    ("substring('hello', 0, 3)", "he"),
    ("substring('hello', 4, -2)", "el"),
    ("substring('hello', 9)", ""),
    ("substring('hello', 2, n)", None),
    ("substring(smile, 4, 1)", "b"),
    ("substring(smile, 2, 1)", "\ufffd"),
    ("instr(t, 'nn')", 2),
    ("instr(smile, 'b')", 4),
    ("instr(t, 'x')", 0),
    ("instr(t, n)", None),
    ("instr(b, b)", 1),
    ("position('n' in t)", 2),
    ("concat(t, n, 1)", "Anna1"),
    ("replace(t, 'n', 'mm')", "Ammmma"),
    ("replace(t, '', 'x')", "Anna"),
    ("replace(t, 'n', n)", None),
    ("trim('  a b ')", "a b"),
    ("trim('xxaxx', 'x')", "a"),
    ("trim(both 'x' from 'xxaxx')", "a"),
    ("trim(leading from ' a ')", "a "),
    ("ltrim(' a ')", "a "),
    ("rtrim(' a ')", " a"),
    ("trim(n)", None),
    # LIKE.
    ("t LIKE 'A%a'", 1),
    ("t LIKE 'a%'", 0),
    ("t ILIKE 'a%'", 1),
    ("t LIKE '_nn_'", 1),
    ("t LIKE 'A'", 0),
    ("t LIKE '%n%n%n%'", 0),
    (r"'5%' LIKE '5\%'", 1),
    (r"'55' LIKE '5\%'", 0),
    ("'a.c' LIKE 'a_c' AND NOT 'abc' LIKE 'a.c'", 1),
    ("e || 'a\nb' LIKE 'a%b'", 1),
    ("n LIKE '%'", None),
    ("t NOT LIKE '%x%'", 1),
    ("12 LIKE '1%'", 1),
    # Choices.
    ("i BETWEEN 7 AND 8", 1),
    ("i NOT BETWEEN 7 AND 8", 0),
    ("i BETWEEN n AND 8", None),
    ("n BETWEEN 1 AND 2", None),
    ("CASE WHEN n THEN 1 WHEN i THEN 2 END", 2),
    ("CASE WHEN n THEN 1 END", None),
    ("CASE i WHEN 7 THEN 'seven' ELSE 'other' END", "seven"),
    ("CASE n WHEN n THEN 1 ELSE 2 END", 2),
    ("iif(i > 3, 'more', 'less')", "more"),
    ("ifnull(n, 2)", 2),
    ("ifnull(n, n, 3)", 3),
    ("coalesce(n, n, t)", "Anna"),
    ("coalesce(n, n)", None),
    ("nullif(i, 7.0)", None),
    ("nullif(i, n)", 7),
    # Lists and arrays.
    ("i IN (1, 7)", 1),
    ("i IN (1, '7')", 0),
    ("i IN (1, NULL)", None),
    ("n IN (1)", None),
    ("i NOT IN (1, 2)", 1),
    ("n NOT IN (1)", 1),
    ("i IN ARRAY[1, 7]", 1),
    ("i IN ROW(1, 2)", 0),
    ("'a' IN list", 1),
    ("1 IN list", 1),
    ("2 IN list", 1),
    ("'1' IN list", 0),
    ("n IN list", None),
    ("i IN n", None),
    ("i IN empty", 0),
    ("i IN '[7]'", 1),
    ("i NOT IN '[7]'", 0),
    ("n IN '[null]'", None),
    ("i IN json", Failed("IN and && need the text of a JSON array")),
    ("i IN i", Failed("IN and && need the text of a JSON array")),
    ("i IN e", Failed("not valid JSON")),
    ("list && '[2, 3]'", 1),
    ("list && ARRAY['b']", 0),
    ("list && '[null]'", 0),
    ("list && n", None),
    # Casts.
    ("CAST(i AS text)", "7"),
    ("2.50::text", "2.5"),
    ("3.0::text", "3"),
    ("0.00001::text", "0.00001"),
    ("1e21::text", "1e+21"),
    ("0.0000001::text", "1e-7"),
    ("'12abc'::integer", 12),
    ("'-12'::int", -12),
    ("'x'::bigint", 0),
    ("-2.7::integer", -2),
    ("(-2.7)::integer", -2),
    ("'99999999999999999999'::integer", 9223372036854775807),
    ("'1.0'::numeric", 1.0),
    ("'1'::numeric", 1),
    ("i::real", 7.0),
    ("'2.5x'::double precision", 2.5),
    ("n::text", None),
    ("t::blob", b"Anna"),
    ("b::text", "\x01\ufffd"),
    # Bytes and types.
    ("hex(b)", "01FF"),
    ("hex('Az')", "417A"),
    ("hex(n)", ""),
    ("base64(b)", "Af8="),
    ("uuid_blob('00000000-0000-0000-0000-0000000000ff')", b"\0" * 15 + b"\xff"),
    ("uuid_blob(n)", None),
    ("uuid_blob(t)", Failed("uuid_blob needs the text of a UUID")),
    ("typeof(n) || typeof(i) || typeof(r) || typeof(t) || typeof(b)", "nullintegerrealtextblob"),
    ("abs(-3)", 3),
    ("abs('-2.5')", 2.5),
    ("round(2.5)", 3.0),
    ("round(-2.5)", -3.0),
    ("round(2.675, 2)", 2.68),
    ("round(7)", 7),
    ("round(n)", None),
]


@pytest.mark.parametrize(("sql", "expected"), SAME_EVERYWHERE)
@pytest.mark.parametrize("dialect", EDITIONS, ids=["edition 1", "edition 2", "edition 3"])
def test_an_operator_means_the_same_in_every_edition(sql: str, expected: object, dialect: Dialect) -> None:
    found = value_of(sql, ROW, dialect)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("n != 'x'", (None, None, 1)),
        ("t != n", (None, None, 1)),
        ("json ->> 'yes'", (1, 1, 1)),
        ("json ->> 'none'", ("null", None, None)),
        ("json ->> 'missing'", (None, None, None)),
        ("json ->> 'a.b.0'", (10, None, None)),
        ("json ->> '$.a.b.0'", (10, 10, 10)),
        ("json ->> '$.a.b[0]'", (10, 10, 10)),
        ("json ->> 'x.y'", (None, "dotted", "dotted")),
        ("json ->> 'none.more'", ("null", None, None)),
        ("json ->> '$.none.more'", ("null", None, None)),
        ("json -> 'none'", ("null", "null", "null")),
        ("json -> 'missing'", (None, None, None)),
        ("json -> 'a' -> 'b' -> 1 ->> 'c'", (1.0, 1.0, 1.0)),
        ("json -> 'a'", ('{"b":[10,{"c":1.0}]}',) * 3),
        ("json ->> 'a'", ('{"b":[10,{"c":1.0}]}',) * 3),
        ("json ->> 'big'", (9007199254740993,) * 3),
        ("'{\"k\": [1, null]}' ->> '$'", ('{"k":[1,null]}',) * 3),
        ("json_extract(json, '$.yes')", (1, 1, 1)),
        ("json_extract(json, '$.none')", ("null", None, None)),
        ("json_array_length(json, '$.a.b')", (2, 2, 2)),
        ("json_array_length(json)", (0, 0, 0)),
        ("json_array_length(list)", (6, 6, 6)),
        ("json_array_length(n)", (None, None, None)),
        ("json_keys(json)", ('["a","x.y","yes","none","big"]',) * 3),
        ("json_keys(n)", (None, None, None)),
        ("json_keys(list)", (Failed("json_keys needs a JSON object"),) * 3),
        ("json_valid(json) AND NOT json_valid(t) AND NOT json_valid(n)", (1, 1, 1)),
        ("json_valid('null')", (1, 1, 1)),
        ("n -> 'a'", (None, None, None)),
        ("json -> n", (None, None, None)),
        ("t ->> 'a'", (Failed("not valid JSON"),) * 3),
        ("json_extract(json, t)", (Failed("a JSON path begins with $."),) * 3),
        ("list -> 5", ('{"k":1}',) * 3),
        ("list -> 6", (None, None, None)),
        ("list -> -1", (None, None, None)),
        ("list ->> 'length'", (None, None, None)),
    ],
)  # fmt: skip
def test_what_the_editions_read_differently(sql: str, values: tuple[object, ...]) -> None:
    assert tuple(value_of(sql, ROW, dialect) for dialect in EDITIONS) == values


def test_the_fixed_json_extract_can_be_had_in_edition_1() -> None:
    assert value_of("json ->> 'none'", ROW, EDITION_1._replace(fixed_json_extract=True)) is None


def test_null_in_an_array_matches_nothing() -> None:
    assert value_of("n IN '[null, 1]'", ROW) is None
    assert value_of("'x' IN '[null, 1]'", ROW) == 0


def test_what_is_not_asked_for_cannot_fail() -> None:
    assert value_of("n AND t ->> 'a'", ROW) == 0
    assert value_of("i OR t ->> 'a'", ROW) == 1
    assert value_of("CASE WHEN n THEN t ->> 'a' ELSE 1 END", ROW) == 1


def test_a_pattern_is_never_slow() -> None:
    many = "%a" * 40
    assert value_of(f"x LIKE '{many}%b'", {"x": "a" * 20_000}) == 0


def test_a_pattern_that_ends_in_its_escape_is_no_pattern() -> None:
    assert value_of("t LIKE p", {"t": "a", "p": "a\\"}) == Failed(
        "a LIKE pattern ends with its escape character"
    )


NASTY: list[Scalar] = [
    None,
    0,
    -1,
    3,
    (1 << 63) - 1,
    -(1 << 63),
    (1 << 64) - 1,
    0.0,
    -2.5,
    123456789.123456789,
    1e308,
    -1e-308,
    float("inf"),
    float("nan"),
    "",
    "9" * 5000,
    "-" + "9" * 301,
    "1e999",
    "-0x1",
    "😀",
    "null",
    "[" * 2000,
    "[" * 500 + "]" * 500,
    '{"a": ' + "[" * 500 + "]" * 500 + "}",
    '["a", {"b": 1e400}]',
    '{"a": {"": [1]}}',
    "$.a[99999999999999999999]",
    "$..a",
    "9999-12-31T23:59:59.999999999Z",
    "0101000000",
    "unixepoch",
    "%\\",
    b"",
    b"\xff\x00",
]


@pytest.mark.parametrize("dialect", [EDITION_1, EDITION_3], ids=["edition 1", "edition 3"])
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_no_value_makes_a_function_fail_in_a_way_of_its_own(
    name: str, dialect: Dialect, rng: random.Random
) -> None:
    function = FUNCTIONS[name]
    for count in range(function.least, (function.most or 3) + 1):
        rows = list(itertools.product(NASTY, repeat=count)) if count < 3 else []
        rows += [tuple(rng.choices(NASTY, k=count)) for _ in range(3000 if count >= 3 else 0)]
        for args in rows:
            try:
                found = computing(name, dialect)(*args)
            except EvaluationError:
                continue
            assert type(found) in (type(None), int, float, str, bytes), (name, args)
            if isinstance(found, str):
                found.encode()  # no half characters


def test_an_error_never_repeats_a_value() -> None:
    for sql in ("x ->> 'a'", "x IN x", "uuid_blob(x)", "json_keys('[1]')", "st_x(x)"):
        found = value_of(sql, {"x": "secret"})
        assert isinstance(found, Failed) and "secret" not in found.why, sql


def test_every_function_is_in_the_tables_above() -> None:
    tables = (
        " ".join(sql for sql, _ in SAME_EVERYWHERE) + "json_extract json_array_length json_keys json_valid"
    )
    elsewhere = {"unixepoch", "datetime", "st_x", "st_y", "st_asgeojson", "st_astext"}
    names = {name for name, function in FUNCTIONS.items() if function.is_called} - elsewhere
    assert {name for name in names if name not in tables} == set()
