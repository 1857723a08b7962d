"""What a user gets, or where a row is → lines for a person, or facts for a program. No I/O.

Both show what rows say: it is what they are asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby

import orjson

from replicator.observe.rules.got import Got, ShownRow
from replicator.observe.rules.row import Out, Placement
from replicator.text.counted import counted


def text_of_user(got: Got) -> str:
    """A paragraph for each bucket, and a line for each way that led nowhere."""
    at = datetime.fromtimestamp(got.now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    total = counted(got.counts.total(), "row")
    what = f"{counted(len(got.granted), 'bucket')} with {total}" if got.granted else "no bucket"
    lines = [f"{got.user_id} gets {what}, at {at}", ""]
    shown: dict[tuple[str, str], list[ShownRow]] = {}
    for row in got.rows:
        shown.setdefault((row.bucket, row.object_type), []).append(row)
    for one in got.granted:
        lines.append(f"{one.bucket}  priority {one.priority}")
        counts = {output: count for (bucket, output), count in got.counts.items() if bucket == one.bucket}
        lines += _counts(
            counts, {name: rows for (bucket, name), rows in shown.items() if bucket == one.bucket}
        )
        lines.append("")
    lines += _nothing(got)
    if shown and got.counts.total() > len(got.rows):
        lines.append(f"Only the first {counted(len(got.rows), 'row')} shown; see --max-rows.")
    lines += _notes(got.notes)
    return "\n".join(lines).rstrip()


def _counts(counts: dict[str, int], shown: dict[str, list[ShownRow]]) -> Iterator[str]:
    if not counts:
        yield "  (empty)"
    room = max(map(len, counts), default=0)
    for output, count in sorted(counts.items()):
        yield f"  {output:<{room}}  {count:>7,}"
        yield from (f"    {row.object_id}  {row.data}" for row in shown.get(output, ()))


def _nothing(got: Got) -> Iterator[str]:
    if got.nothing:
        yield "Nothing by these ways:" if got.granted else "No parameter query led to a bucket:"
        yield ""
        several = Counter(one.definition for one in got.nothing)
        for one in got.nothing:
            yield f"  {one.definition}: {one.why}"
            if one.query and several[one.definition] > 1:
                yield f"      in {one.query}"
        yield ""
    if got.unasked:
        yield f"Streams not asked for: {', '.join(got.unasked)}; see --stream."
        yield ""


def _notes(notes: Iterable[str]) -> Iterator[str]:
    return (f"note: {note}" for note in notes)


def facts_of_user(got: Got, *, with_rows: bool) -> dict[str, object]:
    """For programs."""
    buckets = [
        {
            **one._asdict(),
            "rows": {output: count for (bucket, output), count in got.counts.items() if bucket == one.bucket},
        }
        for one in got.granted
    ]
    facts: dict[str, object] = {
        "user": got.user_id,
        "at": got.now,
        "buckets": buckets,
        "nothing": [one._asdict() for one in got.nothing],
        "streams_not_asked_for": got.unasked,
        "notes": got.notes,
    }
    if with_rows:
        facts["rows"] = [{**row._asdict(), "data": orjson.Fragment(row.data)} for row in got.rows]
    return facts


def text_of_row(placement: Placement) -> str:
    """Where the row is, and what keeps it out elsewhere."""
    count = counted(len(placement.is_in), "bucket") if placement.is_in else "no bucket"
    lines = [f"{placement.table} {placement.row_id} is in {count}", ""]
    for one in placement.is_in:
        whose = {True: "  (this user's)", False: "  (not this user's)", None: ""}[one.is_theirs]
        lines.append(f"  {one.bucket} as {one.output}{whose}")
    lines += [""] if placement.is_in else []
    if placement.is_out:
        lines += ["And not by these ways:" if placement.is_in else "What keeps it out:", ""]
        lines += [*_kept_out(placement.is_out), ""]
    if not placement.is_in and not placement.is_out:
        lines += ["No data query reads this table; it only decides about others.", ""]
    return "\n".join([*lines, *_notes(placement.notes)]).rstrip()


def _kept_out(ways: Iterable[Out]) -> Iterator[str]:
    """A line for each way, under what they lead to if there are several."""
    for (bucket, output, count), alike in groupby(ways, key=lambda one: (one.bucket, one.output, one.ways)):
        if count == 1:
            yield from (f"  {bucket} as {output}: {one.why}" for one in alike)
            continue
        yield f"  {bucket} as {output}, of {count} ways:"
        yield from (f"    {one.way}. {one.why}" for one in alike)


def facts_of_row(placement: Placement) -> dict[str, object]:
    """For programs."""
    return {
        "table": placement.table,
        "id": placement.row_id,
        "in": [one._asdict() for one in placement.is_in],
        "not_in": [one._asdict() for one in placement.is_out],
        "notes": placement.notes,
    }
