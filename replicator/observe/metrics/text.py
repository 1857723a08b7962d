"""Families of samples → the text that Prometheus scrapes. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from replicator.observe.metrics.figures import Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric's name, what it is, and its samples."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    #: A number, or a histogram, by its labels; None is not told.
    samples: Sequence[tuple[Labels, float | Histogram | None]] = field(default=())


def exposed(families: Iterable[Family]) -> str:
    """All of them; one without a sample is left out."""
    return "".join([line for family in families for line in _lines(family)])


def _lines(family: Family) -> list[str]:
    lines: list[str] = []
    for labels, value in family.samples:
        if isinstance(value, Histogram):
            lines += _histogram(family.name, labels, value)
        elif value is not None:
            lines.append(_sample(family.name, labels, value))
    if not lines:
        return []
    return [f"# HELP {family.name} {family.help}\n", f"# TYPE {family.name} {family.kind}\n", *lines]


def _histogram(name: str, labels: Labels, histogram: Histogram) -> list[str]:
    lines, upto = [], 0
    for bound, count in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
        upto += count
        lines.append(_sample(f"{name}_bucket", {**labels, "le": _number(bound)}, upto))
    return [
        *lines,
        _sample(f"{name}_sum", labels, histogram.sum),
        _sample(f"{name}_count", labels, histogram.count),
    ]


def _sample(name: str, labels: Labels, value: float) -> str:
    told = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items())
    return f"{name}{{{told}}} {_number(value)}\n" if told else f"{name} {_number(value)}\n"


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if float(value).is_integer() else repr(float(value))
