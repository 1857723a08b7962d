"""The columns of a SELECT × a Relation → how its rows are shown to clients. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from replicator.errors import SourceUnready
from replicator.rules.columns.types import Types
from replicator.rules.columns.values import (
    Printing,
    encoder_of,
    json_of,
    printed,
    printing,
    quote,
    scalar,
    text_id,
)
from replicator.rules.compute.code import Code
from replicator.rules.compute.expressions import EvaluationError, value
from replicator.rules.compute.scalars import reason
from replicator.rules.expression import Column, Dialect, Expression, Metadata, Scalar
from replicator.rules.model import Output, Star
from replicator.wal.messages import Relation, Row


class Shape(NamedTuple):
    """What clients get of a row; None where it cannot be computed, and the row is left out."""

    id: Callable[[Row], str | None]
    encode: Callable[[Row], str | None]
    #: Whether some of it is computed, and therefore may be None.
    is_computed: bool
    #: Where the id stands in a row, if it is just that: a column as Postgres printed it.
    id_at: int | None = None
    #: What `encode` does, for a function that does more; None where that has to be called.
    printing: Callable[[Code], Printing] | None = None


#: Told of a row that cannot be shown, and why.
Failed = Callable[[Row, str], None]


def shape(
    columns: Sequence[Star | Output],
    relation: Relation,
    dialect: Dialect,
    types: Types,
    failed: Failed,
    suffix: str = "",
) -> Shape:
    """The functions that show rows of this relation in these columns."""
    writer = _Writer(relation, dialect, types, suffix, failed)
    parts = writer.parts(columns)
    row_id, id_at = writer.id(parts), writer.id_at(parts)
    whole: dict[str, Expression] = {column.name: Column(column.name) for column in relation.columns}
    if parts == whole:
        parts = whole  # in whatever order they are named, all of them stand in the table's
    if all(isinstance(part, Column) for part in parts.values()):
        code, how = Code(), partial(writer.printing, parts)
        return Shape(row_id, encoder_of(code, how(code)), False, id_at, how)
    is_computed = any(not isinstance(part, Column | Metadata) for part in parts.values())
    return Shape(row_id, writer.encode(parts), is_computed, id_at)


class _Writer:
    def __init__(
        self, relation: Relation, dialect: Dialect, types: Types, suffix: str, failed: Failed
    ) -> None:
        self._relation, self._dialect, self._types, self._suffix = relation, dialect, types, suffix
        self._failed = failed
        self._at = {column.name: at for at, column in enumerate(relation.columns)}

    def parts(self, columns: Sequence[Star | Output]) -> dict[str, Expression]:
        """Every column that clients see, once, and what it is; of two with one name, the later one.

        But `*` never takes the place of a column that stands before it, up to edition 2.
        """
        parts: dict[str, Expression] = {}
        for column in columns:
            if isinstance(column, Output):
                parts[column.name] = column.value
                continue
            for name in self._at:
                is_left_out = column.skips_underscored and (name.startswith("_") or name in parts)
                if not is_left_out:
                    parts[name] = Column(name)
        return parts

    def printing(self, parts: dict[str, Expression], code: Code) -> Printing:
        """How rows of nothing but columns are printed."""
        columns = self._relation.columns
        places = [(name, self._find(part.name)) for name, part in parts.items() if isinstance(part, Column)]
        shown = [(name, at, columns[at].type_oid) for name, at in places]
        return printing(code, shown, len(columns), self._dialect, self._types)

    def id_at(self, parts: dict[str, Expression]) -> int | None:
        expr = parts.get("id")
        at = self._find(expr.name) if isinstance(expr, Column) else None
        return at if at is not None and self._decoded(Code(), at)[0] == f"row[{at}]" else None

    def id(self, parts: dict[str, Expression]) -> Callable[[Row], str | None]:
        """As clients have it: text, and empty where there is none."""
        code = Code()
        expr = parts.get("id")
        if expr is None:
            return lambda row: ""
        if isinstance(expr, Column):
            at = self._find(expr.name)
            source, lines = self._decoded(code, at)
            is_plain = source == f"row[{at}]"
            if is_plain:
                return code.function("row", [f"return {source} or ''"])
            text = code.name(text_id, "text_id")
            return code.function("row", [*lines, f"return {text}({source})"])
        names, lines = self._decode(code, [expr])
        text = code.name(_storable_id, "text_id")
        source = value(code, expr, lambda leaf: self._leaf(leaf, names), self._dialect)
        return code.function("row", self._guarded(code, [*lines, f"return {text}({source})"]))

    def _guarded(self, code: Code, lines: list[str]) -> list[str]:
        """The same, but None, and told, where it cannot be computed."""
        failed, error = code.name(self._failed, "failed"), code.name(Exception, "Exception")
        return [
            "try:",
            *(f"    {line}" for line in lines),
            f"except {error} as error:",
            f"    return {failed}(row, {code.name(reason, 'reason')}(error))",
        ]

    def encode(self, parts: dict[str, Expression]) -> Callable[[Row], str | None]:
        """The row as JSON text. A blob has no place in it, and is found out per row where it is computed."""
        code = Code()
        computed = [expr for expr in parts.values() if not isinstance(expr, Column)]
        names, lines = self._decode(code, computed)
        pieces: list[str] = []
        for name, expr in parts.items():
            lead = repr("," + quote(name) + ":")
            if isinstance(expr, Column):
                at = self._find(expr.name)
                shown = json_of(
                    code, self._relation.columns[at].type_oid, f"row[{at}]", self._dialect, self._types
                )
                if shown is not None:
                    pieces.append(f"{lead} + ('null' if row[{at}] is None else {shown})")
                continue
            result = f"p{len(lines)}"
            source = value(code, expr, lambda leaf: self._leaf(leaf, names), self._dialect)
            is_blob = code.name(_is_blob, "is_blob")
            lines.append(f"{result} = {source}")
            pieces.append(f"('' if {is_blob}({result}) else {lead} + {printed(code, result)})")
        body = " + ".join(f"({piece})" for piece in pieces) or "''"
        lines += [f"made = {body}", "return '{' + made[1:] + '}'"]
        return code.function("row", self._guarded(code, lines) if computed else lines)

    def _decode(self, code: Code, exprs: Sequence[Expression]) -> tuple[dict[int, str], list[str]]:
        """The columns that expressions use, as values, by their places."""
        names: dict[int, str] = {}
        lines: list[str] = []
        for expr in exprs:
            for column in _columns(expr):
                at = self._find(column.name)
                if at not in names:
                    names[at] = f"v{at}"
                    source, more = self._decoded(code, at)
                    lines += [*more, f"v{at} = {source}"]
        return names, lines

    def _decoded(self, code: Code, at: int) -> tuple[str, list[str]]:
        source = f"row[{at}]"
        decoded = scalar(code, self._relation.columns[at].type_oid, source, self._dialect, self._types)
        return (source, []) if decoded == source else (f"(None if {source} is None else {decoded})", [])

    def _leaf(self, expr: Expression, names: dict[int, str]) -> str:
        if isinstance(expr, Column):
            return names[self._find(expr.name)]
        if isinstance(expr, Metadata):
            return repr(metadata(self._relation, expr.what, self._suffix))
        raise AssertionError(f"{type(expr).__name__} in what clients see of a row")

    def _find(self, name: str) -> int:
        return column_at(self._relation, name)


def column_at(relation: Relation, name: str) -> int:
    """Where a column stands in the relation's rows."""
    for at, column in enumerate(relation.columns):
        if column.name == name:
            return at
    raise SourceUnready(
        f'table "{relation.namespace}"."{relation.name}" has no column "{name}", which the rules need',
        "Correct the rule, or add the column to the table and to the publication's column list.\n"
        "With rules that do not need it, in the file that the configuration names or by `replicator rules\n"
        "deploy`, it goes on: everything is copied again, and readers keep what they see until then.",
    )


def metadata(relation: Relation, what: str, suffix: str) -> str:
    """What a row's own table is called; `suffix` is what a wildcard stood for."""
    return {"schema": relation.namespace, "table_name": relation.name, "table_suffix": suffix}[what]


def _columns(expr: Expression) -> list[Column]:
    found: list[Column] = []
    unseen = [expr]
    while unseen:
        part = unseen.pop()
        if isinstance(part, Column):
            found.append(part)
        unseen += getattr(part, "args", ())
    return found


def _storable_id(value: Scalar) -> str:
    """A computed id as text; JSON may hold a character that Postgres' text cannot."""
    text = text_id(value)
    if "\0" in text:
        raise EvaluationError("an id with a character 0 in it cannot be stored")
    return text


def _is_blob(value: object) -> bool:
    return type(value) is bytes
