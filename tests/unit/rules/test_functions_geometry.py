"""A PostGIS geometry, as the log prints it, in the forms that clients understand."""

from __future__ import annotations

import struct

import pytest

from tests.unit.rules.at_hand import Failed, value_of


def wkb(kind: int, *parts: bytes, order: str = "<", srid: int | None = None) -> bytes:
    code = kind | (0x20000000 if srid is not None else 0)
    head = struct.pack(order + "BI", order == "<", code)
    return head + (struct.pack(order + "I", srid) if srid is not None else b"") + b"".join(parts)


def numbers(*values: float, order: str = "<") -> bytes:
    return struct.pack(f"{order}{len(values)}d", *values)


def count(value: int) -> bytes:
    return struct.pack("<I", value)


POINT = wkb(1, numbers(1, 2.5))
LINE = wkb(2, count(2), numbers(1, 2), numbers(3, 4))
SQUARE = wkb(3, count(1), count(4), *(numbers(x, y) for x, y in ((0, 0), (1, 0), (1, 1), (0, 0))))
NAN = float("nan")


@pytest.mark.parametrize(
    ("data", "geojson", "text"),
    [
        (POINT, '{"type":"Point","coordinates":[1,2.5]}', "POINT(1 2.5)"),
        (wkb(1, numbers(1, 2.5), srid=4326), '{"type":"Point","coordinates":[1,2.5]}', "POINT(1 2.5)"),
        (
            wkb(1, numbers(1, 2.5, order=">"), order=">"),
            '{"type":"Point","coordinates":[1,2.5]}',
            "POINT(1 2.5)",
        ),
        (
            wkb(0x80000001, numbers(1, 2, 3)),
            '{"type":"Point","coordinates":[1,2,3]}',
            "POINT Z (1 2 3)",
        ),
        (wkb(0x40000001, numbers(1, 2, 9)), '{"type":"Point","coordinates":[1,2]}', "POINT M (1 2 9)"),
        (wkb(1, numbers(NAN, NAN)), '{"type":"Point","coordinates":[]}', "POINT EMPTY"),
        (LINE, '{"type":"LineString","coordinates":[[1,2],[3,4]]}', "LINESTRING(1 2,3 4)"),
        (
            SQUARE,
            '{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,0]]]}',
            "POLYGON((0 0,1 0,1 1,0 0))",
        ),
        (
            wkb(4, count(2), POINT, wkb(1, numbers(3, 4))),
            '{"type":"MultiPoint","coordinates":[[1,2.5],[3,4]]}',
            "MULTIPOINT(1 2.5,3 4)",
        ),
        (
            wkb(5, count(1), LINE),
            '{"type":"MultiLineString","coordinates":[[[1,2],[3,4]]]}',
            "MULTILINESTRING((1 2,3 4))",
        ),
        (
            wkb(6, count(1), SQUARE),
            '{"type":"MultiPolygon","coordinates":[[[[0,0],[1,0],[1,1],[0,0]]]]}',
            "MULTIPOLYGON(((0 0,1 0,1 1,0 0)))",
        ),
        (
            wkb(7, count(2), POINT, LINE),
            '{"type":"GeometryCollection","geometries":[{"type":"Point","coordinates":[1,2.5]},'
            '{"type":"LineString","coordinates":[[1,2],[3,4]]}]}',
            "GEOMETRYCOLLECTION(POINT(1 2.5),LINESTRING(1 2,3 4))",
        ),
        (wkb(2, count(0)), '{"type":"LineString","coordinates":[]}', "LINESTRING EMPTY"),
    ],
)
def test_geometries(data: bytes, geojson: str, text: str) -> None:
    for value in (data.hex().upper(), data):
        assert value_of("st_asgeojson(g)", {"g": value}) == geojson
        assert value_of("st_astext(g)", {"g": value}) == text


def test_only_a_point_has_x_and_y() -> None:
    assert value_of("st_x(g) || ' ' || st_y(g)", {"g": POINT.hex()}) == "1 2.5"
    for other in (LINE.hex(), wkb(1, numbers(NAN, NAN)).hex(), 5, None):
        assert value_of("st_x(g)", {"g": other}) is None


@pytest.mark.parametrize(
    "bad",
    ["", "zz", "0101", POINT.hex()[:-2], wkb(2, count(1 << 31)).hex(), wkb(3, count(1 << 31)).hex()],
)
def test_what_is_cut_off_is_no_geometry(bad: str) -> None:
    assert value_of("st_astext(g)", {"g": bad}) == Failed("not a PostGIS geometry")


def test_a_curve_is_not_understood() -> None:
    found = value_of("st_astext(g)", {"g": wkb(8, count(0)).hex()})
    assert isinstance(found, Failed) and "convert it" in found.why


def test_collections_in_one_another_have_an_end() -> None:
    data = wkb(7, count(0))
    for _ in range(20):
        data = wkb(7, count(1), data)
    assert isinstance(value_of("st_astext(g)", {"g": data.hex()}), Failed)
