"""What was measured, of us and of a yardstick → a JSON line, a table row, and a verdict. No I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

#: A ratio this much worse than its bar is no noise, whatever else the machine is doing.
COLLAPSE = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """What a ratio should reach, or stay below."""

    side: Literal[">=", "<="]
    ratio: float

    def __str__(self) -> str:
        return f"{self.side} {self.ratio:g}"

    def met(self, ratio: float, slack: float = 1) -> bool:
        """Whether a ratio is on the right side; with a slack of 4, whether it is within a factor 4 of it."""
        if self.side == ">=":
            return ratio >= self.ratio / slack
        return ratio <= self.ratio * slack


def at_least(ratio: float) -> Bar:
    return Bar(">=", ratio)


def at_most(ratio: float) -> Bar:
    return Bar("<=", ratio)


@dataclass(frozen=True, slots=True)
class Result:
    """One comparison: what each run of ours came to, and what each run of the yardstick did."""

    name: str
    values: Sequence[float]
    unit: str
    yardstick: str
    yardstick_values: Sequence[float]
    #: None where the comparison is only told.
    bar: Bar | None

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def yardstick_value(self) -> float:
        return median(self.yardstick_values)

    @property
    def ratio(self) -> float:
        return self.value / self.yardstick_value

    @property
    def verdict(self) -> str:
        if self.bar is None:
            return ""
        return "pass" if self.bar.met(self.ratio) else "miss"

    @property
    def has_collapsed(self) -> bool:
        return self.bar is not None and not self.bar.met(self.ratio, slack=COLLAPSE)

    def json(self) -> str:
        return json.dumps(
            {
                "name": self.name,
                "value": _rounded(self.value),
                "unit": self.unit,
                "yardstick": self.yardstick,
                "yardstick_value": _rounded(self.yardstick_value),
                "ratio": round(self.ratio, 3),
                "runs": len(self.values),
                "bar": None if self.bar is None else str(self.bar),
            }
        )


def _rounded(value: float) -> float:
    return round(value) if value >= 1000 else round(value, 1)


def table(results: Sequence[Result]) -> str:
    """The results for people, as Markdown."""
    lines = [
        "| name | value | yardstick | its value | ratio | bar | |",
        "|---|--:|---|--:|--:|--:|---|",
    ]
    for r in results:
        bar = "" if r.bar is None else str(r.bar)
        ours, theirs = f"{_rounded(r.value):,} {r.unit}", f"{_rounded(r.yardstick_value):,} {r.unit}"
        lines.append(
            f"| {r.name} | {ours} | {r.yardstick} | {theirs} | {r.ratio:.2f} | {bar} | {r.verdict} |"
        )
    return "\n".join(lines)
