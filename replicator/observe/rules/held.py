"""The buckets a user gets × the source as it is now → the rows in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from psycopg import sql

from replicator.observe.rules.got import Got, ShownRow
from replicator.observe.rules.narrow import either, every, is_one_of
from replicator.observe.rules.reading import Reading
from replicator.observe.rules.row_values import types_apart
from replicator.observe.rules.tables import SourceTable
from replicator.rules import keys
from replicator.rules.columns.values import kind_of
from replicator.rules.compile import Compiled
from replicator.rules.expression import Column, Scalar
from replicator.rules.model import Brought, DataQuery, Each, Put, Term, Variant
from replicator.rules.route import Intent, move
from replicator.wal.messages import Row

#: By variant: of each of its buckets that the user gets, the values.
BucketValues = Mapping[str, Sequence[tuple[Scalar, ...]]]


async def count_rows(source: Reading, got: Got, most_rows: int) -> None:
    """Count the rows in each of the buckets, and keep so many of them."""
    values: dict[str, list[tuple[Scalar, ...]]] = {}
    for one in got.granted:
        values.setdefault(one.variant, []).append(keys.unpack(one.bucket[len(one.variant) :]))
    buckets = {one.bucket for one in got.granted}
    for table in source.seen.tables:
        compiled = source.compiled(table)
        queries = [
            (variant, query)
            for variant in source.rules.variants()
            for query in variant.data
            if variant.name in values and query.table.matches(*table.where)
        ]
        if compiled is None or not queries:
            continue
        got.notes += dict.fromkeys(_never_equal(source, table, queries, values))
        where = await narrow_to(source, table, queries, values)
        async for page in source.pages(table, where):
            await _count_page(source, compiled, page, buckets, got, most_rows)


async def narrow_to(
    source: Reading,
    table: SourceTable,
    queries: Sequence[tuple[Variant, DataQuery]],
    values: BucketValues,
) -> sql.Composable | None:
    conditions = [
        await _of_term(source, table, variant, term, values[variant.name])
        for variant, query in queries
        for term in query.terms
    ]
    return either(conditions)


async def _of_term(
    source: Reading, table: SourceTable, variant: Variant, term: Term, values: Sequence[tuple[Scalar, ...]]
) -> sql.Composable | None:
    as_text = variant.as_text or (False,) * len(variant.parameters)
    dialect, types = source.rules.dialect, source.types
    conditions: list[sql.Composable | None] = []
    for at, value in enumerate(term.values):
        wanted = {one[at] for one in values}
        if isinstance(value, Each):
            continue
        if not isinstance(value, Brought):
            narrow = is_one_of(value, wanted, table.relation, types, dialect, as_text=as_text[at])
            conditions.append(narrow)
            continue
        join = term.joins[value.join]
        if isinstance(join.key, Each):
            continue
        lookup = source.lookups[join.lookup]
        leading = await source.leading_to(lookup, value.at, wanted, as_text[at])
        if leading is not None:
            conditions.append(is_one_of(join.key, leading, table.relation, types, dialect))
    return every(conditions)


def _never_equal(
    source: Reading,
    table: SourceTable,
    queries: Sequence[tuple[Variant, DataQuery]],
    values: BucketValues,
) -> Iterator[str]:
    """Columns that are compared with what they can never be equal to, in all the user's buckets."""
    kinds = {
        column.name: kind_of(column.type_oid, source.rules.dialect, source.types)
        for column in table.relation.columns
    }
    for variant, query in queries:
        as_text = variant.as_text or (False,) * len(variant.parameters)
        for at, name in enumerate(variant.parameters):
            for term in query.terms:
                column = term.values[at]
                if as_text[at] or not isinstance(column, Column):
                    continue
                said = [types_apart(kinds[column.name], one[at]) for one in values[variant.name]]
                if said[0] is not None and None not in said:
                    remedy = f"write bucket.{name}::text to compare them as text"
                    yield f"{table.label}: {column.name} {said[0]}, as bucket.{name} is; {remedy}"


async def _count_page(
    source: Reading,
    compiled: Compiled,
    page: Sequence[Row],
    buckets: set[str],
    got: Got,
    most_rows: int,
) -> None:
    needs = {need for row in page for need in compiled.needs(row)}
    # There may be as many as the table has rows.
    known = await source.answer(needs, forget=True)
    for row in page:
        placed = [
            *compiled.place(row, source.now),
            *compiled.place_joined(row, source.now, lambda need: known[need]),
        ]
        # As replication would put it: it has the last word on what is shown, and whether it can be.
        puts: list[Intent] = []
        move(compiled, None, row, (), [one for one in placed if one[0] in buckets], puts.append)
        for put in puts:
            assert isinstance(put, Put), "there was nothing before"
            got.counts[put.bucket, put.object_type] += 1
            if len(got.rows) < most_rows:
                got.rows.append(ShownRow(put.bucket, put.object_type, put.object_id, put.data))
