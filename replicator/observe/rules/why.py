"""Where a parameter query ended without a bucket → why, in words.

`ask` tells at which step; what held up to there is found by asking again with ever more of the steps, from
the answers there are already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from replicator.observe.rules.reading import Reading, Values
from replicator.observe.rules.row_values import RowValues, types_apart
from replicator.observe.rules.words import Steps, demands, key_words, literal, of_row
from replicator.rules import keys
from replicator.rules.ask import Asked, ask
from replicator.rules.columns.values import kind_of
from replicator.rules.compile import Need
from replicator.rules.expression import Column, Expression
from replicator.rules.model import (
    Definition,
    Each,
    Find,
    ForEach,
    Key,
    Lookup,
    ParameterQuery,
    Step,
    Variant,
    When,
)

_SHOWN = 3


async def why(reading: Reading, asked: Asked, query: ParameterQuery) -> str:
    """What it was that led nowhere."""
    steps = Steps(query.steps, reading.lookups)
    for at, step in enumerate(query.steps):
        needs = _dead_end(reading, asked, query.steps[: at + 1], ())
        if needs is None:
            continue
        match step:
            case When():
                return f"this does not hold: {steps.demanded(at)[0]}"
            case ForEach(of):
                return f"there is nothing in {steps.words(of)}"
            case Find(lookup):
                if not needs:
                    return _missing(reading, asked, query, at, steps)
                return await _not_found(reading, reading.lookups[lookup], needs)
    nameless = [
        steps.words(value)
        for value in query.values
        if _dead_end(reading, asked, query.steps, (value,)) is not None
    ]
    said = " and ".join(nameless or [steps.words(value) for value in query.values])
    return f"{said}: there is no value, and a bucket is named by it"


def _dead_end(
    reading: Reading, asked: Asked, taken: Sequence[Step], values: tuple[Expression, ...]
) -> tuple[Need, ...] | None:
    """If these steps lead to no such values, what the last of them looked up; None if they do."""
    trial = ParameterQuery(tuple(taken), values, 0)
    asking = ask([Definition("", (Variant("", (), (trial,), ()),))], asked, reading.rules.dialect)
    rounds: list[tuple[Need, ...]] = []
    try:
        needs = next(asking)
        while True:
            rounds.append(tuple(sorted(needs)))
            needs = asking.send({need: reading.known.get(need, ()) for need in needs})
    except StopIteration as end:
        if end.value.granted:
            return None
    # Each step that finds something asks once, if it comes to that.
    finds = sum(isinstance(step, Find) for step in taken)
    return rounds[-1] if taken and isinstance(taken[-1], Find) and len(rounds) == finds else ()


def _missing(reading: Reading, asked: Asked, query: ParameterQuery, at: int, steps: Steps) -> str:
    """Which of the keys that a step looks for is nothing."""
    step = query.steps[at]
    assert isinstance(step, Find), "only what finds something has keys"
    nothing = []
    for key in step.keys:
        more, values = ((ForEach(key.of),), ()) if isinstance(key, Each) else ((), (key,))
        if _dead_end(reading, asked, (*query.steps[:at], *more), values) is not None:
            nothing.append(key_words(key, steps.leaf))
    table = reading.lookups[step.lookup].table
    # Members of an array may all be nothing, each by itself.
    said = " and ".join(nothing or [key_words(key, steps.leaf) for key in step.keys])
    return f"{said} is missing, which {table} is searched by"


async def _not_found(reading: Reading, lookup: Lookup, needs: Sequence[Need]) -> str:
    sought = [keys.unpack(key) for _, key in needs if not key.startswith("#")]
    said = " or ".join(_pairs(lookup, values) for values in sought[:_SHOWN]) or "such a long value"
    more = f" or {len(needs) - _SHOWN} others" if len(needs) > _SHOWN else ""
    if str(lookup.table) in reading.seen.missing:
        return f"the source has no table {lookup.table}"
    what = f"{lookup.table} has no row with {said}{more}"
    if unequal := _never_equal(reading, lookup, sought):
        return f"{what}; {unequal}"
    if not (lookup.filters or lookup.windows):
        return what
    conditions = " and ".join(demands(lookup.filters, lookup.windows, of_row))
    if near := await _nearly(reading, lookup, sought):
        return f"{what} and {conditions}: {near}"
    return f"{what}, whether or not {conditions}"


def _pairs(lookup: Lookup, values: Values) -> str:
    return " and ".join(
        f"{key_words(key, of_row)} = {literal(value)}" for key, value in zip(lookup.keys, values, strict=True)
    )


async def _nearly(reading: Reading, lookup: Lookup, sought: Sequence[Values]) -> str:
    """What a row lacks that has the key; empty if there is none."""
    if not sought:
        return ""
    async for table, row in reading.keyed(lookup, sought):
        values = RowValues(
            table.relation, row, lookup.table, reading.now, reading.rules.dialect, reading.types
        )
        has_key = any(
            all(value in values.members(key) for key, value in zip(lookup.keys, one, strict=True))
            for one in sought
        )
        if not has_key:
            continue
        for predicate in lookup.filters:
            if said := values.failing(predicate):
                return f"there is one, but {said}"
        for window, text in zip(lookup.windows, demands((), lookup.windows, of_row), strict=True):
            if said := values.outside(window, text):
                return f"there is one, but {said}"
    return ""


def _never_equal(reading: Reading, lookup: Lookup, sought: Sequence[Values]) -> str:
    """That a text is compared with a number, which is never equal."""
    columns = _columns_of(reading, lookup)
    for values in sought:
        for key, value in zip(lookup.keys, values, strict=True):
            name = _column_of(key)
            kind = columns.get(name) if name else None
            if kind and (said := types_apart(kind, value)):
                return f"{name} {said}" + (f"; compare {name}::text" if isinstance(value, str) else "")
    return ""


def _columns_of(reading: Reading, lookup: Lookup) -> Mapping[str, str]:
    return {
        column.name: kind_of(column.type_oid, reading.rules.dialect, reading.types)
        for table in reading.seen.tables
        if lookup.table.matches(*table.where)
        for column in table.relation.columns
    }


def _column_of(key: Key) -> str | None:
    expr: Expression = key.of if isinstance(key, Each) else key
    return expr.name if isinstance(expr, Column) and not isinstance(key, Each) else None
