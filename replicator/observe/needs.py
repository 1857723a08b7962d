"""Rules and a mapping → the tables they need, and the columns that must be there. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from replicator.ehr.model import RecordMapping
from replicator.ehr.used import columns_followed
from replicator.rules.expression import Call, Column, Expression
from replicator.rules.model import Brought, DataQuery, Each, Key, Lookup, Output, Rules, Star, Term
from replicator.settings.keys import SubjectKeys
from replicator.wal.catalogue import Need


def needs_of(
    rules: Rules, mapping: RecordMapping | None = None, subject: SubjectKeys | None = None
) -> list[Need]:
    """Every table the rules name, with the columns they decide by and show; every one that is mapped; and
    those in which only patients, or the subjects of tokens, are looked up.
    """
    columns: dict[tuple[str, str], set[str]] = {table: set() for table in rules.tables()}
    for name, column in columns_followed(mapping) if mapping is not None else ():
        namespace, _, table = name.partition(".")
        columns.setdefault((namespace, table), set()).add(column)
    for variant in rules.variants():
        for query in variant.data:
            columns[query.table.namespace or "public", query.table.name] |= set(_of_query(query))
    for lookup in (*rules.lookups, *rules.writes):
        columns[lookup.table.namespace or "public", lookup.table.name] |= set(_of_lookup(lookup))
    followed = [Need(*table, frozenset(columns[table])) for table in sorted(columns)]
    read = sorted(set(_looked_up(mapping, subject)) - columns.keys())
    return followed + [Need(*table, frozenset(), is_followed=False) for table in read]


def _looked_up(mapping: RecordMapping | None, subject: SubjectKeys | None) -> Iterator[tuple[str, str]]:
    names = [] if mapping is None else [table.patient.through for table in mapping.tables.values()]
    for name in (*names, subject.table if subject is not None else None):
        if name is not None:
            namespace, _, table = name.rpartition(".")
            yield namespace or "public", table


def _of_query(query: DataQuery) -> Iterator[str]:
    for column in query.columns:
        if isinstance(column, Star):
            yield "id"
        elif isinstance(column, Output):
            yield from columns_in(column.value)
    for term in query.terms:
        yield from _of_term(term)


def _of_term(term: Term) -> Iterator[str]:
    yield from _in_all(predicate.test for predicate in term.filters)
    yield from _in_all(window.moment for window in term.windows)
    yield from _in_keys(term.values)
    yield from _in_keys(join.key for join in term.joins)
    yield from _in_keys(other for _, other in term.same)


def _of_lookup(lookup: Lookup) -> Iterator[str]:
    yield from _in_all(predicate.test for predicate in lookup.filters)
    yield from _in_all(window.moment for window in lookup.windows)
    yield from _in_keys(lookup.keys)
    yield from _in_all(lookup.values)


def _in_keys(keys: Iterable[Key | Brought]) -> Iterator[str]:
    for key in keys:
        if not isinstance(key, Brought):
            yield from columns_in(key.of if isinstance(key, Each) else key)


def _in_all(expressions: Iterable[Expression]) -> Iterator[str]:
    for expression in expressions:
        yield from columns_in(expression)


def columns_in(expression: Expression) -> Iterator[str]:
    """The names of the columns that an expression is about."""
    unseen = [expression]
    while unseen:
        part = unseen.pop()
        if isinstance(part, Column):
            yield part.name
        elif isinstance(part, Call):
            unseen += part.args
