"""A stream of a rules file → its plan as a few lines that a person can check.

    s|0(list_id)
      <- find shares(user_id = user_id; kind = 'r') list_id => #0.0
      -> todos: list_id if done = 0

The arrow to the left is how a request comes to the bucket's values (`#0.0`: the first thing that step 0
brought); the one to the right is which rows belong, and by which of their values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from replicator.rules.context import Context, Tables
from replicator.rules.expression import (
    EDITION_2,
    EDITION_3,
    Call,
    Column,
    Expression,
    Found,
    Literal,
    Metadata,
    Request,
)
from replicator.rules.model import (
    Brought,
    DataQuery,
    Definition,
    Each,
    Find,
    ForEach,
    Key,
    Lookup,
    ParameterQuery,
    Star,
    Step,
    Term,
    When,
    Window,
)
from replicator.rules.streams.streams import read_stream
from replicator.text.nodes import parse

INFIX = frozenset(("=", "!=", "<", "<=", ">", ">=", "->>", "->", "and", "or", "in", "&&", "||", "+"))


class Read(NamedTuple):
    """What became of one file that holds streams."""

    definitions: list[Definition]
    context: Context

    def problems(self) -> list[str]:
        return [str(problem) for problem in self.context.document.problems]

    def warnings(self) -> list[str]:
        return [str(warned) for warned in self.context.warnings]

    def told(self) -> str:
        lines = [line for definition in self.definitions for line in _definition(definition, self.context)]
        return "\n".join(lines)


def read(text: str, edition: int = 3, ctes: str = "", tables: Tables | None = None) -> Read:
    """The streams of a text, and what is global: `with`."""
    document = parse(text, "rules.yaml")
    context = Context(document, EDITION_3 if edition == 3 else EDITION_2, tables)
    if ctes:
        of_ctes = parse(ctes, "rules.yaml")
        context.ctes = {e.name: e.value for e in of_ctes.entries(of_ctes.root)}  # type: ignore[misc]  # scalars
    read = [read_stream(document, e.name, e.value, context) for e in document.entries(document.root)]
    return Read([definition for definition in read if definition], context)


def of_query(sql: str, edition: int = 3, **more: str) -> Read:
    """A stream `s` of one query."""
    lines = "".join(f"  {key}: {value}\n" for key, value in more.items())
    indented = "".join(f"    {line}\n" for line in sql.splitlines())
    return read(f"s:\n{lines}  query: |-\n{indented}", edition)


def _definition(definition: Definition, context: Context) -> list[str]:
    lines: list[str] = []
    for variant in definition.variants:
        lines.append(f"{variant.name}({', '.join(variant.parameters)})")
        lines += [f"  <- {_query(query, context.lookups)}" for query in variant.queries]
        lines += [f"  -> {line}" for query in variant.data for line in _data(query)]
    return lines


def _query(query: ParameterQuery, lookups: Mapping[str, Lookup]) -> str:
    steps = [_step(step, lookups) for step in query.steps]
    values = ", ".join(shown(value) for value in query.values) or "()"
    return "; ".join(steps) + (" => " if steps else "=> ") + values


def _step(step: Step, lookups: Mapping[str, Lookup]) -> str:
    match step:
        case When(condition):
            return f"when {shown(condition.test)}"
        case ForEach(of):
            return f"each {shown(of)}"
        case Find(id, keys):
            lookup = lookups[id]
            inside = [f"{_key(one)} = {_key(other)}" for one, other in zip(lookup.keys, keys, strict=True)]
            inside += [f"; {shown(predicate.test)}" for predicate in lookup.filters]
            inside += [f"; {_window(window)}" for window in lookup.windows]
            values = ", ".join(shown(value) for value in lookup.values)
            return f"find {lookup.table}({', '.join(inside).replace(', ;', ';')}) {values}".rstrip()


def _data(query: DataQuery) -> list[str]:
    shown_columns = [
        "*" if isinstance(column, Star) else f"{shown(column.value)} AS {column.name}"
        for column in query.columns
    ]
    columns = "" if shown_columns == ["*"] else f"[{', '.join(shown_columns)}]"
    output = "" if query.output == query.table.name else f" as {query.output}"
    return [f"{query.table}{output}{columns}: {_term(term)}" for term in query.terms]


def _term(term: Term) -> str:
    values = ", ".join(_key(value) for value in term.values) or "()"
    conditions = [shown(predicate.test) for predicate in term.filters]
    conditions += [_window(window) for window in term.windows]
    return values + (f" if {' and '.join(conditions)}" if conditions else "")


def _window(window: Window) -> str:
    return f"{shown(window.moment)} {'until' if window.is_until else 'since'} {window.seconds:+g}s"


def _key(key: Key | Brought) -> str:
    return (
        f"each {shown(key.of)}"
        if isinstance(key, Each)
        else str(key)
        if isinstance(key, Brought)
        else shown(key)
    )


def shown(expr: Expression) -> str:
    match expr:
        case Literal(value):
            return "NULL" if value is None else repr(value)
        case Column(name, 0):
            return name
        case Column(name, table):
            return f"{table}.{name}"
        case Metadata(what, 0):
            return f"@{what}"
        case Request(what):
            return what
        case Found(step, at):
            return f"#{step}.{at}"
        case Call("->>", (Request(what), Literal(str(name)))):
            return f"{what}.{name}"
        case Call(name, args) if name in INFIX:
            return "(" + f" {name} ".join(shown(arg) for arg in args) + ")"
        case Call(name, args):
            return f"{name}({', '.join(shown(arg) for arg in args)})"
    return repr(expr)
