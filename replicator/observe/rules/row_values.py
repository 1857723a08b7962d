"""A row as it was printed → the values that expressions over it come to, one by one. No I/O."""

from __future__ import annotations

from collections.abc import Callable

from replicator.observe.needs import columns_in
from replicator.observe.rules.words import literal, of_row, words
from replicator.rules.columns.shapes import column_at, metadata
from replicator.rules.columns.types import Types
from replicator.rules.columns.values import scalar
from replicator.rules.compute import jsontext
from replicator.rules.compute.code import Code
from replicator.rules.compute.expressions import plain
from replicator.rules.compute.scalars import EvaluationError, truth, type_name
from replicator.rules.expression import Column, Dialect, Expression, Metadata, Now, Scalar
from replicator.rules.model import Each, Key, Predicate, TableName, Window
from replicator.wal.messages import Relation, Row
from replicator.wal.names import quote

_SHOWN_MAX = 60


class RowValues:
    """One row, to be asked."""

    def __init__(
        self, relation: Relation, row: Row, table: TableName, now: float, dialect: Dialect, types: Types
    ) -> None:
        self._relation, self._row, self._now = relation, row, now
        self._dialect, self._types = dialect, types
        #: What the wildcard of the table's name stands for.
        self._suffix = relation.name[len(table.name) - 1 :] if table.name.endswith("%") else ""

    def value(self, expr: Expression) -> Scalar:
        """What an expression comes to; EvaluationError if it comes to nothing that there is."""
        return plain(expr, self._leaf, self._dialect)

    def holds(self, predicate: Predicate) -> bool:
        return truth(self.value(predicate.test))

    def members(self, key: Key) -> list[Scalar]:
        """Each value of a key that is something."""
        if isinstance(key, Each):
            array = self.value(key.of)
            return [] if array is None else [one for one in jsontext.members(array) if one is not None]
        value = self.value(key)
        return [] if value is None else [value]

    def failing(self, predicate: Predicate) -> str | None:
        """Why the row does not fulfil a condition; None if it does."""
        said = words(predicate.test, of_row)
        try:
            if self.holds(predicate):
                return None
        except EvaluationError as error:
            return f"{said} cannot be evaluated: {error}"
        return f"{said} does not hold{self.shown(predicate.test)}"

    def outside(self, window: Window, said: str) -> str | None:
        """Why the row is not in a window of time; None if it is."""
        at = self.value(window.moment)
        if not isinstance(at, int | float):
            return f"{said}: that is no time{self.shown(window.moment)}"
        is_later = at + window.seconds > self._now
        if is_later == window.is_until:
            return None
        return f"{said}: {'over' if window.is_until else 'not yet'}{self.shown(window.moment)}"

    def shown(self, expr: Expression) -> str:
        """`: status is 'new'`, of every column that an expression is about."""
        parts = []
        for name in dict.fromkeys(columns_in(expr)):
            text = literal(self._leaf(Column(name)))
            parts.append(f"{quote(name)} is {text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + '…'}")
        return f": {', '.join(parts)}" if parts else ""

    def _leaf(self, expr: Expression) -> Scalar:
        match expr:
            case Column(name):
                at = column_at(self._relation, name)
                return _decoded(self._relation.columns[at].type_oid, self._dialect, self._types)(
                    self._row[at]
                )
            case Metadata(what):
                return metadata(self._relation, what, self._suffix)
            case Now():
                return self._now
        raise AssertionError(f"{type(expr).__name__} in a row's expression")


def types_apart(kind: str, value: Scalar) -> str | None:
    """Why no value of a column of this kind is equal to this one: text is never equal to a number."""
    if value is None or isinstance(value, str) == (kind == "text"):
        return None
    return f"is of type {kind}, and never equal to a value of type {type_name(value)}"


def _decoded(oid: int, dialect: Dialect, types: Types) -> Callable[[object], Scalar]:
    code = Code()
    return code.function("text", [f"return {scalar(code, oid, 'text', dialect, types)}"])
