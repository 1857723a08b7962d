"""An Explanation → plain lines that fit a narrow terminal, or facts for a program. No I/O."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from replicator.observe.rules.explained import (
    Bucket,
    Defined,
    Entrance,
    Explanation,
    Maintained,
    Needed,
    Rows,
)

#: Longer names have a line of their own.
_NAME_MAX = 27
_GLUE, _GLUED_MAX = "\N{NO-BREAK SPACE}", 50


def facts_of(explanation: Explanation) -> dict[str, object]:
    """For programs."""
    return asdict(explanation)


def text_of(explanation: Explanation, width: int = 100) -> str:
    """For people, from top to bottom: what happens, and what it takes."""
    lines = [line for defined in explanation.definitions for line in _defined(defined, width)]
    if explanation.lookups:
        lines += ["Lookups: a change of one of these rows also changes an entry in storage.", ""]
        lines += [*_lookups(explanation.lookups, width), ""]
    lines += ["Tables: all of these have to be published.", "", *_tables(explanation.tables, width), ""]
    if any(table.is_kept for table in explanation.tables):
        lines += ["  * Its rows are kept in storage as they are: other rows, or time, move them.", ""]
    lines += ["Publication: `replicator publication plan` compares it with what there is.", ""]
    lines += [f"  {line}" for line in explanation.publication.splitlines()]
    return "\n".join(lines)


def _defined(defined: Defined, width: int) -> Iterator[str]:
    if defined.is_stream:
        who = "everybody who connects" if defined.auto_subscribe else "those who subscribe to it"
        yield f"stream {defined.name}: for {who}"
        yield ""
    for bucket in defined.buckets:
        yield from _bucket(bucket, width)
        yield ""


def _bucket(bucket: Bucket, width: int) -> Iterator[str]:
    priorities = sorted({one.priority for one in bucket.reached})
    is_one = len(priorities) == 1
    yield f"{bucket.name}  priority {priorities[0]}" if is_one else bucket.name
    for name in bucket.as_text:
        yield f"  {name} is compared as text"
    for place, one in enumerate(bucket.reached):
        who = one.who if place == 0 else f"or {one.who}"
        yield from _wrapped(who if is_one else f"{who}  (priority {one.priority})", 2, 6, width)
        yield from _where(one.where, 4, width)
    room = max([len(rows.label) for rows in bucket.rows if len(rows.label) <= _NAME_MAX], default=0)
    yield "  holds"
    for rows in bucket.rows:
        yield from _rows(rows, room, width)


def _rows(rows: Rows, room: int, width: int) -> Iterator[str]:
    indent = 4 + room + 2
    lines = list(_entrances(rows.entrances, indent, width))
    if rows.columns != ("*",):
        lines += _wrapped(f"sends {', '.join(rows.columns)}", indent, indent + 6, width)
    if len(rows.label) > room:
        yield f"    {rows.label}"
        yield from lines
    else:
        yield f"    {rows.label:<{room}}  {lines[0].lstrip()}"
        yield from lines[1:]


def _entrances(entrances: Sequence[Entrance], indent: int, width: int) -> Iterator[str]:
    if entrances == (Entrance(()),):
        yield " " * indent + "all rows"
        return
    for place, entrance in enumerate(entrances):
        phrases = [*entrance.where, "one of these:"] if entrance.one_of else entrance.where
        yield from _where(phrases, indent, width, "or where" if place else "where")
        for several in entrance.one_of:
            yield from _wrapped(_glued(several), indent + 4, indent + 6, width)


def _where(phrases: Sequence[str], indent: int, width: int, first: str = "where") -> Iterator[str]:
    for place, phrase in enumerate(phrases):
        # Phrases are easier to read below one another than in one long line.
        lead = first if place == 0 else "  and"
        yield from _wrapped(f"{lead} {phrase}", indent, indent + len(lead) + 3, width)


def _glued(phrases: Sequence[str]) -> str:
    """Phrases that lines are rather broken between than within."""
    first, *more = (phrase if len(phrase) > _GLUED_MAX else phrase.replace(" ", _GLUE) for phrase in phrases)
    return " ".join([first, *(f"and{_GLUE}{phrase}" for phrase in more)])


def _lookups(lookups: Sequence[Maintained], width: int) -> Iterator[str]:
    heads = [
        f"{one.table}: {', '.join(one.keys) or 'all'} -> {', '.join(one.values) or 'is there'}"
        for one in lookups
    ]
    room = max([len(head) for head in heads if len(head) <= 40], default=20)
    for head, lookup in zip(heads, lookups, strict=True):
        uses = "; ".join(lookup.uses)
        if len(head) > room:
            yield from _wrapped(head, 2, 6, width)
            head = ""
        yield from _wrapped(
            f"{head:<{room}}  {uses}" if head else uses, 2 if head else room + 4, room + 6, width
        )
        yield from _where(lookup.where, 6, width, "only where")


def _tables(tables: Sequence[Needed], width: int) -> Iterator[str]:
    lines = [("", "decided by", "sent to clients")]
    for table in tables:
        sent = "all columns" if table.sent == ("*",) else ", ".join(table.sent) or "nothing"
        name = f"{table.table} *" if table.is_kept else table.table
        lines.append((name, ", ".join(table.decided_by) or "nothing", sent))
    first, second = (min(_NAME_MAX, max(len(line[at]) for line in lines)) for at in (0, 1))
    for line in lines:
        yield from _columns(line, (first, second), width)


def _columns(cells: tuple[str, str, str], rooms: tuple[int, int], width: int) -> Iterator[str]:
    """Three cells beside one another, each wrapped in its own room."""
    last = max(20, width - sum(rooms) - 6)
    wrapped = [textwrap.wrap(cell, room) or [""] for cell, room in zip(cells, (*rooms, last), strict=True)]
    for at in range(max(map(len, wrapped))):
        parts = [cell[at] if at < len(cell) else "" for cell in wrapped]
        yield f"  {parts[0]:<{rooms[0]}}  {parts[1]:<{rooms[1]}}  {parts[2]}".rstrip()


def _wrapped(text: str, indent: int, further: int, width: int) -> Iterator[str]:
    # textwrap does not take this space for one.
    wrapped = textwrap.wrap(
        text,
        max(width, further + 30),
        initial_indent=" " * indent,
        subsequent_indent=" " * further,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return (line.replace(_GLUE, " ").rstrip() for line in wrapped)
