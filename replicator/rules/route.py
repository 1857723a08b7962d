"""Change × Rules → Puts and Removes, compiled once per Relation. No I/O.

A row is in a bucket because of what it says, so a change moves it by what it said before and what it says
now: it is put where it belongs now, and removed where it belonged before and does not any more. That needs
the whole old row, which REPLICA IDENTITY FULL puts in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from replicator.errors import SourceUnready
from replicator.rules.model import DataQuery, Put, Remove, Rule, Rules
from replicator.rules.values import encoder, quote
from replicator.wal.messages import Relation, Row
from replicator.wal.transactions import Change, Kind


class Truncated(NamedTuple):
    """Every bucket should drop every row it holds of this source table."""

    #: What the subkeys of this table's rows begin with.
    subkey_prefix: str


Intent = Put | Remove | Truncated
_Placed = tuple[str, str]  # bucket, output table
_Place = Callable[[Row], list[_Placed]]
#: A tuple first and its type after: half the price of calling the type.
_make = tuple.__new__


class _Table(NamedTuple):
    """What the rules come to for one relation."""

    place: _Place
    encode: Callable[[Row], str]
    id_at: int
    subkey_prefix: str


_NOTHING: tuple[None, None] = (None, None)


class Router:
    """The rules, and what has been compiled of them so far."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        #: By oid: the relation it was compiled for, and what it came to.
        self._tables: dict[int, tuple[Relation, _Table | None]] = {}

    def route(self, changes: Iterable[Change]) -> list[Intent]:
        """What the buckets should come to hold because of these changes, in their order."""
        intents: list[Intent] = []
        tables = self._tables
        for change in changes:
            relation = change.relation
            known, table = tables.get(relation.oid, _NOTHING)
            if known is not relation:
                table = self._compile(relation)
                tables[relation.oid] = relation, table
            if table is not None:
                _route_one(table, change, intents.append)
        return intents

    def _compile(self, relation: Relation) -> _Table | None:
        placings = [
            (rule, query)
            for rule in self._rules.rules
            for query in rule.data
            if query.table == relation.name and (query.namespace or "public") == relation.namespace
        ]
        if not placings:
            return None
        id_at = _column(relation, "id")
        return _Table(_place(relation, placings), encoder(relation.columns), id_at, f"{relation.oid}/")


def _route_one(table: _Table, change: Change, intend: Callable[[Intent], None]) -> None:
    place, encode, id_at, prefix = table
    kind, _, old, new, _, _ = change
    if kind is Kind.TRUNCATE:
        intend(Truncated(prefix))
        return
    before: set[tuple[str, str, str]] | None = None
    if old is not None:
        old_id = str(old[id_at] or "")  # as clients have it, a row without an id has an empty one
        before = {(bucket, output, old_id) for bucket, output in place(old)}
    if new is not None and (placed := place(new)):
        new_id, data = str(new[id_at] or ""), encode(new)
        subkey = prefix + new_id
        for bucket, output in placed:
            intend(_make(Put, (bucket, output, new_id, subkey, data)))
            if before:
                before.discard((bucket, output, new_id))
    if before:
        for bucket, output, old_id in sorted(before):
            intend(Remove(bucket, output, old_id, prefix + old_id))


def _place(relation: Relation, placings: list[tuple[Rule, DataQuery]]) -> _Place:
    everywhere: list[_Placed] = []
    by_column: list[tuple[int, str, str]] = []
    for rule, query in placings:
        if query.column is None:
            everywhere.append((f"{rule.name}[]", query.output))
        else:
            by_column.append((_column(relation, query.column), f"{rule.name}[", query.output))
    # Two queries of a rule can bring the same row under the same name; it is put once all the same.
    names = {(name, output) for _, name, output in by_column}
    may_repeat = len(names) < len(by_column) or len(set(everywhere)) < len(everywhere)

    def place(row: Row) -> list[_Placed]:
        placed = everywhere.copy()
        for at, name, output in by_column:
            value = row[at]
            if value is not None:
                placed.append((f"{name}{quote(value)}]", output))  # type: ignore[arg-type]  # text format
        return list(dict.fromkeys(placed)) if may_repeat else placed

    return place


def _column(relation: Relation, name: str) -> int:
    for at, column in enumerate(relation.columns):
        if column.name == name:
            return at
    raise SourceUnready(
        f'table "{relation.namespace}"."{relation.name}" has no column "{name}", which the rules need',
        "Correct the rule, or add the column to the table and to the publication's column list.",
    )
