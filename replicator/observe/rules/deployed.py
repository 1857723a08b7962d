"""Plans, estimates, outcomes and sets → lines for a person, or facts for a program. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from replicator.buckets.deploy import RuleSet, Standing
from replicator.observe.rules.deploying import Outcome, Plan, Reading
from replicator.observe.rules.estimate import Estimate
from replicator.text.counted import counted

_STANDING = {"active": "in force", "preparing": "being prepared", "retired": "over", "failed": "failed"}


def text_of_plan(plan: Plan, estimated: Estimate) -> str:
    """What a deploy would do."""
    lines = [*_definitions(plan.becomes), ""]
    if not plan.tables:
        return "\n".join([*lines, "Nothing has to be read: it would be in force at once."])
    lines.append("Tables that have to be read, by the source's own statistics:")
    width = max(len(one.table) for one in estimated.tables)
    for one in estimated.tables:
        buckets = counted(one.buckets_per_row, "bucket") + " a row"
        lines.append(
            f"  {one.table:<{width}}  about {counted(one.rows, 'row')}, {buckets}, {_bytes(one.bytes)}"
        )
    whence = "as measured here" if estimated.is_measured else "the usual; none has been measured here"
    lines += [
        "",
        f"About {counted(estimated.rows, 'row')}, {_bytes(estimated.bytes)} of storage, and "
        f"{_time(estimated.seconds)} at {estimated.rate:,.0f} rows a second ({whence}).",
    ]
    if plan.beside is not None:
        lines.append(f"Rules {plan.beside} stay in force until then.")
    return "\n".join(lines)


def facts_of_plan(plan: Plan, estimated: Estimate) -> dict[str, object]:
    return {
        "dry_run": True,
        "rules": plan.number,
        "beside": plan.beside,
        "definitions": plan.becomes,
        "tables": [one._asdict() for one in estimated.tables],
        "rows": estimated.rows,
        "seconds": round(estimated.seconds, 1),
        "bytes": estimated.bytes,
        "rows_per_second": round(estimated.rate),
        "is_measured": estimated.is_measured,
    }


def text_of_outcome(outcome: Outcome) -> str:
    match outcome.state:
        case "active":
            last = f"rules {outcome.number} are in force"
        case "preparing":
            last = f"rules {outcome.number} are being prepared; see: replicator rules list"
        case _:
            last = f"rules {outcome.number} failed: {outcome.why}. What was in force still is."
    return "\n".join([*_definitions(outcome.becomes), last])


def facts_of_outcome(outcome: Outcome) -> dict[str, object]:
    return {
        "rules": outcome.number,
        "state": outcome.state,
        "why": outcome.why,
        "definitions": outcome.becomes,
    }


def text_of_sets(known: Standing, reading: Mapping[int, Sequence[Reading]]) -> str:
    if not known.sets:
        return "no rules have been deployed yet: the first `replicator run` deploys the configured file"
    return "\n".join(line for one in known.sets for line in _set(one, reading.get(one.id, ())))


def facts_of_sets(known: Standing, reading: Mapping[int, Sequence[Reading]]) -> dict[str, object]:
    return {
        "rules": [
            {
                "rules": one.id,
                "state": one.state,
                "why": one.why,
                "origin": one.origin,
                "stored_at": one.stored_at,
                "active_at": one.active_at,
                "ended_at": one.ended_at,
                "cleaned_at": one.cleaned_at,
                "definitions": {name: named.version for name, named in one.versions.definitions.items()},
                "tables": [
                    {
                        "table": f"{table.namespace}.{table.name}",
                        "state": table.state,
                        "rows": table.rows_copied,
                        "rows_expected": table.rows_expected,
                    }
                    for table in reading.get(one.id, ())
                ],
            }
            for one in known.sets
        ]
    }


def _definitions(becomes: Mapping[str, str]) -> Iterator[str]:
    width = max(map(len, becomes), default=0)
    for name, what in becomes.items():
        yield f"{name:<{width}}  {what}"


def _set(one: RuleSet, reading: Sequence[Reading]) -> Iterator[str]:
    whence = "the configured file" if one.origin == "config" else "rules deploy"
    moments = [("stored", one.stored_at), ("in force", one.active_at), ("over", one.ended_at)]
    times = ", ".join(f"{what} {at:%Y-%m-%d %H:%M:%S}" for what, at in moments if at is not None)
    yield f"{one.id:>4}  {_STANDING[one.state]}  from {whence}: {times}"
    if one.why is not None:
        yield f"      {one.why}"
    names = [f"{named.version}#{name}" for name, named in one.versions.definitions.items()]
    if one.state in ("active", "preparing"):
        yield f"      {', '.join(names)}"
    for table in reading:
        yield f"      {table.namespace}.{table.name}: {table.state}, {counted(table.rows_copied, 'row')}"


def _bytes(size: int) -> str:
    for unit, many in (("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)):
        if size >= many:
            return f"about {size / many:,.1f} {unit}"
    return f"about {size} bytes"


def _time(seconds: float) -> str:
    if seconds < 1:
        return "less than a second"
    return f"{seconds / 60:,.0f} minutes" if seconds >= 120 else f"{seconds:,.0f} seconds"
