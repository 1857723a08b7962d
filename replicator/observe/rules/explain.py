"""Rules → what they come to, in words: who gets which rows in which buckets, and what it takes. No I/O."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

from replicator.observe.rules.explained import Bucket, Defined, Entrance, Explanation, Reached, Rows
from replicator.observe.rules.takes import maintained, needed, only, statement
from replicator.observe.rules.words import Steps, compared, demands, key_words, of_row, of_table, words
from replicator.rules.expression import Column, Found
from replicator.rules.model import (
    Brought,
    DataQuery,
    Definition,
    Each,
    Find,
    Join,
    Key,
    Lookup,
    Output,
    ParameterQuery,
    Rules,
    Star,
    Term,
    Variant,
)
from replicator.wal.names import quote


def explain(rules: Rules, publication: str, name: str | None = None) -> Explanation:
    """What the rules come to; with a name, only that definition and what it needs."""
    if name is not None:
        rules = only(rules, name)
    lookups = {lookup.id: lookup for lookup in rules.lookups}
    return Explanation(
        rules.dialect.edition,
        tuple(_defined(definition, lookups) for definition in rules.definitions),
        tuple(maintained(lookup, rules) for lookup in rules.lookups),
        tuple(needed(table, rules) for table in rules.table_names()),
        statement(rules, publication),
    )


def _defined(definition: Definition, lookups: Mapping[str, Lookup]) -> Defined:
    buckets = tuple(_bucket(variant, lookups) for variant in definition.variants)
    return Defined(definition.name, definition.is_stream, definition.auto_subscribe, buckets)


def _bucket(variant: Variant, lookups: Mapping[str, Lookup]) -> Bucket:
    as_text = variant.as_text or (False,) * len(variant.parameters)
    return Bucket(
        bucket_name(variant),
        tuple(name for name, is_text in zip(variant.parameters, as_text, strict=True) if is_text),
        tuple(_reached(query, variant, lookups) for query in variant.queries),
        tuple(_rows(query, variant, lookups) for query in variant.data),
    )


def bucket_name(variant: Variant) -> str:
    """`user_data[user_id]`"""
    return f"{variant.name}[{', '.join(variant.parameters)}]"


def _reached(query: ParameterQuery, variant: Variant, lookups: Mapping[str, Lookup]) -> Reached:
    steps = Steps(query.steps, lookups)
    # What is found last comes first: it is what the buckets are named by.
    where = [phrase for at in reversed(range(len(query.steps))) for phrase in steps.demanded(at)]
    each = [steps.words(value) for value in query.values if isinstance(value, Found)]
    fixed = [
        f"{name} = {steps.words(value)}"
        for name, value in zip(variant.parameters, query.values, strict=True)
        if not isinstance(value, Found)
    ]
    if each:
        who = f"one bucket per {' and '.join(each)}" + (f", with {' and '.join(fixed)}" if fixed else "")
    elif fixed:
        who = f"the bucket with {' and '.join(fixed)}"
    elif any(isinstance(step, Find) for step in query.steps):
        last = max(at for at, step in enumerate(query.steps) if isinstance(step, Find))
        who = f"the one bucket, if there is a row of {steps.table(last)}"
    else:
        who = "the one bucket" if query.steps else "everybody gets the one bucket"
    return Reached(who, tuple(where), query.priority)


def _rows(query: DataQuery, variant: Variant, lookups: Mapping[str, Lookup]) -> Rows:
    entrances = [_entrance(term, variant, lookups) for term in query.terms]
    columns = tuple(_column(column) for column in query.columns)
    return Rows(str(query.table), query.output, columns, tuple(_merged(entrances)))


def _column(column: Star | Output) -> str:
    if isinstance(column, Star):
        return "*"
    name, value = column.name, column.value
    if isinstance(value, Column) and value.name == name:
        return quote(name)
    return f"{words(value, of_row)} AS {quote(name)}"


def _entrance(term: Term, variant: Variant, lookups: Mapping[str, Lookup]) -> Entrance:
    where = [
        _placed(value, name)
        for name, value in zip(variant.parameters, term.values, strict=True)
        if not isinstance(value, Brought)
    ]
    where += demands(term.filters, term.windows, of_row)
    joined = [_joined(at, join, term, variant, lookups) for at, join in enumerate(term.joins)]
    for at, other in term.same:
        where.append(f"{_side(term.values[at], term, lookups)} is the same as {_side(other, term, lookups)}")
    if len(joined) == 1:
        return Entrance(tuple(where), (tuple(joined[0]),))
    return Entrance((*where, *itertools.chain.from_iterable(joined)))


def _placed(value: Key, name: str) -> str:
    if isinstance(value, Each):
        return f"{words(value.of, of_row)} has the member bucket.{name}"
    return f"{words(value, of_row)} = bucket.{name}"


def _joined(at: int, join: Join, term: Term, variant: Variant, lookups: Mapping[str, Lookup]) -> list[str]:
    """What a join demands: of the row, of the one it finds, and that this one's values are the bucket's."""
    lookup = lookups[join.lookup]
    row = of_table(str(lookup.table))
    said = [compared(join.key, of_row, key, row) for key in lookup.keys]
    for name, value in zip(variant.parameters, term.values, strict=True):
        if isinstance(value, Brought) and value.join == at:
            said.append(f"{words(lookup.values[value.at], row)} = bucket.{name}")
    return said + demands(lookup.filters, lookup.windows, row)


def _side(part: Key | Brought, term: Term, lookups: Mapping[str, Lookup]) -> str:
    if isinstance(part, Brought):
        lookup = lookups[term.joins[part.join].lookup]
        return words(lookup.values[part.at], of_table(str(lookup.table)))
    return key_words(part, of_row)


def _merged(entrances: Iterable[Entrance]) -> Iterator[Entrance]:
    """Those that differ only in what one join leads to, as one."""
    for (where, is_joined), alike in itertools.groupby(
        entrances, key=lambda one: (one.where, bool(one.one_of))
    ):
        several = list(alike)
        if is_joined and len(several) > 1:
            yield Entrance(where, tuple(phrases for one in several for phrases in one.one_of))
            continue
        for one in several:
            yield Entrance((*one.where, *itertools.chain.from_iterable(one.one_of)))
