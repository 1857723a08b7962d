"""The bytes of a PostGIS geometry (EWKB, in hex) → GeoJSON, WKT, x and y. No I/O."""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

import orjson

from replicator.rules.compute.scalars import EvaluationError, as_text
from replicator.rules.expression import Scalar

_Z, _M, _SRID = 0x80000000, 0x40000000, 0x20000000
_KINDS: Final = {
    1: "Point",
    2: "LineString",
    3: "Polygon",
    4: "MultiPoint",
    5: "MultiLineString",
    6: "MultiPolygon",
    7: "GeometryCollection",
}
_MOST_LEVELS = 10


class Geometry(NamedTuple):
    kind: str
    #: "", "Z", "M" or "ZM".
    extent: str
    #: Of a point its numbers, of a line its points, of a polygon its lines, of the rest geometries.
    parts: list[Any]


class _Reader:
    """The bytes, and how far they have been read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, format: str) -> tuple[Any, ...]:
        taken = struct.unpack_from(format, self._data, self._at)
        self._at += struct.calcsize(format)
        return taken

    def geometry(self, level: int = 0) -> Geometry:
        order = "<" if self.take("B")[0] else ">"
        (code,) = self.take(order + "I")
        if code & _SRID:
            self.take(order + "I")
        iso, kind = divmod(code & 0x0FFFFFFF, 1000)
        has_z, has_m = bool(code & _Z) or iso in (1, 3), bool(code & _M) or iso in (2, 3)
        if kind not in _KINDS or level > _MOST_LEVELS:
            raise EvaluationError(
                "a kind of geometry that is not understood; convert it to text in the source"
            )
        numbers = f"{order}{2 + has_z + has_m}d"
        if kind == 1:
            parts = list(self.take(numbers))
            parts = [] if parts[0] != parts[0] else parts  # an empty point is not a number
        elif kind == 2:
            parts = self._points(order, numbers)
        elif kind == 3:
            parts = [self._points(order, numbers) for _ in range(self.take(order + "I")[0])]
        else:
            parts = [self.geometry(level + 1) for _ in range(self.take(order + "I")[0])]
        return Geometry(_KINDS[kind], "Z" * has_z + "M" * has_m, parts)

    def _points(self, order: str, numbers: str) -> list[list[float]]:
        return [list(self.take(numbers)) for _ in range(self.take(order + "I")[0])]


def _parsed(value: Scalar) -> Geometry | None:
    if not isinstance(value, str | bytes):
        return None
    try:
        return _Reader(bytes.fromhex(value) if isinstance(value, str) else value).geometry()
    except (ValueError, struct.error):
        raise EvaluationError("not a PostGIS geometry") from None


def st_x(value: Scalar) -> float | None:
    return _number(value, 0)


def st_y(value: Scalar) -> float | None:
    return _number(value, 1)


def _number(value: Scalar, at: int) -> float | None:
    geometry = _parsed(value)
    if geometry is None or geometry.kind != "Point" or not geometry.parts:
        return None
    number: float = geometry.parts[at]
    return number


def st_asgeojson(value: Scalar) -> str | None:
    geometry = _parsed(value)
    return None if geometry is None else orjson.dumps(_geojson(geometry)).decode()


def _geojson(geometry: Geometry) -> dict[str, Any]:
    if geometry.kind == "GeometryCollection":
        return {"type": geometry.kind, "geometries": [_geojson(part) for part in geometry.parts]}
    # A measure has no place in GeoJSON.
    width = 3 if geometry.extent.startswith("Z") else 2
    return {"type": geometry.kind, "coordinates": _plain(_coordinates(geometry), width)}


def _coordinates(geometry: Geometry) -> list[Any]:
    if geometry.kind.startswith("Multi"):
        return [part.parts for part in geometry.parts]
    return geometry.parts


def _plain(tree: list[Any], width: int) -> list[Any]:
    """Coordinates without measures, whole numbers without a fraction."""
    if tree and isinstance(tree[0], float):
        return [int(x) if x.is_integer() and abs(x) < 1e15 else x for x in tree[:width]]
    return [_plain(part, width) for part in tree]


def st_astext(value: Scalar) -> str | None:
    geometry = _parsed(value)
    return None if geometry is None else _wkt(geometry)


def _wkt(geometry: Geometry) -> str:
    extent = f" {geometry.extent} " if geometry.extent else ""
    if not geometry.parts:
        return f"{geometry.kind.upper()}{extent.rstrip()} EMPTY"
    if geometry.kind == "GeometryCollection":
        inner = ",".join(map(_wkt, geometry.parts))
    elif geometry.kind == "MultiPoint":
        inner = ",".join(_numbers(part.parts) if part.parts else "EMPTY" for part in geometry.parts)
    elif geometry.kind == "Point":
        inner = _numbers(geometry.parts)
    else:
        inner = _nested(_coordinates(geometry))
    return f"{geometry.kind.upper()}{extent}({inner})"


def _nested(tree: list[Any]) -> str:
    if tree and isinstance(tree[0], list) and tree[0] and isinstance(tree[0][0], float):
        return ",".join(map(_numbers, tree))
    return ",".join(f"({_nested(part)})" if part else "EMPTY" for part in tree)


def _numbers(point: list[float]) -> str:
    return " ".join(as_text(number) or "" for number in point)
