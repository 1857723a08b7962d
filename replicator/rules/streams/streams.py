"""One entry under `streams` → a Definition, or every problem in it with its place. No I/O.

A query goes through small steps, each in a file of its own:

    statement  the tree of its SQL
    flatten    → Flat: names resolved (names), subqueries dissolved (where)
    branches   → its alternatives
    walk       → for each, the steps from a request to rows (sort: what equals what)
    variants   → what is the same bucket is one

Edition 2 knew less of this language; what it knew means the same here, and so it is read the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from yaml import MappingNode, Node, ScalarNode, SequenceNode

from replicator.rules.context import ACCEPT, Context, accepts_danger
from replicator.rules.definitions.danger import GATED, OPEN, Bond, bond_of
from replicator.rules.model import DataQuery, Definition, ParameterQuery
from replicator.rules.sql.reader import NotUnderstood
from replicator.rules.sql.statement import Statement, open_statement
from replicator.rules.streams.branches import Branch, branches
from replicator.rules.streams.columns import output_of, outputs_of, primary_of
from replicator.rules.streams.flatten import Shared, flatten
from replicator.rules.streams.scoped import Flat, Place, Refusal
from replicator.rules.streams.variants import Reached, variants_of
from replicator.rules.streams.walk import walk
from replicator.rules.streams.warn import check_branch
from replicator.text.nodes import Document, dotted, nearest

KEYS = ("auto_subscribe", "priority", ACCEPT, "with", "query", "queries")
DEFAULT_PRIORITY = 3


def read_stream(document: Document, name: str, node: Node, context: Context) -> Definition | None:
    """The stream that a YAML node describes; None if it is refused."""
    if not isinstance(node, MappingNode):
        document.refuse(node, name, "a stream is a mapping with `query` or `queries`")
        return None
    before = len(document.problems)
    parts: dict[str, Node] = {}
    for entry in document.entries(node):
        parts[entry.name] = entry.value
        if entry.name not in KEYS:
            what = f"unknown key{nearest(entry.name, KEYS)}"
            document.refuse(entry.key, dotted(name, entry.name), what)
    reading = _Stream(context, name, parts, accepts_danger(node))
    reached = reading.reached(node)
    if len(document.problems) > before or not reached:
        return None
    variants = variants_of(name, reached, reading.priority)
    if len(variants) > context.limits.variants:
        what = f"this comes to more than {context.limits.variants} kinds of bucket; split the stream"
        document.refuse(node, name, what)
        return None
    return Definition(name, variants, True, reading.auto_subscribe, reading.priority)


class _Stream:
    """What the keys of one stream say."""

    def __init__(self, context: Context, name: str, parts: Mapping[str, Node], is_accepted: bool) -> None:
        self._context = context
        self._name = name
        self._parts = parts
        self.auto_subscribe = self._flag("auto_subscribe")
        self.priority = self._priority()
        self._is_accepted = self._flag(ACCEPT) or is_accepted
        self._own = dict(self._ctes("with", parts.get("with")))
        self._all = {**dict(_global_ctes(context)), **self._own}
        self._used: set[str] = set()

    def reached(self, node: Node) -> list[Reached]:
        """Every branch of every query."""
        queries = list(self._queries(node))
        found = [one for key, query in queries for one in self._query(key, query)]
        self._check_ctes()
        return found

    def _refuse(self, node: Node, key: str, what: str) -> None:
        self._context.refuse(node, dotted(self._name, key), what)

    def _flag(self, key: str) -> bool:
        node = self._parts.get(key)
        if node is None:
            return False
        word = str(node.value) if isinstance(node, ScalarNode) and not node.style else ""
        if word not in ("true", "false"):
            self._refuse(node, key, "true or false is expected")
        return word == "true"

    def _priority(self) -> int:
        node = self._parts.get("priority")
        if node is None:
            return DEFAULT_PRIORITY
        word = str(node.value) if isinstance(node, ScalarNode) and not node.style else ""
        if word not in ("0", "1", "2", "3"):
            self._refuse(node, "priority", "a number from 0 (first) to 3 is expected")
            return DEFAULT_PRIORITY
        return int(word)

    def _queries(self, node: Node) -> Iterator[tuple[str, Node]]:
        one, several = self._parts.get("query"), self._parts.get("queries")
        if (one is None) is (several is None):
            what = "exactly one of `query` and `queries` is expected"
            self._context.refuse(node if several is None else several, self._name, what)
        elif one is not None:
            yield dotted(self._name, "query"), one
        elif not isinstance(several, SequenceNode) or not several.value:
            assert several is not None
            self._refuse(several, "queries", "a list of SELECTs is expected")
        elif len(several.value) > self._context.limits.queries:
            self._refuse(several, "queries", f"more than {self._context.limits.queries} queries")
        else:
            for number, item in enumerate(several.value):
                yield dotted(self._name, "queries", number), item

    def _ctes(self, key: str, node: Node | None) -> Iterator[tuple[str, Statement]]:
        if node is not None and not isinstance(node, MappingNode):
            self._refuse(node, key, "a mapping from names to SELECTs is expected")
        elif node is not None:
            entries = list(self._context.document.entries(node))
            names = [*self._context.ctes, *(entry.name for entry in entries)]
            first: dict[str, str] = {}
            for entry in entries:
                where = dotted(self._name, key, entry.name)
                if (other := first.setdefault(entry.name.lower(), entry.name)) != entry.name:
                    self._context.refuse(
                        entry.key, where, f"{other} is the same name: letters' case is ignored"
                    )
                statement = read_cte(self._context, where, entry.value, _others(names, entry.name))
                if statement is not None:
                    self._check_name(entry.name, entry.key)
                    yield entry.name.lower(), statement

    def _check_name(self, name: str, node: Node) -> None:
        tables = self._context.tables or {}
        if ("public", name) in tables:
            what = f"the source has a table {name} too; here, {name} means this query"
            self._context.warn(node, dotted(self._name, "with", name), what)

    def _check_ctes(self) -> None:
        for name, statement in self._own.items():
            if name not in self._used:
                self._context.warn(statement.node, statement.key, "nothing refers to this query")
        for name in self._context.ctes:
            if name.lower() in self._used and name.lower() not in self._own:
                self._context.used.add(("with", name))

    def _query(self, key: str, node: Node) -> list[Reached]:
        statement = open_statement(self._context, key, node)
        if statement is None:
            return []
        shared = Shared(self._context, self._all)
        try:
            return self._walked(flatten(statement, shared), accepts_danger(node))
        except NotUnderstood as error:
            statement.refuse(error.what, error.location)
        except Refusal as refusal:
            refusal.note()
        finally:
            self._used |= shared.used
        return []

    def _walked(self, flat: Flat, is_accepted: bool) -> list[Reached]:
        statement = flat.statement
        primary = primary_of(flat)
        columns, output = outputs_of(flat, primary), output_of(flat, primary)
        text = " ".join(statement.text.split())
        found: list[Reached] = []
        alternatives = branches(flat, self._context.limits.terms)
        self._check_reads(alternatives, Place(statement, 0))
        for branch in alternatives:
            check_branch(branch)
            steps, values, term = walk(branch, primary, self._context)
            if len(values) > self._context.limits.parameters:
                what = f"a bucket has at most {self._context.limits.parameters} parameters"
                raise Refusal(what, Place(statement, 0))
            way = ParameterQuery(steps, values, self.priority)
            data = DataQuery(primary.name, output, columns, (term,), text=text)
            if not (is_accepted or self._is_accepted):
                self._check_bond(way, data, Place(statement, 0))
            found.append(Reached(steps, values, data, text))
        return found

    def _check_reads(self, alternatives: Sequence[Branch], place: Place) -> None:
        reads, most = sum(len(branch.origins) for branch in alternatives), self._context.limits.reads
        self._context.reads += reads
        if self._context.reads > most:
            what = (
                f"this query comes to {len(alternatives)} alternatives, which read {reads:,} tables together"
            )
            whole = (
                f"with all before it, that makes {self._context.reads:,} in this file, of at most {most:,}"
            )
            raise Refusal(f"{what}; {whole}: use fewer OR, or fewer tables in each query", place)

    def _check_bond(self, way: ParameterQuery, data: DataQuery, place: Place) -> None:
        bond = bond_of(way, [data], self._context.lookups)
        if bond in OPEN:
            what = f"{OPEN[bond]}; compare with the token, such as `column = auth.user_id()`, or accept it"
            raise Refusal(f"{what} with `{ACCEPT}: true`", place)
        if bond is Bond.GATED:
            place.statement.warn(GATED, place.location)


def read_cte(
    context: Context, key: str, node: Node, others: frozenset[str] = frozenset()
) -> Statement | None:
    """A query under `with`; None if it is refused. It cannot use the others."""
    statement = open_statement(context, key, node)
    if statement is None:
        return None
    try:
        flat = flatten(statement, Shared(context, {}, others))
        for column in flat.columns:
            if column.value is None:
                raise NotUnderstood("* cannot stand under `with`; name the columns", column.location)
    except NotUnderstood as error:
        statement.refuse(error.what, error.location)
    except Refusal as refusal:
        refusal.note()
    return None if statement.is_broken else statement


def _global_ctes(context: Context) -> Iterator[tuple[str, Statement]]:
    for name, node in context.ctes.items():
        statement = read_cte(context, dotted("with", name), node, _others(context.ctes, name))
        if statement is not None:
            yield name.lower(), statement


def _others(names: Iterable[str], name: str) -> frozenset[str]:
    return frozenset(other.lower() for other in names) - {name.lower()}
