"""What `verify` found → text, and facts for programs. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Literal

#: `missing`: the source has it, the bucket does not. `leak`: the bucket has a row that the source does not
#: put there. `content`: both have it, and it says something else. `stranger`: no rule makes a bucket of this
#: name. `nameless`: ops go by a number that is no bucket's. `sum`: what is kept of a bucket's sums is not
#: what its ops come to. `lookup`: an entry too many, or missing. Of rows that are kept because the log does
#: not bring them whole: `unkept`, the source has it and it is not kept; `kept`, the source does not have it;
#: `outdated`, it is kept otherwise.
Kind = Literal[
    "missing", "leak", "content", "stranger", "nameless", "sum", "lookup", "unkept", "kept", "outdated"
]
_SAID: dict[Kind, str] = {
    "missing": "is in the source, and not in the bucket",
    "leak": "is in the bucket, and the source does not put it there",
    "content": "says something else in the bucket than in the source",
    "stranger": "holds rows, and no rule makes buckets of this name",
    "nameless": "is no bucket's number, and ops go by it: they take room, and nobody is sent them",
    "sum": "does not come to what its ops come to",
    "lookup": "is not as the source's rows make it",
    "unkept": "is in the source, and is not kept: an update of it could not be completed",
    "kept": "is kept, and the source does not have it",
    "outdated": "is kept otherwise than the source has it: an update of it could be completed wrongly",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it must be, by its place; never what it says.

    Of a kept row, the place is its table and its key.
    """

    kind: Kind
    bucket: str
    object_type: str = ""
    object_id: str = ""
    subkey: str = ""
    #: The columns in which a row differs; what of a sum is wrong.
    columns: tuple[str, ...] = ()


@dataclass(slots=True)
class Verified:
    """What a comparison came to."""

    buckets: int = 0
    rows: int = 0
    entries: int = 0
    kept: int = 0
    #: What changed whenever it was looked at, so that nothing can be said of it.
    unsettled: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 1 if self.differences else 0


def text_of(verified: Verified) -> str:
    return "\n".join(_lines(verified))


def facts_of(verified: Verified) -> dict[str, object]:
    return asdict(verified)


def _lines(verified: Verified) -> Iterator[str]:
    for one in verified.differences:
        row = " ".join(part for part in (one.object_type, one.object_id) if part)
        columns = f" ({', '.join(one.columns)})" if one.columns else ""
        yield f"{one.kind}: {one.bucket}{': ' + row if row else ''} {_SAID[one.kind]}{columns}"
    if verified.differences:
        yield ""
    counted = f"{verified.rows:,} rows in {verified.buckets:,} buckets"
    if verified.entries:
        counted += f", {verified.entries:,} entries of lookups"
    if verified.kept:
        counted += f", {verified.kept:,} kept rows"
    if verified.unsettled:
        yield f"{verified.unsettled:,} changed whenever they were looked at: nothing is said of them"
    if not verified.differences:
        yield f"{counted}: no difference"
        return
    kinds = Counter(one.kind for one in verified.differences)
    yield f"{counted}: {', '.join(f'{count:,} {kind}' for kind, count in sorted(kinds.items()))}"
