"""Types that a database defines itself are read from its catalogue, and their values as it prints them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from replicator.database import connected
from replicator.rules.columns.types import BUILT_IN, Types
from replicator.rules.columns.values import encoder
from replicator.rules.expression import EDITION_1, EDITION_3
from replicator.wal.messages import Column, Insert, Relation
from replicator.wal.source import printing
from replicator.wal.types import Attribute, Type, read_types
from replicator.wal.wire import decode
from tests.oracle.values import odd_text

if TYPE_CHECKING:
    from tests.fixtures.databases import Connection
    from tests.fixtures.postgres import Database


async def described(database: Database, oids: Iterable[int]) -> Types:
    """What the rules know of these types once the catalogue has been asked."""
    async with connected(database.dsn, "test") as source:
        return BUILT_IN.with_types(await read_types(source, BUILT_IN.unknown(oids)))


def printing_connection(database: Database) -> Connection:
    """Prints values as the stream does."""
    return database.connect(options=conninfo_to_dict(printing(database.dsn))["options"])


def printed(connection: Connection, query: str) -> list[tuple[str | None, ...]]:
    """The rows of a query, each value as its type prints it."""
    result = connection.execute(query.encode()).pgresult
    assert result is not None
    cells = [[result.get_value(row, at) for at in range(result.nfields)] for row in range(result.ntuples)]
    return [tuple(None if cell is None else bytes(cell).decode() for cell in row) for row in cells]


def oid_of(database: Database, name: str) -> int:
    return int(database.execute("SELECT %s::regtype::oid", [name])[0][0])


# -- What the catalogue says -----------------------------------------------------------------------


async def test_types_are_read_with_all_they_are_made_of(database: Database) -> None:
    database.execute("""
        CREATE TYPE mood AS ENUM ('good', 'bad');
        CREATE DOMAIN moods AS mood[] CHECK (cardinality(value) < 5);
        CREATE TYPE "Odd ""Place" AS (x double precision, gone text, "y z" moods);
        ALTER TYPE "Odd ""Place" DROP ATTRIBUTE gone;
        ALTER TYPE "Odd ""Place" ADD ATTRIBUTE last tstzrange;
        CREATE TYPE words AS RANGE (subtype = text, multirange_type_name = many_words);
        CREATE TABLE visit (id int, at "Odd ""Place"[], said many_words);
    """)
    names = [
        "visit",
        '"Odd ""Place"',
        '"Odd ""Place"[]',
        "moods",
        "mood[]",
        "mood",
        "many_words",
        "tstzrange",
    ]
    visit, place, places, moods, mood_array, mood, many, span = (oid_of(database, name) for name in names)
    async with connected(database.dsn, "test") as source:
        found = {one.oid: one for one in await read_types(source, [visit, visit])}
    assert found == {
        visit: Type(
            visit,
            "composite",
            0,
            ",",
            (Attribute("id", 23), Attribute("at", places), Attribute("said", many)),
        ),
        places: Type(places, "array", place),
        place: Type(
            place,
            "composite",
            0,
            ",",
            (Attribute("x", 701), Attribute("y z", moods), Attribute("last", span)),
        ),
        moods: Type(moods, "domain", mood_array),
        mood_array: Type(mood_array, "array", mood),
        mood: Type(mood, "enum"),
        many: Type(many, "multirange", 25),
        **{oid: Type(oid, "base") for oid in (23, 25, 701, 1184)},
        span: Type(span, "range", 1184),
    }


async def test_what_is_not_there_or_has_no_parts_is_no_surprise(database: Database) -> None:
    async with connected(database.dsn, "test") as source:
        assert await read_types(source, []) == ()
        assert await read_types(source, [4_000_000_000]) == ()
        # They have elements in the catalogue, and yet are no arrays.
        geometry = [600, 601, 603, 628, 22, 30, 19]
        assert {one.kind for one in await read_types(source, geometry)} == {"base"}
        (boxes,) = [one for one in await read_types(source, [1020]) if one.oid == 1020]
        assert boxes == Type(1020, "array", 603, ";")


async def test_what_is_known_without_asking_is_what_the_catalogue_says(database: Database) -> None:
    fixed = [
        row[0]
        for row in database.execute("SELECT oid::int FROM pg_type WHERE oid < 10000 AND typtype <> 'p'")
    ]
    async with connected(database.dsn, "test") as source:
        found = {one.oid: one for one in await read_types(source, fixed)}
    known = [oid for oid in fixed if not BUILT_IN.unknown([oid])]
    assert len(known) > 100
    assert {oid: BUILT_IN.find(oid) for oid in known} == {oid: found[oid] for oid in known}
    # All that has parts is known, save the rows of a few catalogues, which no table has columns of.
    parts = {oid for oid, one in found.items() if one.kind != "base" and not BUILT_IN.unknown([oid])}
    rows = {
        row[0] for row in database.execute("SELECT oid::int FROM pg_type WHERE typtype = 'c' AND oid < 10000")
    }
    others = {oid for oid, one in found.items() if one.kind != "base"} - parts
    assert {found[oid].element for oid in others - rows} <= rows | {2275}


# -- Random types ----------------------------------------------------------------------------------


class Kind(NamedTuple):
    """A type, and how to come by random values of it."""

    sql: str
    #: SQL that makes a value, and what clients have of it within another value.
    make: Callable[[random.Random], tuple[str, Any]]
    #: Whether Postgres makes the same JSON of it.
    agrees: bool = True
    #: An array of these would be an array of more dimensions.
    is_array: bool = False


def literal(text: str, of: str) -> str:
    return "'" + text.replace("'", "''") + f"'::{of}"


def moment(rng: random.Random) -> tuple[datetime, str, str]:
    """A moment, in SQL and as clients have it."""
    at = datetime(1800, 1, 1) + timedelta(
        seconds=rng.randrange(10**10), microseconds=rng.choice((0, 1, 500_000))
    )
    return at, literal(f"{at} UTC", "timestamptz"), at.isoformat("T", "microseconds") + "Z"


def text(rng: random.Random) -> tuple[str, Any]:
    made = odd_text(rng)
    return literal(made, "text"), made


def boolean(rng: random.Random) -> tuple[str, Any]:
    return rng.choice((("true", 1), ("false", 0)))


def bigint(rng: random.Random) -> tuple[str, Any]:
    made = rng.choice((0, -1, 7, 2**53 + 1, 2**63 - 1))
    return f"({made})::bigint", made


def numeric(rng: random.Random) -> tuple[str, Any]:
    made = rng.choice(("1.50", "0", "-0.001", "NaN"))
    return literal(made, "numeric"), made


def jsonb(rng: random.Random) -> tuple[str, Any]:
    made = [odd_text(rng), None, 1.5, {odd_text(rng): True}]
    return literal(json.dumps(made), "jsonb"), made


BASES = (
    Kind("text", text),
    Kind("text", text),
    Kind("bigint", bigint),
    Kind("jsonb", jsonb),
    Kind("boolean", boolean, False),
    Kind("numeric", numeric, False),
    Kind("timestamptz", lambda rng: moment(rng)[1:], False),
)


class Maker:
    """Random types, the statements that define them, and random values of them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.ddl: list[str] = []

    def kind(self, depth: int = 4) -> Kind:
        rng = self.rng
        if depth == 0:
            return rng.choice(BASES)
        match rng.randrange(6):
            case 0 | 1:
                element = self.kind(depth - 1)
                return self.domain(element) if element.is_array else array(element)
            case 2 | 3:
                return self.composite([self.kind(depth - 1) for _ in range(rng.randrange(4))])
            case 4:
                return self.domain(self.kind(depth - 1))
            case _:
                return rng.choice((self.span, self.spans))()

    def name(self, letter: str) -> str:
        return f"{letter}{len(self.ddl)}"

    def domain(self, of: Kind) -> Kind:
        name = self.name("d")
        self.ddl.append(f"CREATE DOMAIN {name} AS {of.sql}")

        def make(rng: random.Random) -> tuple[str, Any]:
            sql, value = of.make(rng)
            return f"({sql})::{name}", value

        return Kind(name, make, of.agrees, of.is_array)

    def composite(self, fields: list[Kind]) -> Kind:
        name = self.name("c")
        names = self.rng.sample(('a"b', "x y", "é", "{}", "plain", "\\"), len(fields))
        quoted = ['"' + one.replace('"', '""') + '"' for one in names]
        columns = [f"{one} {field.sql}" for one, field in zip(quoted, fields, strict=True)]
        self.ddl.append(f"CREATE TYPE {name} AS ({', '.join(columns)})")

        def make(rng: random.Random) -> tuple[str, Any]:
            made = [or_null(field, rng) for field in fields]
            sql = ", ".join(sql for sql, _ in made)
            return f"ROW({sql})::{name}", {one: value for one, (_, value) in zip(names, made, strict=True)}

        return Kind(name, make, all(field.agrees for field in fields))

    def span(self) -> Kind:
        name = self.name("r")
        self.ddl.append(f'CREATE TYPE {name} AS RANGE (subtype = text, collation = "C")')

        def make(rng: random.Random) -> tuple[str, Any]:
            low, high = sorted((odd_text(rng), odd_text(rng)), key=str.encode)
            bounds = rng.choice(("[]", "[)", "(]", "()"))
            lower, upper = rng.choice((low, None)), rng.choice((high, None))
            ends = [literal(one, "text") if one is not None else "NULL" for one in (lower, upper)]
            sql = f"{name}({ends[0]}, {ends[1]}, '{bounds}')"
            if lower is not None and lower == upper and bounds != "[]":
                return sql, "empty"
            # What has no bound does not include it.
            return sql, ranging(
                lower, upper, lower is None or bounds[0] == "(", upper is None or bounds[1] == ")"
            )

        return Kind(name, make, False)

    def spans(self) -> Kind:
        def make(rng: random.Random) -> tuple[str, Any]:
            ends = sorted({moment(rng) for _ in range(2 * rng.randrange(4))})
            pairs = list(zip(ends[::2], ends[1::2], strict=False))
            sql = ", ".join(f"tstzrange({low[1]}, {high[1]}, '[)')" for low, high in pairs)
            return f"tstzmultirange({sql})", [ranging(low[2], high[2], False, True) for low, high in pairs]

        return Kind("tstzmultirange", make, False)


def ranging(lower: object, upper: object, lower_exclusive: bool, upper_exclusive: bool) -> dict[str, object]:
    ends = {"lower": lower, "upper": upper}
    return {**ends, "lower_exclusive": int(lower_exclusive), "upper_exclusive": int(upper_exclusive)}


def or_null(kind: Kind, rng: random.Random) -> tuple[str, Any]:
    return ("NULL", None) if rng.random() < 0.2 else kind.make(rng)


def array(element: Kind) -> Kind:
    def make(rng: random.Random) -> tuple[str, Any]:
        width, height = rng.randrange(4), rng.choice((1, 1, 2))
        if width == 0:
            return f"'{{}}'::{element.sql}[]", []
        rows = [[or_null(element, rng) for _ in range(width)] for _ in range(height)]
        lists = [f"ARRAY[{', '.join(sql for sql, _ in row)}]::{element.sql}[]" for row in rows]
        values = [[value for _, value in row] for row in rows]
        if height > 1:
            return f"ARRAY[{', '.join(lists)}]::{element.sql}[]", values
        if rng.random() < 0.3:
            first = rng.randrange(-2, 3)
            lists[0] = f"('[{first}:{first + width - 1}]=' || {lists[0]}::text)::{element.sql}[]"
        return lists[0], values[0]

    return Kind(f"{element.sql}[]", make, element.agrees, True)


async def test_values_of_any_type_come_to_clients_as_they_went_in(
    database: Database, rng: random.Random
) -> None:
    maker = Maker(rng)
    kinds = [maker.kind() for _ in range(60)]
    database.execute("; ".join(maker.ddl))
    types = await described(database, {oid_of(database, kind.sql) for kind in kinds})
    connection = printing_connection(database)
    compared = 0
    for kind in kinds:
        made = [kind.make(rng) for _ in range(12)]
        query = " UNION ALL ".join(f"SELECT {n}, {sql}, to_json({sql})" for n, (sql, _) in enumerate(made))
        columns = (Column("v", oid_of(database, kind.sql), -1, False),)
        encode = encoder(columns, EDITION_3, types)
        for (number, text, as_json), (sql, value) in zip(
            printed(connection, f"{query} ORDER BY 1"), made, strict=True
        ):
            shown = json.loads(encode((text,)))["v"]
            inside = json.loads(shown) if isinstance(value, list | dict) else shown
            assert inside == value, (number, sql, text)
            if kind.agrees and isinstance(value, list | dict):
                assert as_json is not None and inside == json.loads(as_json), sql
                compared += 1
    assert compared > 20, "enough is left of which Postgres makes the same JSON"


async def test_what_the_log_says_is_described_by_what_the_catalogue_says(
    database: Database, rng: random.Random
) -> None:
    maker = Maker(rng)
    kinds = [maker.kind() for _ in range(15)]
    columns = ", ".join(f"v{at} {kind.sql}" for at, kind in enumerate(kinds))
    database.execute(
        "; ".join((*maker.ddl, f"CREATE TABLE t ({columns})", "CREATE PUBLICATION p FOR TABLE t"))
    )
    database.execute("SELECT pg_create_logical_replication_slot('types', 'pgoutput')")
    rows = [[or_null(kind, rng) for kind in kinds] for _ in range(10)]
    for row in rows:
        database.execute(f"INSERT INTO t VALUES ({', '.join(sql for sql, _ in row)})")
    changes = printing_connection(database).execute(
        "SELECT data FROM pg_logical_slot_get_binary_changes("
        "'types', NULL, NULL, 'proto_version', '1', 'publication_names', 'p')"
    )
    messages = [decode(message) for (message,) in changes]
    (relation,) = {message for message in messages if isinstance(message, Relation)}
    types = await described(database, [column.type_oid for column in relation.columns])
    encode = encoder(relation.columns, EDITION_3, types)
    inserts = [message.new for message in messages if isinstance(message, Insert)]
    for row, inserted in zip(rows, inserts, strict=True):
        for (sql, value), shown in zip(row, json.loads(encode(inserted)).values(), strict=True):
            assert (json.loads(shown) if isinstance(value, list | dict) else shown) == value, sql


async def test_before_custom_types_were_understood_only_arrays_of_built_in_types_were(
    database: Database,
) -> None:
    database.execute("CREATE TYPE place AS (x int, y text[]); CREATE DOMAIN places AS place[]")
    values = {
        "place": """ROW(1, '{a,"b c"}')::place""",
        "places": "ARRAY[ROW(1, NULL)]::place[]::places",
        "int4range": "'[1,3)'::int4range",
        "int4range[]": "ARRAY['[1,3)'::int4range]",
        "text[]": """'{a,"b c",NULL}'::text[]""",
    }
    types = await described(database, [oid_of(database, name) for name in values])
    row = printed(printing_connection(database), f"SELECT {', '.join(values.values())}")[0]
    columns = tuple(Column(name, oid_of(database, name), -1, False) for name in values)
    shown = json.loads(encoder(columns, EDITION_1, types)(row))
    assert shown == {**dict(zip(values, row, strict=True)), "text[]": '["a","b c",null]'}


async def test_an_array_of_a_domain_over_an_array_is_one_within_the_other(database: Database) -> None:
    database.execute("CREATE DOMAIN dose AS int[]; CREATE TABLE plan (doses dose[])")
    database.execute("INSERT INTO plan (doses[1], doses[2], doses[3]) VALUES ('{1,2}', '{}', NULL)")
    oid = oid_of(database, "dose[]")
    types = await described(database, [oid])
    row = printed(printing_connection(database), "SELECT doses FROM plan")[0]
    encode = encoder((Column("v", oid, -1, False),), EDITION_3, types)
    assert json.loads(encode(row)) == {"v": "[[1,2],[],null]"}


# -- Random values ---------------------------------------------------------------------------------

#: All that Postgres can store, the characters that mean something more often than others.
_TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8) | st.text(
    st.sampled_from('{}()[],;"\\ \n\tNULempty='), max_size=8
)


@pytest.fixture
async def odd(database: Database) -> tuple[Connection, Types]:
    """A connection to a database with types made of text, and what these are."""
    database.execute("""
        CREATE TYPE pair AS (first text, rest text[]);
        CREATE TYPE span AS RANGE (subtype = text, collation = "C");
    """)
    names = ("pair", "pair[]", "span", "span[]", "span_multirange")
    types = await described(database, [oid_of(database, name) for name in names])
    return printing_connection(database), types


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_TEXTS | st.none(), max_size=6), _TEXTS, _TEXTS)
def test_no_text_is_too_odd_to_be_found_again(
    odd: tuple[Connection, Types], texts: list[str | None], one: str, other: str
) -> None:
    connection, types = odd
    low, high = sorted((one, other), key=str.encode)
    query = """
        SELECT l AS a, ARRAY[l, l] AS b, ROW(low, l)::pair AS c, ARRAY[ROW(high, l)::pair, NULL] AS d,
               span(low, high, '[]') AS e, ARRAY[span(low, NULL)] AS f,
               span_multirange(span(low, high, '[]')) AS g
        FROM (SELECT %(texts)s::text[], %(low)s::text, %(high)s::text) AS given (l, low, high)"""
    result = connection.execute(query.encode(), {"texts": texts, "low": low, "high": high}).pgresult
    assert result is not None
    columns = tuple(Column(chr(97 + at), result.ftype(at), -1, False) for at in range(result.nfields))
    row = tuple(bytes(result.get_value(0, at) or b"").decode() for at in range(result.nfields))
    shown = json.loads(encoder(columns, EDITION_3, types)(row))
    both, above = ranging(low, high, False, False), ranging(low, None, False, True)
    assert {name: json.loads(value) for name, value in shown.items()} == {
        "a": texts,
        "b": [texts, texts] if texts else [],
        "c": {"first": low, "rest": texts},
        "d": [{"first": high, "rest": texts}, None],
        "e": both,
        "f": [above],
        "g": [both],
    }
