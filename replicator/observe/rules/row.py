"""One row of the source × rules → the buckets it is in, and what keeps it out of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from replicator.config import Config
from replicator.errors import ConfigError, ReplicatorError
from replicator.observe.rules.explain import bucket_name
from replicator.observe.rules.got import User
from replicator.observe.rules.narrow import is_one_of
from replicator.observe.rules.reading import Reading, Values, reading
from replicator.observe.rules.row_values import RowValues
from replicator.observe.rules.tables import SourceTable
from replicator.observe.rules.user import granted_to, notes_of
from replicator.observe.rules.words import demands, key_words, literal, of_row, words
from replicator.rules import keys
from replicator.rules.compile import Compiled, Need
from replicator.rules.compute.scalars import EvaluationError
from replicator.rules.expression import Column, Scalar
from replicator.rules.model import Brought, Each, Join, Key, Lookup, Put, Rules, Term, Variant
from replicator.rules.route import Intent, move
from replicator.wal.messages import Row


class In(NamedTuple):
    """A bucket that holds the row."""

    bucket: str
    output: str
    #: Whether the user who was named gets this bucket; None if nobody was.
    is_theirs: bool | None


class Out(NamedTuple):
    """One way into a kind of bucket that is not open to the row."""

    bucket: str
    output: str
    #: Which of how many.
    way: int
    ways: int
    why: str


@dataclass(slots=True)
class Placement:
    """What becomes of one row."""

    table: str
    row_id: str
    is_in: list[In] = field(default_factory=list)
    is_out: list[Out] = field(default_factory=list)
    #: Whether lookups are made of the table.
    has_lookups: bool = False
    notes: list[str] = field(default_factory=list)


async def place(config: Config, rules: Rules, name: str, row_id: str, user: User | None) -> Placement:
    """Where the row of this table with this id is."""
    async with reading(config, rules) as source:
        table = _table(source, name)
        row = await _find(source, table, row_id)
        compiled = source.compiled(table)
        assert compiled is not None, "a rule names the table"
        theirs = {one.bucket for one in (await granted_to(source, user)).granted} if user else None
        known = await source.answer(compiled.needs(row))
        placed = [
            *compiled.place(row, source.now),
            *compiled.place_joined(row, source.now, lambda need: known[need]),
        ]
        placement = Placement(table.label, row_id, has_lookups=compiled.has_entries)
        puts: list[Intent] = []
        move(compiled, None, row, (), placed, puts.append)
        placement.is_in = [
            In(put.bucket, put.object_type, None if theirs is None else put.bucket in theirs)
            for put in puts
            if isinstance(put, Put)
        ]
        placement.is_out = _kept_out(source, table, compiled, row, known)
        placement.notes = [note for note in notes_of(source, config) if note.startswith(f"{table.label} ")]
        return placement


def _table(source: Reading, name: str) -> SourceTable:
    for table in source.seen.tables:
        if name in (table.label, ".".join(table.where), table.relation.name):
            return table
    known = ", ".join(table.label for table in source.seen.tables)
    if name in source.seen.missing:
        raise ReplicatorError(f"the source has no table {name}", f"Of the rules' tables it has: {known}.")
    for other, kind in source.seen.others:
        if name in (other, f"public.{other}"):
            what = f"{name} is {kind}: none of its rows is replicated"
            raise ReplicatorError(
                what, "Only changes of tables are in the log: let rules name what it is made of."
            )
    raise ConfigError(f"no rule names a table {name}", f"The rules name: {known}.")


async def _find(source: Reading, table: SourceTable, row_id: str) -> Row:
    names = [column.name for column in table.relation.columns]
    at = names.index("id") if "id" in names else table.key_at[0] if len(table.key_at) == 1 else None
    if at is None:
        what = f"{table.label} has neither a column id nor a key of one column"
        raise ReplicatorError(what, "Its rows cannot be asked for by one value.")
    column = Column(names[at])
    where = is_one_of(column, [row_id], table.relation, source.types, source.rules.dialect, as_text=True)
    async for page in source.pages(table, where):
        for row in page:
            if row[at] == row_id:
                return row
    raise ReplicatorError(
        f"{table.label} has no row with {names[at]} = {literal(row_id)}",
        "It is compared with the value as Postgres prints it, letter by letter."
        + (" Rows that the publication's row filter leaves out do not count." if table.row_filter else ""),
    )


# -- What keeps a row out --------------------------------------------------------------------------


def _kept_out(
    source: Reading, table: SourceTable, compiled: Compiled, row: Row, known: Mapping[Need, set[Values]]
) -> list[Out]:
    found: list[Out] = []
    for variant in source.rules.variants():
        for query in variant.data:
            if not query.table.matches(*table.where):
                continue
            values = RowValues(
                table.relation, row, query.table, source.now, source.rules.dialect, source.types
            )
            for way, term in enumerate(query.terms, 1):
                said = _why(_Way(source.lookups, variant, term, values, known))
                if said is not None:
                    output = query.output or table.relation.name
                    found.append(Out(bucket_name(variant), output, way, len(query.terms), said))
    return found


class _Way(NamedTuple):
    """One term, a row, and what has been looked up for it."""

    lookups: Mapping[str, Lookup]
    variant: Variant
    term: Term
    row: RowValues
    known: Mapping[Need, set[Values]]


def _why(way: _Way) -> str | None:
    """The first thing that keeps the row out; None if it is in."""
    try:
        return _of_itself(way) or _of_joins(way) or _of_both(way)
    except EvaluationError as error:
        return f"this cannot be evaluated: {error}"


def _of_itself(way: _Way) -> str | None:
    term, row = way.term, way.row
    for predicate in term.filters:
        if said := row.failing(predicate):
            return said
    for window, text in zip(term.windows, demands((), term.windows, of_row), strict=True):
        if said := row.outside(window, text):
            return said
    for name, value in zip(way.variant.parameters, term.values, strict=True):
        if not isinstance(value, Brought) and not row.members(value):
            return f"{_nothing(value)}, and bucket.{name} is found by it"
    return None


def _nothing(key: Key) -> str:
    if isinstance(key, Each):
        return f"there is nothing in {words(key.of, of_row)}"
    return f"{words(key, of_row)} is NULL"


def _of_joins(way: _Way) -> str | None:
    for join in way.term.joins:
        lookup = way.lookups[join.lookup]
        values = way.row.members(join.key)
        if not values:
            return f"{_nothing(join.key)}, and {lookup.table} is searched by it"
        if not _brought(way, join):
            sought = " or ".join(literal(value) for value in values[:3])
            said = [f"{key_words(lookup.keys[0], of_row)} = {sought}"]
            said += demands(lookup.filters, lookup.windows, of_row)
            return f"{lookup.table} has no row with {' and '.join(said)}"
    return None


def _brought(way: _Way, join: Join) -> list[Values]:
    needs = [
        (join.lookup, keys.short(key))
        for value in way.row.members(join.key)
        if (key := keys.key([value])) is not None
    ]
    return [values for need in needs for values in way.known.get(need, ())]


def _of_both(way: _Way) -> str | None:
    """What the row says and what is found for it, together."""
    found = [_brought(way, join) for join in way.term.joins]
    if any(_fits(way, brought) for brought in product(*found)):
        return None
    for name, value in zip(way.variant.parameters, way.term.values, strict=True):
        if isinstance(value, Brought) and all(one[value.at] is None for one in found[value.join]):
            lookup = way.lookups[way.term.joins[value.join].lookup]
            column = words(lookup.values[value.at], of_row)
            return f"{column} is NULL in the row of {lookup.table}, and bucket.{name} is found by it"
    for pair in way.term.same:
        if not any(_is_same(way, pair, brought) for brought in product(*found)):
            one = way.term.values[pair[0]]
            return f"{_said(way, one)} and {_said(way, pair[1])} are not the same"
    tables = " and ".join(f"a row of {way.lookups[join.lookup].table}" for join in way.term.joins)
    return f"there is {tables} for each of its conditions, but none for all of them together"


def _fits(way: _Way, brought: Sequence[Values]) -> bool:
    return all(_options(way, value, brought) for value in way.term.values) and all(
        _is_same(way, pair, brought) for pair in way.term.same
    )


def _is_same(way: _Way, pair: tuple[int, Key | Brought], brought: Sequence[Values]) -> bool:
    at, also = pair
    as_text = way.variant.as_text[at] if way.variant.as_text else False
    one, other = (
        {keys.word(keys.as_text(value) if as_text else value) for value in _options(way, part, brought)}
        for part in (way.term.values[at], also)
    )
    return bool(one & other)


def _options(way: _Way, part: Key | Brought, brought: Sequence[Values]) -> list[Scalar]:
    if not isinstance(part, Brought):
        return way.row.members(part)
    value = brought[part.join][part.at]
    return [] if value is None else [value]


def _said(way: _Way, part: Key | Brought) -> str:
    if not isinstance(part, Brought):
        return key_words(part, of_row)
    lookup = way.lookups[way.term.joins[part.join].lookup]
    return f"{lookup.table}.{words(lookup.values[part.at], of_row)}"
