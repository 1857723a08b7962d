"""What a client's headers accept → the Encoding and the Compression of its lines. No I/O."""

from __future__ import annotations

from enum import Enum

from replicator.sync.lines import Encoding


class Compression(Enum):
    """What the stream is pressed with; the value is the content encoding."""

    ZSTD = "zstd"
    GZIP = "gzip"
    IDENTITY = "identity"


def negotiate(accept: str | None) -> Encoding:
    """BSON where it is wanted more than JSON, otherwise JSON, which every client reads."""
    if accept is None:
        return Encoding.NDJSON
    ranges = _weights(accept)
    bson, ndjson = (_wanted(encoding.value, ranges) for encoding in (Encoding.BSON, Encoding.NDJSON))
    return Encoding.BSON if bson > ndjson else Encoding.NDJSON


def accept_encoding(header: str | None) -> Compression:
    """The one wanted most; of several, the one that presses best."""
    codings = _weights(header or "")
    anything = codings.get("*", 0.0)
    best, most = Compression.IDENTITY, codings.get("identity", 0.0)
    for compression in (Compression.GZIP, Compression.ZSTD):
        weight = codings.get(compression.value, anything)
        if weight > 0 and weight >= most:
            best, most = compression, weight
    return best


def _wanted(media_type: str, ranges: dict[str, float]) -> float:
    """The weight of the narrowest range that holds the type."""
    for narrowest in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        if narrowest in ranges:
            return ranges[narrowest]
    return 0.0


def _weights(header: str) -> dict[str, float]:
    """By member of the header: its q. Members nobody can read are passed over."""
    found: dict[str, float] = {}
    for member in header.split(","):
        name, *parameters = [part.strip().lower() for part in member.split(";")]
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                weight = _weight(value.strip())
        if name:
            found[name] = weight
    return found


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
