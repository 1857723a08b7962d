"""What clients have of a value, type by type and edition by edition."""

from __future__ import annotations

import json
from typing import Any

import pytest

from replicator.rules.columns.types import BUILT_IN, Types
from replicator.rules.columns.values import encoder, json_of, kind_of, printed, quote, scalar, text_id
from replicator.rules.compute.code import Code
from replicator.rules.expression import EDITION_1, EDITION_2, EDITION_3, Dialect, Scalar
from replicator.wal.messages import UNCHANGED, Column, Value
from replicator.wal.types import Attribute, Type

ISO_ONLY = EDITION_1._replace(timestamps_iso8601=True)
CUSTOM_ONLY = EDITION_1._replace(custom_postgres_types=True)

#: What a database could have defined.
COUNT, COUNTS, FLAG, MOMENT, BYTES, LISTS = range(20_000, 20_006)
PLACE, PLACES, NOTE, SPAN, MOOD, MOODS, HOLLOW, DEEP = range(20_010, 20_018)
TYPES = BUILT_IN.with_types(
    [
        Type(COUNT, "domain", 23),
        Type(COUNTS, "array", COUNT),
        Type(FLAG, "domain", 16),
        Type(MOMENT, "domain", 1184),
        Type(BYTES, "domain", 17),
        Type(LISTS, "domain", 1009),
        Type(PLACE, "composite", 0, ",", (Attribute("x y", 701), Attribute('"', 25), Attribute("on", 16))),
        Type(PLACES, "array", PLACE),
        Type(NOTE, "composite", 0, ",", (Attribute("place", PLACE), Attribute("tags", 1009))),
        Type(SPAN, "range", 25),
        Type(MOOD, "enum"),
        Type(MOODS, "array", MOOD),
        Type(HOLLOW, "composite"),
    ]
)


def data(oid: int, text: Value, dialect: Dialect, types: Types = TYPES) -> Any:
    """What a client reads; `missing` where the column is left out."""
    row = encoder((Column("v", oid, -1, False),), dialect, types)((text,))
    read: dict[str, Any] = json.loads(row, parse_constant=pytest.fail)
    return read.get("v", "missing")


def value(oid: int, text: str | None, dialect: Dialect, types: Types = TYPES) -> Scalar:
    """What an expression has of it."""
    code = Code()
    source = scalar(code, oid, "row[0]", dialect, types)
    found: Scalar = code.function("row", [f"return {source}"])((text,))
    return found


def shown(oid: int, text: Value, dialect: Dialect, types: Types = TYPES) -> Any:
    """What a column alone is printed as."""
    code = Code()
    source = json_of(code, oid, "row[0]", dialect, types)
    return "missing" if source is None else json.loads(code.function("row", [f"return {source}"])((text,)))


def show_value(of: Scalar) -> str:
    code = Code()
    made: str = code.function("v", [f"return {printed(code, 'v')}"])(of)
    return made


#: Type, text, and what clients have: in every edition, or of (edition 1, editions since).
CASES: list[tuple[int, str, Any]] = [
    (16, "t", 1),
    (16, "f", 0),
    (20, "9223372036854775807", 2**63 - 1),
    (20, "-9223372036854775808", -(2**63)),
    (21, "-7", -7),
    (23, "0", 0),
    (26, "4294967295", 4294967295),
    (700, "3.14", 3.14),
    (701, "314", 314.0),
    (701, "-0", -0.0),
    (701, "1e+300", 1e300),
    (701, "1e-07", 1e-07),
    (701, "NaN", None),
    (701, "Infinity", None),
    (701, "-Infinity", None),
    (1700, "1.50", "1.50"),
    (1700, "123456789012345678901234567890.10", "123456789012345678901234567890.10"),
    (1700, "NaN", "NaN"),
    (1700, "-Infinity", "-Infinity"),
    (790, "$1,000.00", "$1,000.00"),
    (25, 'a "b" \\ \n\t\x01 Zoë 東京 🩺 </', 'a "b" \\ \n\t\x01 Zoë 東京 🩺 </'),
    (25, "", ""),
    (1043, "x", "x"),
    (1042, "x   ", "x   "),
    (18, '"', '"'),
    (19, "{name}", "{name}"),
    (2950, "8c0f1d1e-0000-4000-8000-000000000001", "8c0f1d1e-0000-4000-8000-000000000001"),
    (869, "10.0.0.1/8", "10.0.0.1/8"),
    (1560, "0101", "0101"),
    (1186, "1 year 2 mons -00:00:01.5", "1 year 2 mons -00:00:01.5"),
    (1266, "12:13:14+02", "12:13:14+02"),
    (3614, "'a':1 'b''c':2", "'a':1 'b''c':2"),
    (114, '{ "a" : 1,\n "a": "\\u00e9" }', '{ "a" : 1,\n "a": "\\u00e9" }'),
    (3802, '{"a": 1e400}', '{"a": 1e400}'),
    (3220, "16/B374D848", "00000016/B374D848"),
    (3220, "FFFFFFFF/0", "FFFFFFFF/00000000"),
    (987_654, 'of "whom" nobody knows', 'of "whom" nobody knows'),
    (MOOD, 'so "so"', 'so "so"'),
    # Dates and times
    (1082, "2026-03-06", "2026-03-06"),
    (1082, "infinity", "9999-12-31"),
    (1082, "-infinity", "0000-01-01"),
    (1082, "0044-03-15 BC", "0044-03-15 BC"),
    (1083, "15:47:00", ("15:47:00", "15:47:00.000000")),
    (1083, "12:13:14.5", ("12:13:14.5", "12:13:14.500000")),
    (1083, "24:00:00", ("24:00:00", "24:00:00.000000")),
    (1114, "2023-03-06 15:47:00", ("2023-03-06 15:47:00", "2023-03-06T15:47:00.000000")),
    (1114, "2023-03-06 15:47:00.12", ("2023-03-06 15:47:00.12", "2023-03-06T15:47:00.120000")),
    (1114, "12023-03-06 15:47:00.1", ("12023-03-06 15:47:00.1", "12023-03-06T15:47:00.100000")),
    (1114, "infinity", ("9999-12-31 23:59:59", "9999-12-31T23:59:59.000000")),
    (1114, "-infinity", ("0000-01-01 00:00:00", "0000-01-01T00:00:00.000000")),
    (1114, "0044-03-15 12:00:00 BC", None),
    (1184, "2023-03-06 13:47:00+00", ("2023-03-06 13:47:00Z", "2023-03-06T13:47:00.000000Z")),
    (1184, "2023-03-06 13:47:00.12345+00", ("2023-03-06 13:47:00.12345Z", "2023-03-06T13:47:00.123450Z")),
    (1184, "2023-03-06 13:47:00.123456+00", ("2023-03-06 13:47:00.123456Z", "2023-03-06T13:47:00.123456Z")),
    (1184, "2023-03-06 15:47:00.5+02", ("2023-03-06 13:47:00.5Z", "2023-03-06T13:47:00.500000Z")),
    (1184, "2023-03-06 00:00:00-11:30", ("2023-03-06 11:30:00Z", "2023-03-06T11:30:00.000000Z")),
    (1184, "1880-01-01 00:00:00+00:19:32", ("1879-12-31 23:40:28Z", "1879-12-31T23:40:28.000000Z")),
    (1184, "0022-09-08 21:19:28+00", ("0022-09-08 21:19:28Z", "0022-09-08T21:19:28.000000Z")),
    (1184, "infinity", ("9999-12-31 23:59:59Z", "9999-12-31T23:59:59.000000Z")),
    (1184, "-infinity", ("0000-01-01 00:00:00Z", "0000-01-01T00:00:00.000000Z")),
    (1184, "10022-09-08 21:19:28+00", None),
    (1184, "10022-09-08 21:19:28.12345+00", None),
    (1184, "10022-09-08 21:19:28.123456+00", None),
    (1184, "9999-12-31 23:59:59-02", None),
    (1184, "0044-03-15 12:00:00+00 BC", None),
    # Arrays of built-in types
    (1007, "{}", "[]"),
    (1007, "{1,NULL,-3}", "[1,null,-3]"),
    (1016, "{9007199254740993}", "[9007199254740993]"),
    (1007, "{{1,2},{3,4}}", "[[1,2],[3,4]]"),
    (1007, "{{{{{{1}}}}}}", "[[[[[[1]]]]]]"),
    (1007, "[0:1]={1,2}", "[1,2]"),
    (1007, "[-3:-2][5:5]={{1},{NULL}}", "[[1],[null]]"),
    (1022, "{1,1.5,NaN,Infinity,-1e-07}", "[1.0,1.5,null,null,-1e-07]"),
    (1231, "{1.50,NaN}", '["1.50","NaN"]'),
    (1000, "{t,f,NULL}", "[1,0,null]"),
    (1009, '{a,NULL,"NULL",null," ",""}', '["a",null,"NULL","null"," ",""]'),
    (1009, r'{"a\"b","c\\d","{}","x,y",Zoë}', r'["a\"b","c\\d","{}","x,y","Zoë"]'),
    (1009, '{"a\nb"}', '["a\\nb"]'),
    (1009, "[2:3]={[1:2]=,b}", '["[1:2]=","b"]'),
    (2951, "{8c0f1d1e-0000-4000-8000-000000000001}", '["8c0f1d1e-0000-4000-8000-000000000001"]'),
    (1001, r'{"\\x01",NULL}', "[null,null]"),
    (199, r'{"{\"a\": [1, 2.50]}",null,"\"x\""}', '[{"a": [1, 2.50]},null,"x"]'),
    (1182, "{2026-03-06,infinity}", '["2026-03-06","9999-12-31"]'),
    (1183, "{12:13:14.5}", ('["12:13:14.5"]', '["12:13:14.500000"]')),
    (
        1185,
        '{"2023-03-06 13:47:00+00",NULL}',
        ('["2023-03-06 13:47:00Z",null]', '["2023-03-06T13:47:00.000000Z",null]'),
    ),
    (
        1185,
        '{infinity,"0044-03-15 12:00:00+00 BC"}',
        ('["9999-12-31 23:59:59Z",null]', '["9999-12-31T23:59:59.000000Z",null]'),
    ),
    (3221, "{0/1}", '["00000000/00000001"]'),
    (1006, '{"1 2",3}', '["1 2","3"]'),
    (
        1020,
        "{(1,1),(0,0);(3,3),(2,2)}",
        ('["(1","1)","(0","0);(3","3)","(2","2)"]', '["(1,1),(0,0)","(3,3),(2,2)"]'),
    ),
    # What a database defines itself, or what built-in types came to be like it
    (COUNT, "7", ("7", 7)),
    (FLAG, "t", ("t", 1)),
    (MOMENT, "2023-03-06 13:47:00+00", ("2023-03-06 13:47:00+00", "2023-03-06T13:47:00.000000Z")),
    (LISTS, "{a,NULL}", ("{a,NULL}", '["a",null]')),
    (COUNTS, "{1,NULL}", ("{1,NULL}", "[1,null]")),
    (MOODS, '{"so so",sad}', ('{"so so",sad}', '["so so","sad"]')),
    (PLACE, '(1,"a ""b"" \\\\",t)', ('(1,"a ""b"" \\\\",t)', r'{"x y":1.0,"\"":"a \"b\" \\","on":1}')),
    (PLACE, '(,"",)', ('(,"",)', r'{"x y":null,"\"":"","on":null}')),
    (PLACES, '{"(1,a,t)",NULL}', ('{"(1,a,t)",NULL}', r'[{"x y":1.0,"\"":"a","on":1},null]')),
    (
        NOTE,
        '("(1,""x,y"",f)","{a,""b c""}")',
        (
            '("(1,""x,y"",f)","{a,""b c""}")',
            r'{"place":{"x y":1.0,"\"":"x,y","on":0},"tags":["a","b c"]}',
        ),
    ),
    (HOLLOW, "()", ("()", "{}")),
    (3904, "[1,5)", ("[1,5)", '{"lower":1,"upper":5,"lower_exclusive":0,"upper_exclusive":1}')),
    (3904, "(,5)", ("(,5)", '{"lower":null,"upper":5,"lower_exclusive":1,"upper_exclusive":1}')),
    (3904, "empty", "empty"),
    (3905, "{empty,NULL}", ("{empty,NULL}", '["empty",null]')),
    (
        3910,
        '["2023-03-06 13:47:00+00",infinity]',
        (
            '["2023-03-06 13:47:00+00",infinity]',
            '{"lower":"2023-03-06T13:47:00.000000Z","upper":"9999-12-31T23:59:59.000000Z",'
            '"lower_exclusive":0,"upper_exclusive":0}',
        ),
    ),
    (
        SPAN,
        '["",""",\\\\")',
        ('["",""",\\\\")', r'{"lower":"","upper":"\",\\","lower_exclusive":0,"upper_exclusive":1}'),
    ),
    (4451, "{}", ("{}", "[]")),
    (
        4451,
        "{[1,3),[5,)}",
        (
            "{[1,3),[5,)}",
            '[{"lower":1,"upper":3,"lower_exclusive":0,"upper_exclusive":1},'
            '{"lower":5,"upper":null,"lower_exclusive":0,"upper_exclusive":1}]',
        ),
    ),
]


@pytest.mark.parametrize("oid, text, expected", CASES)
def test_a_value_comes_to_clients_in_their_edition(oid: int, text: str, expected: Any) -> None:
    old, new = expected if isinstance(expected, tuple) else (expected, expected)
    for dialect, wanted in ((EDITION_1, old), (EDITION_2, new), (EDITION_3, new)):
        # As text, so that 1, 1.0 and True are three.
        assert repr(data(oid, text, dialect)) == repr(wanted)
        assert repr(shown(oid, text, dialect)) == repr(wanted)


@pytest.mark.parametrize("oid, text, expected", CASES)
def test_expressions_see_what_clients_see(oid: int, text: str, expected: Any) -> None:
    for dialect in (EDITION_1, ISO_ONLY, CUSTOM_ONLY, EDITION_3):
        seen = value(oid, text, dialect)
        assert repr(json.loads(show_value(seen))) == repr(data(oid, text, dialect))
        if seen is not None:
            words = {int: "integer", float: "real", str: "text"}
            assert kind_of(oid, dialect, TYPES) == words[type(seen)]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_what_is_null_to_clients_is_null_to_rules(text: str) -> None:
    assert value(701, text, EDITION_1) is None
    assert value(700, text, EDITION_3) is None


def test_each_switch_of_a_dialect_is_its_own() -> None:
    stamp, place = '{"2023-03-06 13:47:00+00"}', '(1,"2",t)'
    assert data(1185, stamp, ISO_ONLY) == '["2023-03-06T13:47:00.000000Z"]'
    assert data(1185, stamp, CUSTOM_ONLY) == '["2023-03-06 13:47:00Z"]'
    assert data(PLACE, place, ISO_ONLY) == place
    assert data(PLACE, place, CUSTOM_ONLY) == r'{"x y":1.0,"\"":"2","on":1}'
    assert data(MOMENT, "2023-03-06 13:47:00+00", CUSTOM_ONLY) == "2023-03-06 13:47:00Z"


@pytest.mark.parametrize(
    "count, expected",
    [(0, ""), (1, ".9"), (3, ".999"), (6, ".999999"), (9, ".999999"), (None, ".999999")],
)
def test_digits_are_cut_off_and_never_rounded(count: int | None, expected: str) -> None:
    dialect = EDITION_3._replace(fraction_digits=count)
    assert data(1184, "2023-03-06 13:47:00.999999+00", dialect) == f"2023-03-06T13:47:00{expected}Z"
    assert data(1114, "2023-03-06 13:47:00.999999", dialect) == f"2023-03-06T13:47:00{expected}"
    assert data(1083, "13:47:00.999999", dialect) == f"13:47:00{expected}"


@pytest.mark.parametrize("count, expected", [(0, ""), (1, ".5"), (3, ".500"), (6, ".500000"), (9, ".500000")])
def test_digits_are_filled_up_to_those_that_postgres_has(count: int, expected: str) -> None:
    dialect = EDITION_3._replace(fraction_digits=count)
    for text in ("2023-03-06 13:47:00.5+00", "2023-03-06 13:47:00.500000+00", "2023-03-06 11:47:00.5-02"):
        assert data(1184, text, dialect) == f"2023-03-06T13:47:00{expected}Z"
    assert (
        data(1184, "2023-03-06 13:47:00+00", dialect) == f"2023-03-06T13:47:00{expected.replace('5', '0')}Z"
    )
    assert data(1083, "13:47:00.5", dialect) == f"13:47:00{expected}"


@pytest.mark.parametrize(
    "oid", [16, 20, 701, 1700, 25, 2950, 1082, 1083, 1114, 1184, 114, 1007, PLACE, COUNT, 3220]
)
def test_null_is_null(oid: int) -> None:
    for dialect in (EDITION_1, EDITION_3):
        assert data(oid, None, dialect) is None
        assert shown(oid, None, dialect) is None
        assert value(oid, None, dialect) is None


def test_bytes_are_for_expressions_only() -> None:
    assert data(17, "\\x00ff", EDITION_1) == shown(17, "\\x00ff", EDITION_1) == "missing"
    assert value(17, "\\x00ff", EDITION_1) == b"\x00\xff"
    assert value(17, None, EDITION_1) is None
    assert kind_of(17) == "blob"
    # A domain was raw text once.
    assert data(BYTES, "\\x00ff", EDITION_1) == "\\x00ff"
    assert data(BYTES, "\\x00ff", EDITION_2) == "missing"
    assert value(BYTES, "\\x00ff", EDITION_2) == b"\x00\xff"


def test_a_row_of_every_kind_is_one_object_in_the_order_of_its_columns() -> None:
    oids = [2950, 23, 1700, 25, 17, 1184, 1082, 16, 701, 1009, 1114]
    columns = tuple(Column(f"c{i}", oid, -1, False) for i, oid in enumerate(oids))
    row = (
        "8c0f",
        "1",
        "1.0",
        "a",
        "\\x",
        "2026-01-01 00:00:00+00",
        "2026-01-01",
        "t",
        "1",
        "{a}",
        "2026-01-01 00:00:00",
    )
    encode = encoder(columns)
    wanted = {
        **{"c0": "8c0f", "c1": 1, "c2": "1.0", "c3": "a", "c5": "2026-01-01 00:00:00Z", "c6": "2026-01-01"},
        **{"c7": 1, "c8": 1.0, "c9": '["a"]', "c10": "2026-01-01 00:00:00"},
    }
    assert json.loads(encode(row)) == wanted
    assert list(json.loads(encode(row))) == list(wanted)
    # Whichever is missing, the others are as they were.
    for i in range(len(oids)):
        with_null = (*row[:i], None, *row[i + 1 :])
        assert json.loads(encode(with_null)) == {**wanted, **({} if i == 4 else {f"c{i}": None})}
    assert json.loads(encode((None,) * len(oids))) == dict.fromkeys(wanted)


@pytest.mark.parametrize(
    "name", ['"', "\\", "{", "}", "{v0}", "{{", "'", "\n", "\\N{BULLET}", "%s", "東京", "\x00", "'''", ""]
)
@pytest.mark.parametrize("oid", [23, 25, 2950, 17])
def test_a_name_is_never_code(name: str, oid: int) -> None:
    columns = (Column(name, oid, -1, False), Column("then", 2950, -1, False))
    for second in ("x", None):
        wanted = {} if oid == 17 else {name: 1 if oid == 23 else "1"}
        assert json.loads(encoder(columns)(("1", second))) == {**wanted, "then": second}


def test_the_widest_table_is_printed() -> None:
    columns = tuple(Column(f"c{i}", (25, 23, 2950, 1184)[i % 4], -1, False) for i in range(1600))
    row = ("a", "1", "u", "2026-01-01 00:00:00+00") * 400
    for dialect in (EDITION_1, EDITION_3):
        encode = encoder(columns, dialect)
        assert len(json.loads(encode(row))) == 1600
        assert len(json.loads(encode((*row[:-1], None)))) == 1600


def test_no_columns_are_an_empty_object() -> None:
    assert encoder(())(()) == "{}"
    assert encoder((Column("b", 17, -1, False),))(("\\x",)) == "{}"


@pytest.mark.parametrize("oid", [25, 1700, 869, 114, 1009, 1560, PLACE, 3904, 3614])
@pytest.mark.parametrize("dialect", [EDITION_1, EDITION_3])
def test_what_the_log_left_out_is_never_printed(oid: int, dialect: Dialect) -> None:
    with pytest.raises((TypeError, AttributeError)):
        data(oid, UNCHANGED, dialect)


@pytest.mark.parametrize(
    "of, expected",
    [
        (None, "null"),
        (0, "0"),
        (2**63, "9223372036854775808"),
        (True, "1"),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (0.1, "0.1"),
        (1e16, "1e+16"),
        (1e-7, "1e-07"),
        (float("nan"), "null"),
        (float("inf"), "null"),
        (float("-inf"), "null"),
        ('a"\\\n', r'"a\"\\\n"'),
        (b"x", "null"),
    ],
)
def test_a_scalar_is_printed_as_what_it_is(of: Scalar, expected: str) -> None:
    assert show_value(of) == expected
    assert json.loads(expected) is None or type(json.loads(expected)) in (int, float, str)


@pytest.mark.parametrize(
    "of, expected",
    [
        (None, ""),
        ("", ""),
        ("a b", "a b"),
        (7, "7"),
        (-(2**63), "-9223372036854775808"),
        (3.0, "3"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (-2.5, "-2.5"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (0.00001, "0.00001"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (b"abc", "abc"),
    ],
)
def test_an_id_is_text(of: Scalar, expected: str) -> None:
    assert text_id(of) == expected


def test_quote_makes_json() -> None:
    odd = "".join(map(chr, range(0x20))) + '"\\\x7f\u2028🩺'
    assert json.loads(quote(odd)) == odd
    # The function for rows quotes by other means, to the same effect.
    assert encoder((Column("v", 25, -1, False),))((odd,)) == f'{{"v":{quote(odd)}}}'
