"""A Look → one screen of text: first what is wrong, then how everything stands. No I/O.

With colour where somebody looks at it; the same words without.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import datetime

import click

from replicator.observe.status.judge import Trouble, troubles
from replicator.observe.status.model import Copy, Look, PartState, Silent, Source, Stored
from replicator.observe.units import size, span

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan", "ok": "green"}
_HEAD = 10
_BAR = 24
#: Tables that are being copied, at most; the rest is counted.
_COPIES_MOST = 8


def screen(look: Look, width: int = 100) -> str:
    """All of it."""
    found = troubles(look)
    lines = [_title(look, found), ""]
    for trouble in found:
        lines += [*_paragraph(trouble, look.at, width), ""]
    lines += [*_source(look), *_storage(look)]
    return "\n".join(line.rstrip() for line in lines)


def _title(look: Look, found: list[Trouble]) -> str:
    at = datetime.fromtimestamp(look.at).strftime("%Y-%m-%d %H:%M:%S")
    bad = [one for one in found if one.level != "note"]
    level = bad[0].level if bad else "ok"
    word = f"{len(bad)} {'thing' if len(bad) == 1 else 'things'} to look at" if bad else "all is well"
    return click.style(f"{word}", fg=_COLOURS[level], bold=True) + click.style(f"   {at}", dim=True)


def _paragraph(trouble: Trouble, now: float, width: int) -> Iterator[str]:
    """What; since when; what it threatens; what to do."""
    head = click.style(f"{trouble.level:<{_HEAD}}", fg=_COLOURS[trouble.level], bold=True)
    room = max(width - _HEAD, 40)
    first, *more = textwrap.wrap(trouble.what, room) or [""]
    yield head + click.style(first, bold=True)
    for line in more:
        yield " " * _HEAD + click.style(line, bold=True)
    if trouble.since is not None:
        at = datetime.fromtimestamp(trouble.since).strftime("%Y-%m-%d %H:%M:%S")
        yield " " * _HEAD + f"since {at}, for {span(max(0.0, now - trouble.since))}"
    for text in (trouble.threat, trouble.remedy):
        for paragraph in text.splitlines():
            for line in textwrap.wrap(paragraph, room):
                yield " " * _HEAD + line


def _row(head: str, *said: str | None) -> str:
    return click.style(f"{head:<{_HEAD}}", dim=True) + ", ".join(one for one in said if one)


def _source(look: Look) -> Iterator[str]:
    yield _row("source", look.source_at)
    source = look.source
    if isinstance(source, Silent):
        yield _row("", "does not answer")
        return
    slot = source.slot
    if slot is None:
        yield _row("slot", f"{look.slot}: not made yet")
        return
    state = "read" if slot.active_pid is not None else "not read by anybody"
    behind = None if slot.lag_bytes is None else f"{size(max(0, slot.lag_bytes))} behind"
    late = None if source.lag_s is None else f"{source.lag_s:.1f} s late"
    yield _row("slot", f"{look.slot}: {state}", behind, late)
    yield _row("log", *_kept(source))


def _kept(source: Source) -> Iterator[str | None]:
    slot = source.slot
    assert slot is not None, "it has been looked for"
    yield None if slot.kept_bytes is None else f"{size(slot.kept_bytes)} kept for the slot"
    if source.room_bytes is None:
        yield "without a limit, and the disk cannot be seen from here"
    else:
        what = "until the slot is lost" if source.limit_bytes is not None else "until the disk is full"
        left = source.seconds_to_full
        yield f"room for {size(source.room_bytes)}" + (f" {what}: {span(left)} unread" if left else "")
    if source.pace:
        yield f"{size(source.pace * 3600)} written an hour"


def _storage(look: Look) -> Iterator[str]:
    yield _row("storage", look.storage_at)
    stored = look.stored
    if isinstance(stored, Silent):
        yield _row("", "does not answer, or is not ready")
        return
    yield _row("replicate", *_replicating(stored, look.at))
    yield from _copies(stored.copies)
    yield _row("rules", *_rules(stored, look.at))
    yield _row("serve", *_serving(look, stored))
    yield _row("record", *_record(look, stored))
    again = [f"{one.part} {one.starts - 1}" for one in stored.parts if one.is_alive and one.starts > 1]
    if again:
        yield _row("restarts", *again)


def _replicating(stored: Stored, now: float) -> Iterator[str]:
    alive = stored.alive("replicate")
    if stored.is_writing:
        yield f"running{_up(alive, now)}"
        standing_by = len(alive) - 1
        if standing_by > 0:
            yield f"{standing_by} standing by"
    else:
        yield "not running"
    if stored.op_id is None or stored.recorded_at is None:
        yield "no checkpoint yet"
        return
    yield f"checkpoint {stored.op_id} at {stored.lsn}, {span(max(0.0, now - stored.recorded_at))} old"
    if stored.shown_op_id != stored.op_id:
        yield f"readers see {stored.shown_op_id or 'nothing yet'}"


def _up(alive: list[PartState], now: float) -> str:
    since = min((one.started_at for one in alive), default=None)
    return "" if since is None else f" for {span(max(0.0, now - since))}"


def _copies(copies: tuple[Copy, ...]) -> Iterator[str]:
    under_way = [copy for copy in copies if copy.state != "copied"]
    done = len(copies) - len(under_way)
    if copies:
        yield _row("tables", f"{done} of {len(copies)} copied")
    longest = max((len(copy.label) for copy in under_way[:_COPIES_MOST]), default=0)
    for copy in under_way[:_COPIES_MOST]:
        full = round(copy.share * _BAR)
        bar = click.style("█" * full, fg="cyan") + "░" * (_BAR - full)
        told = f"{copy.rows_copied:,} of about {max(copy.rows_expected, copy.rows_copied):,} rows"
        rules = f", for rules {copy.rules}" if copy.rules is not None else ""
        yield _row("", f"{copy.label:<{longest}} {bar} {copy.share:4.0%}  {told}{rules}")
    if len(under_way) > _COPIES_MOST:
        yield _row("", f"and {len(under_way) - _COPIES_MOST} more")


def _rules(stored: Stored, now: float) -> Iterator[str]:
    active, preparing = stored.rule("active"), stored.rule("preparing")
    yield (
        "none in force yet"
        if active is None
        else f"version {active.id} in force for {span(now - active.since)}"
    )
    if preparing is not None:
        yield f"version {preparing.id} being prepared for {span(now - preparing.since)}"


def _serving(look: Look, stored: Stored) -> Iterator[str]:
    servers = stored.alive("serve")
    if not servers:
        yield "not running" if look.serves else "not configured: sync has no keys"
        return
    yield (
        f"{len(servers)} running{_up(servers, look.at)}"
        if len(servers) > 1
        else f"running{_up(servers, look.at)}"
    )
    yield f"{stored.clients} {'client' if stored.clients == 1 else 'clients'} connected"


def _record(look: Look, stored: Stored) -> Iterator[str]:
    queue, workers = stored.queue, stored.alive("work")
    if not look.works:
        yield "not configured: ehr.url is not set"
        return
    yield f"running{_up(workers, look.at)}" if workers else "not running"
    yield f"{queue.undelivered} to deliver"
    if queue.oldest_s is not None:
        yield f"the oldest for {span(queue.oldest_s)}"
    yield f"{queue.lanes.get('parked', (0, 0))[0]} parked"
    if stored.outage is not None:
        yield "circuit open"
    done = queue.finished.get("done", 0)
    if done:
        yield f"{done} delivered in the last hour"
