"""A condition of the SQL tree → the alternatives it offers; an Expression → what it is about. No I/O.

Conditions are first taken apart by their AND, OR and NOT, because subqueries and equalities between two sides
are the business of those who read queries; the leaves are then read one by one, by `reader.read`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from replicator.rules.expression import (
    BucketParameter,
    Call,
    Column,
    Expression,
    Found,
    Metadata,
    Now,
    Request,
)
from replicator.rules.sql.sqltext import SqlNode, location_of

#: A condition that comes to more alternatives than this is refused.
MOST_TERMS = 100
#: Expressions nested deeper than this are refused: compiling them would use up the stack.
MOST_LEVELS = 60


class NotUnderstood(Exception):
    """What stands here is not part of the language; `what` also names the nearest form that is.

    `location` counts bytes, as the parser does: `sqltext.offset_of` makes a character of it.
    """

    def __init__(self, what: str, location: int) -> None:
        super().__init__(what)
        self.what = what
        self.location = location


class Scope(Protocol):
    """What names mean where an expression stands. Both raise NotUnderstood for what is known to be wrong."""

    def column(self, path: list[str], location: int) -> Expression:
        """`a`, `t.a`, `bucket.x`, `token_parameters.k` …"""

    def function(self, path: list[str], args: list[Expression], location: int) -> Expression | None:
        """`auth.parameter('k')`, `t.table_name()`; None if this is not a function of the scope.

        Asked about every function, with or without a schema, before those that are known everywhere.
        """


class Signed(NamedTuple):
    """A condition without AND, OR and NOT around it; negated if its opposite is meant."""

    node: SqlNode
    is_negated: bool


class Dependencies(NamedTuple):
    """What must be known for an expression to have a value."""

    tables: frozenset[int] = frozenset()
    #: By their names: `user_id`, `jwt`, `parameters` …
    requests: frozenset[str] = frozenset()
    bucket: frozenset[int] = frozenset()
    #: The steps whose findings it uses.
    found: frozenset[int] = frozenset()
    now: bool = False

    @property
    def is_row(self) -> bool:
        """One table's row, perhaps nothing else but constants, is all it needs."""
        return len(self.tables) == 1 and not (self.requests or self.bucket or self.found or self.now)

    @property
    def is_request(self) -> bool:
        """Something about the request, and nothing of any row or bucket."""
        return bool(self.requests) and not (self.tables or self.bucket or self.found or self.now)

    @property
    def is_constant(self) -> bool:
        return not any(self)


def bool_parts(node: SqlNode) -> tuple[str, list[SqlNode]] | None:
    """`and`, `or` or `not`, and what it is applied to; None if the node is none of them."""
    if "BoolExpr" not in node:
        return None
    return node["BoolExpr"]["boolop"].removesuffix("_EXPR").lower(), node["BoolExpr"]["args"]


def conjuncts(node: SqlNode | None) -> list[SqlNode]:
    """The conditions that must all hold; none for no condition."""
    if node is None:
        return []
    found: list[SqlNode] = []
    unseen = [node]
    while unseen:
        part = unseen.pop()
        match bool_parts(part):
            case ("and", parts):
                unseen += reversed(parts)
            case _:
                found.append(part)
    return found


def dnf(node: SqlNode | None) -> list[list[Signed]]:
    """The alternatives, of which one must hold, and what each of them demands; `[[]]` for no condition.

    Repeated demands are kept once. NOT goes inwards: in this language AND, OR and NOT know two values only.
    """
    return [[]] if node is None else _dnf(node, False, 0)


def _dnf(node: SqlNode, is_negated: bool, level: int) -> list[list[Signed]]:
    if level > MOST_LEVELS:
        raise NotUnderstood(f"nested deeper than {MOST_LEVELS} levels", location_of(node))
    match bool_parts(node):
        case None:
            return [[Signed(node, is_negated)]]
        case ("not", [part]):
            return _dnf(part, not is_negated, level + 1)
        case (word, parts):
            each = [_dnf(part, is_negated, level + 1) for part in parts]
    if (word == "or") is not is_negated:
        terms = [term for alternatives in each for term in alternatives]
        _limit(len(terms), node)
        return terms
    terms = [[]]
    for alternatives in each:
        _limit(len(terms) * len(alternatives), node)
        terms = [[*term, *(s for s in more if s not in term)] for term in terms for more in alternatives]
    return terms


def _limit(count: int, node: SqlNode) -> None:
    if count > MOST_TERMS:
        what = f"this comes to more than {MOST_TERMS} alternatives; split it into several queries"
        raise NotUnderstood(what, location_of(node))


def dependencies(expr: Expression) -> Dependencies:
    """What the expression is about."""
    tables: set[int] = set()
    requests: set[str] = set()
    bucket: set[int] = set()
    found: set[int] = set()
    now = False
    unseen = [expr]
    while unseen:
        match unseen.pop():
            case Call(_, args):
                unseen += args
            case Column(_, table) | Metadata(_, table):
                tables.add(table)
            case Request(what):
                requests.add(what)
            case BucketParameter(at):
                bucket.add(at)
            case Found(step, _):
                found.add(step)
            case Now():
                now = True
    return Dependencies(frozenset(tables), frozenset(requests), frozenset(bucket), frozenset(found), now)
