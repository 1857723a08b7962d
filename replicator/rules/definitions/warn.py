"""Conditions → warnings where they may hold, or never hold, against their writer's intent. No I/O.

Two things surprise people, and one of them shows rows to those who should not see them:

- A missing claim or an empty column is NULL, a comparison with NULL does not hold, and so its negation does:
  `NOT (role = 'guest')` lets in everybody without a role. In edition 3, `role != 'guest'` does the same.
- A number never equals a text, so `1 = '1'` does not hold, and a bucket `[1]` is not the bucket `["1"]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from typing import NamedTuple, Protocol

from replicator.rules.definitions.danger import CLIENT
from replicator.rules.expression import Call, Column, Expression, Found, Literal, Request
from replicator.rules.sql.reader import NotUnderstood, Scope, dependencies
from replicator.rules.sql.sqltext import SqlNode, location_of
from replicator.rules.sql.statement import Statement

COMPARISONS = frozenset({"=", "!=", "<", "<=", ">", ">=", "in", "in list", "between", "like", "ilike", "&&"})
NULL_TESTS = frozenset({"is null", "is not null", "is distinct", "is not distinct"})
#: What is never NULL, or says itself what it makes of NULL.
DEFINITE = frozenset(
    {"is null", "is not null", "is true", "is false", "is not true", "is not false", "is distinct"}
    | {"is not distinct", "typeof", "json_valid", "not", "and", "or"}
)
INTEGER_OIDS = frozenset({16, 20, 21, 23, 26})
REAL_OIDS = frozenset({700, 701})
BYTEA = 17
#: Where the types that come with Postgres end; beyond, a number says nothing.
FIRST_CUSTOM_OID = 16384
TEXT_CALLS = frozenset(
    {"upper", "lower", "substring", "hex", "base64", "||", "cast text", "datetime", "typeof"}
)
INTEGER_CALLS = frozenset({"length", "instr", "json_array_length", "cast integer", "unixepoch"})


class Types(Protocol):
    """What knows the types of the columns in scope."""

    def oid(self, column: str) -> int | None: ...


def check_condition(statement: Statement, test: Expression, node: SqlNode, scope: Types) -> None:
    """Warn of a condition that NULL makes true, and of comparisons in it that never hold."""
    edition = statement.context.dialect.edition
    if (culprit := opened_by_null(test, edition, statement.present)) is not None:
        is_claim = isinstance(culprit, Call) and not dependencies(culprit).tables
        when = f"for a request without {shown(culprit)}" if is_claim else f"where {shown(culprit)} is NULL"
        what = f"this also holds {when}; if that is not meant, add `AND … IS NOT NULL`"
        statement.warn(what, location_of(node))
    check_equality(statement, test, node, scope)


def check_equality(statement: Statement, test: Expression, node: SqlNode, scope: Types) -> None:
    """Warn of comparisons that never hold."""
    unseen = [test]
    while unseen:
        part = unseen.pop()
        if not isinstance(part, Call):
            continue
        unseen += part.args
        if part.name == "in list" and isinstance(part.args[-1], Call) and part.args[-1].name == "->":
            what = "this compares with the array itself; without parentheses, IN looks at its members"
            statement.warn(what, location_of(node))
        if part.name in ("=", "in list"):
            first, *others = part.args
            for why in [why for other in others if (why := never_equal(first, other, scope))][:1]:
                statement.warn(why, location_of(node))


def never_equal(left: Expression, right: Expression, scope: Types) -> str | None:
    """Why these two are never equal, if that is plain."""
    if Literal(None) in (left, right):
        return "nothing equals NULL: write IS NULL"
    one, other = type_of(left, scope), type_of(right, scope)
    if not differ(one, other):
        return None
    named = f"{shown(left)} is {one} and {shown(right)} is {other}"
    return f"{named}: these are never equal; {_remedy(left, right, one)}"


def differ(one: str | None, other: str | None) -> bool:
    """Whether values of these two types are never equal."""
    return one is not None and other is not None and one != other and {one, other} != {"integer", "real"}


def _remedy(left: Expression, right: Expression, one: str | None) -> str:
    number, text = (left, right) if one != "text" else (right, left)
    if isinstance(number, Literal):
        return "compare with text"
    return "compare with a number" if isinstance(text, Literal) else f"compare {shown(number)}::text"


def type_of(expr: Expression, scope: Types) -> str | None:
    """`integer`, `real`, `text` or `blob`; None where it can be any, or is not known."""
    match expr:
        case Literal(value):
            return {int: "integer", float: "real", str: "text", bytes: "blob"}.get(type(value))
        case Request():
            return "text"
        case Column(name):
            return type_of_oid(scope.oid(name))
        case Call(name) if name in TEXT_CALLS:
            return "text"
        case Call(name) if name in INTEGER_CALLS:
            return "integer"
    return None


def type_of_oid(oid: int | None) -> str | None:
    """What a column of this type is in expressions, as far as it comes with Postgres."""
    if oid is None or oid >= FIRST_CUSTOM_OID:
        return None
    if oid in INTEGER_OIDS:
        return "integer"
    if oid in REAL_OIDS:
        return "real"
    return "blob" if oid == BYTEA else "text"


def shown(expr: Expression) -> str:
    """An expression for a message: a name, a value of the rules, or what it is made of."""
    match expr:
        case Column(name):
            return name
        case Literal(value):
            # What is written in the rules is not repeated: it may be about somebody.
            return {str: "the text", bytes: "the bytes", type(None): "NULL"}.get(type(value), "the number")
        case Request(what):
            return f"request.{what}()"
        case Call("->>" | "->", (Request(what), Literal(str() as name))):
            return f"the {'value' if what in CLIENT else 'claim'} {name}"
        case Call(name, args) if name.startswith("cast "):
            return f"{shown(args[0])}::{name.removeprefix('cast ')}"
        case Call(name, args) if name.isidentifier() or not args:
            return f"{name}({', '.join(shown(arg) for arg in args)})"
        case Call(_, args):
            return shown(args[0])
    return "this"


@contextmanager
def present(statement: Statement, nodes: Iterable[SqlNode], scope: Scope) -> Iterator[None]:
    """While these conditions, which must all hold, are read: what they demand to be there by IS NOT NULL."""
    before, statement.present = statement.present, set()
    for node in nodes:
        test = node.get("NullTest", {})
        if test.get("nulltesttype") == "IS_NOT_NULL":
            with suppress(NotUnderstood):  # it will be refused when it is read in its turn
                statement.present.add(statement.read(test["arg"], scope))
    yield
    statement.present = before


def opened_by_null(
    test: Expression, edition: int, present: Set[Expression] = frozenset()
) -> Expression | None:
    """What makes a condition true by being NULL, if there is such a thing.

    Not what is known to be `present`, nor what the condition itself asks about: its writer has thought of it.
    """
    return _Opened(edition, frozenset(present) | _asked_about(test)).by(test, False)


def _asked_about(test: Expression) -> frozenset[Expression]:
    found: set[Expression] = set()
    unseen = [test]
    while unseen:
        part = unseen.pop()
        if isinstance(part, Call):
            unseen += part.args
            if part.name in NULL_TESTS:
                found.update(part.args)
    return frozenset(found)


class _Opened(NamedTuple):
    edition: int
    present: frozenset[Expression]

    def by(self, test: Expression, is_negated: bool) -> Expression | None:
        match test:
            case Call("not", (inner,)):
                return self.by(inner, not is_negated)
            case Call("and" | "or", args):
                found = (self.by(arg, is_negated) for arg in args)
                return next((culprit for culprit in found if culprit), None)
            case Call("!=", args) if self.edition >= 3 and not is_negated:
                return self._nullable(args)
            case Call(name, args) if is_negated and name in COMPARISONS:
                return self._nullable(args)
            case Column() | Request() | Call("->>" | "->"):
                return self._nullable((test,)) if is_negated else None
        return None

    def _nullable(self, args: tuple[Expression, ...]) -> Expression | None:
        """The first of these that may be NULL."""
        for arg in args:
            if (culprit := self._culprit(arg)) is not None:
                return culprit
        return None

    def _culprit(self, expr: Expression) -> Expression | None:
        if expr in self.present:
            return None
        match expr:
            case Column() | Found() | Call("->>" | "->"):
                return expr
            case Call("ifnull", (*_, last)):
                return self._culprit(last)
            case Call(name, inner) if name not in DEFINITE and name not in COMPARISONS:
                return self._nullable(inner)
        return None
