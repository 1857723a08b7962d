"""A row → who could see it, and when: as far back as history has not been compacted.

The row is looked for by its id and its table in all ops; there is no index for that, because keeping one
would cost every change half as much again. Where there are very many ops, only the buckets are looked at in
which the rules put the row today, unless somebody says otherwise; and that is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from replicator import queries
from replicator.buckets.audit import Held, Time, history_of, times_of
from replicator.config import Config
from replicator.database import Connection, check_migrated, connected, rows
from replicator.errors import ConfigError, ReplicatorError
from replicator.observe.audit_who import Who, who_gets
from replicator.observe.rules.row import place
from replicator.rules.model import Rules
from replicator.wal.names import qualify

_q = queries.load("audit")

#: More ops than this are not all read, unless somebody says so.
READ_MAX = 20_000_000
#: What may have been forgotten, as far as people are concerned.
_FORGOTTEN = {
    "entries": "whom lookups led to buckets, and did so no more",
    "buckets": "buckets of rules that are over have been taken away: what they held",
}


class Seen(NamedTuple):
    """A bucket that held the row, and who gets that bucket."""

    held: Held
    since: Time | None
    until: Time | None
    who: list[tuple[Who, Time | None, Time | None]]


@dataclass(slots=True)
class Audit:
    """What is known of who could see a row."""

    table: str
    row_id: str
    seen: list[Seen] = field(default_factory=list)
    #: What cannot be known.
    notes: list[str] = field(default_factory=list)


async def audit(
    config: Config, rules: Rules, name: str, row_id: str, *, at: datetime | None, everywhere: bool
) -> Audit:
    """The buckets that held this row, at one time or ever, and who gets them."""
    schema = config.storage.schema_name
    async with connected(config.storage_dsn, "audit", schema=schema) as storage:
        await check_migrated(storage, schema)
        oid, label = await _table(storage, config.source.slot, name)
        found = Audit(label, row_id)
        size: int = (await rows(storage, _q.size))[0][0]
        buckets = None
        if size > READ_MAX and not everywhere:
            buckets = await _today(config, rules, name, row_id)
            found.notes.append(
                f"storage holds about {size:,} ops: only the buckets were looked at in which the rules "
                "put the row today; --everywhere reads them all"
            )
        history = await history_of(storage, oid, row_id, buckets)
        who = {bucket: [w async for w in who_gets(storage, bucket, rules)] for bucket, *_ in history}
        forgotten = {what: op_id for what, op_id in await rows(storage, _q.forgotten)}
        ops = [op for one in history for op in (one.since, one.until)]
        ops += [op for some in who.values() for one in some for op in (one.since, one.until)]
        [(count, upto)] = await rows(storage, _q.compacted)
        times = await times_of(storage, [*ops, upto, *forgotten.values()])
        for one in history:
            through = [
                (w, times.get(w.since or 0), times.get(w.until or 0))
                for w in who[one.bucket]
                if _is_meanwhile(one, w)
            ]
            seen = Seen(one, times.get(one.since or 0), times.get(one.until or 0), through)
            if at is None:
                found.seen.append(seen)
            elif _may_hold(seen, at):
                found.seen.append(seen._replace(who=[one for one in through if _may_get(*one, at)]))
        if count:
            what = f"{count:,} buckets have been compacted: what they held and lost again"
            found.notes.append(_unknown(what, times[upto], at))
        for name, what in _FORGOTTEN.items():
            if name in forgotten:
                found.notes.append(_unknown(what, times[forgotten[name]], at))
        return found


async def _table(storage: Connection, slot: str, name: str) -> tuple[int, str]:
    found = await rows(storage, _q.table_like, slot=slot, name=name)
    if not found:
        raise ConfigError(f"no table {name} is being replicated", "As `replicator snapshot` names them.")
    if len(found) > 1:
        known = ", ".join(f"{namespace}.{table}" for _, namespace, table in found)
        raise ConfigError(f"there are several tables {name}", f"Say which: {known}.")
    oid, namespace, table = found[0]
    return oid, qualify(namespace, table)


async def _today(config: Config, rules: Rules, name: str, row_id: str) -> list[str]:
    try:
        placement = await place(config, rules, name, row_id, None)
    except ConfigError:
        raise
    except ReplicatorError as error:
        raise ReplicatorError(error.what, "Where it was before takes --everywhere.") from None
    return [one.bucket for one in placement.is_in]


def _may_hold(seen: Seen, at: datetime) -> bool:
    """Whether the bucket held the row then, or may have, as far as the times are known."""
    begun = seen.since.not_before if seen.since is not None else None
    ended = seen.until.by if seen.until is not None else None
    is_begun = begun is None or begun <= at or seen.held.may_be_longer
    return is_begun and (seen.held.until is None or ended is None or at <= ended)


def _may_get(who: Who, since: Time | None, until: Time | None, at: datetime) -> bool:
    """Whether somebody was led to the bucket then, or may have been, as far as the times are known."""
    is_begun = since is None or since.not_before is None or since.not_before <= at
    return is_begun and (who.until is None or until is None or until.by is None or at <= until.by)


def _is_meanwhile(held: Held, who: Who) -> bool:
    """Whether somebody got the bucket at any time at which it held the row, or may have."""
    begun = 0 if held.since is None or held.may_be_longer else held.since
    is_before = who.until is not None and who.until <= begun
    is_after = held.until is not None and who.since is not None and who.since >= held.until
    return not (is_before or is_after)


def _unknown(what: str, time: Time, at: datetime | None) -> str:
    by = "an unknown time" if time.by is None else said(time.by)
    text = f"{what} before {by} is not known"
    if at is not None and (time.by is None or at < time.by):
        text += "; the time that was asked for lies before"
    return text


# -- told ------------------------------------------------------------------------------------------


def said(time: datetime) -> str:
    return time.isoformat(sep=" ", timespec="seconds")


def text_of(found: Audit) -> str:
    return "\n".join(_lines(found))


def _lines(found: Audit) -> Iterator[str]:
    if not found.seen:
        yield f"{found.table} {found.row_id}: no bucket is known to have held it"
    for one in found.seen:
        held = one.held
        longer = " or before" if held.may_be_longer else ""
        until = "now" if held.until is None else _by(one.until)
        yield f"{held.bucket}: as {held.object_type}, from {_by(one.since)}{longer} until {until}"
        for who, since, end in one.who:
            name = who.user if who.user is not None else who.words
            through = f" ({who.words})" if who.user is not None else ""
            times = (
                "" if who.since is None else f", from {_by(since)} until {_by(end) if who.until else 'now'}"
            )
            yield f"  {name}{through}{times}"
    for note in found.notes:
        yield f"note: {note}"


def _by(time: Time | None) -> str:
    return "an unknown time" if time is None or time.by is None else said(time.by)


def facts_of(found: Audit) -> dict[str, object]:
    """The same for programs; of each time, not before which and by which moment it was."""
    return {
        "table": found.table,
        "id": found.row_id,
        "seen": [
            {
                "bucket": one.held.bucket,
                "type": one.held.object_type,
                "since": _fact(one.since),
                "until": _fact(one.until),
                "is_there": one.held.until is None,
                "may_be_longer": one.held.may_be_longer,
                "puts": one.held.puts,
                "who": [
                    {"user": who.user, "how": who.words, "since": _fact(since), "until": _fact(until)}
                    for who, since, until in one.who
                ],
            }
            for one in found.seen
        ],
        "notes": found.notes,
    }


def _fact(time: Time | None) -> dict[str, str | None] | None:
    if time is None:
        return None
    return {name: None if one is None else one.isoformat() for name, one in time._asdict().items()}
