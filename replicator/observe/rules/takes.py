"""Rules → what they take: lookups kept up to date, tables published, rows stored. No I/O."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from replicator.errors import ConfigError
from replicator.observe.needs import columns_in, needs_of
from replicator.observe.rules.explained import Maintained, Needed
from replicator.observe.rules.words import demands, key_words, of_row, words
from replicator.rules.model import (
    DataQuery,
    Definition,
    Find,
    Join,
    Lookup,
    Rules,
    Star,
    TableName,
    Term,
    Variant,
)
from replicator.wal.names import qualify, quote


def only(rules: Rules, name: str) -> Rules:
    """The rules as if this were their only definition."""
    definitions = tuple(one for one in rules.definitions if one.name == name)
    if not definitions:
        known = ", ".join(one.name for one in rules.definitions)
        raise ConfigError(f"there is no definition {name} in these rules", f"There are: {known}.")
    used = {
        lookup
        for variant in definitions[0].variants
        for lookup in itertools.chain(found_by(variant), (join.lookup for _, _, join in joins_of(variant)))
    }
    lookups = tuple(lookup for lookup in rules.lookups if lookup.id in used)
    return Rules(definitions, lookups, rules.dialect, rules.warnings)


def found_by(variant: Variant) -> set[str]:
    return {step.lookup for query in variant.queries for step in query.steps if isinstance(step, Find)}


def joins_of(variant: Variant) -> Iterator[tuple[DataQuery, Term, Join]]:
    for query in variant.data:
        for term in query.terms:
            for join in term.joins:
                yield query, term, join


def maintained(lookup: Lookup, rules: Rules) -> Maintained:
    who = [one.name for one in rules.definitions if any(lookup.id in found_by(each) for each in one.variants)]
    moves = [
        (one.name, str(query.table))
        for one in rules.definitions
        for variant in one.variants
        for query, _, join in joins_of(variant)
        if join.lookup == lookup.id
    ]
    uses = [f"decides who gets {name}" for name in who]
    uses += [f"moves rows of {table} in {name}" for name, table in dict.fromkeys(moves)]
    return Maintained(
        lookup.id,
        str(lookup.table),
        tuple(key_words(key, of_row) for key in lookup.keys),
        tuple(words(value, of_row) for value in lookup.values),
        tuple(demands(lookup.filters, lookup.windows, of_row)),
        tuple(uses),
    )


def needed(table: TableName, rules: Rules) -> Needed:
    queries = [query for variant in rules.variants() for query in variant.data if query.table == table]
    sent = tuple(dict.fromkeys(name for query in queries for name in _sent(query)))
    kept = any(term.joins or term.windows for query in queries for term in query.terms)
    return Needed(str(table), _decided_by(table, rules), ("*",) if "*" in sent else sent, kept)


def _sent(query: DataQuery) -> Iterator[str]:
    for column in query.columns:
        if isinstance(column, Star):
            yield "*"
        else:
            yield from columns_in(column.value)


def _decided_by(table: TableName, rules: Rules) -> tuple[str, ...]:
    """The columns that the rules would need if clients got none."""
    bare = tuple(
        Definition(
            definition.name,
            tuple(
                Variant(v.name, v.parameters, v.queries, tuple(_hidden(v.data)), v.as_text)
                for v in definition.variants
            ),
        )
        for definition in rules.definitions
    )
    where = table.namespace or "public", table.name
    needs = needs_of(Rules(bare, rules.lookups, rules.dialect))
    return tuple(
        sorted({name for need in needs if (need.namespace, need.name) == where for name in need.columns})
    )


def _hidden(data: Sequence[DataQuery]) -> Iterator[DataQuery]:
    return (DataQuery(query.table, query.output, (), query.terms, query.at) for query in data)


def statement(rules: Rules, publication: str) -> str:
    """What publishes the tables that the rules name; those that a wildcard stands for, as a comment."""
    named = [name for name in rules.table_names() if not name.is_wildcard]
    lines = [f"CREATE PUBLICATION {quote(publication)} FOR TABLE"] if named else []
    tables = sorted({qualify(name.namespace or "public", name.name) for name in named})
    lines += [f"    {table}{',' if at < len(tables) else ';'}" for at, table in enumerate(tables, 1)]
    wild = [name for name in rules.table_names() if name.is_wildcard]
    lines += [f"-- and every table {name.namespace or 'public'}.{name.name} there is" for name in wild]
    return "\n".join(lines)
