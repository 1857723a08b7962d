"""The tree of a SELECT → a Flat: its origins, one formula, its columns. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

from replicator.rules.context import Context
from replicator.rules.expression import Expression
from replicator.rules.sql.reader import NotUnderstood
from replicator.rules.sql.sqltext import SqlNode, location_of
from replicator.rules.sql.statement import FOREIGN as EVERYWHERE
from replicator.rules.sql.statement import Statement, instead_of, read_source, targets_of
from replicator.rules.streams.branches import MOST_ORIGINS
from replicator.rules.streams.names import Named, Names, named_members, named_table
from replicator.rules.streams.scoped import (
    Every,
    Flat,
    Formula,
    Members,
    Origin,
    Place,
    Refusal,
    Selected,
    Table,
)
from replicator.rules.streams.where import Where

#: What other SELECTs may have and those of streams do not, and what to write instead.
FOREIGN = {
    **{clause: known for clause, known in EVERYWHERE.items() if clause != "distinctClause"},
    "larg": ("UNION", "write two conditions with OR between them"),
    "withClause": ("WITH", "name the query under `with:` of the stream"),
}
MOST_SUBQUERIES_DEEP = 30


class Shared:
    """What all the parts of one query share."""

    def __init__(
        self, context: Context, ctes: Mapping[str, Statement], unreachable: frozenset[str] = frozenset()
    ) -> None:
        self.context = context
        #: By name, in lower case.
        self.ctes = ctes
        #: The names of those that cannot be used here.
        self.unreachable = unreachable
        self.used: set[str] = set()
        self.numbers: Iterator[int] = count()


def flatten(statement: Statement, shared: Shared) -> Flat:
    """What the statement comes to; Refusal where it is not understood."""
    try:
        return _select(statement, statement.select, None, shared, 0)
    except NotUnderstood as error:
        raise Refusal(error.what, Place(statement, error.location)) from None


def _select(statement: Statement, select: SqlNode, outer: Names | None, shared: Shared, level: int) -> Flat:
    if level > MOST_SUBQUERIES_DEEP:
        raise NotUnderstood("subqueries stand too deep in one another", location_of(select))
    _check_clauses(statement, select)
    reading = _From(statement, outer, shared, level)
    for node in select.get("fromClause", []):
        reading.add(node, 0)
    reading.formulas.append(reading.where.formula(select.get("whereClause")))
    columns = tuple(_columns(statement, select, reading.names))
    named = tuple(named.origin for named in reading.names.named)
    if level > 0:
        _check_inner_columns(columns)
    return Flat(statement, named, tuple(reading.origins), Every(tuple(reading.formulas)), columns)


def _check_clauses(statement: Statement, select: SqlNode) -> None:
    for clause, (name, instead) in FOREIGN.items():
        if clause in select:
            at = location_of(select["rarg"] if clause == "larg" else select[clause])
            raise NotUnderstood(f"{name} is not part of the rules language; {instead}", at)
    if "distinctClause" in select:
        if select["distinctClause"] != [{}]:
            at = location_of(select["distinctClause"])
            raise NotUnderstood("DISTINCT ON is not part of the rules language; leave it out", at)
        what = "DISTINCT changes nothing: a row is sent once, however often it is found"
        statement.warn(what, location_of(select["targetList"]))


def _columns(statement: Statement, select: SqlNode, names: Names) -> Iterator[Selected]:
    if len(select.get("targetList", [])) > statement.context.limits.columns:
        raise NotUnderstood(f"more than {statement.context.limits.columns} columns", location_of(select))
    for target in targets_of(select):
        if target.name is not None:
            yield Selected(target.name, statement.read(target.node, names), target.location)
            continue
        match target.node["ColumnRef"]["fields"]:
            case [_]:
                yield Selected("*", None, target.location)
            case [{"String": {"sval": owner}}, _]:
                found = names.find(owner)
                if found is None or found.origin is None or found not in names.named:
                    what = f"{owner}.* needs a table in FROM that is called {owner}"
                    raise NotUnderstood(what, target.location)
                yield Selected("*", None, target.location, found.origin.at)
            case _:
                raise NotUnderstood("write * or alias.*", target.location)


def _check_inner_columns(columns: tuple[Selected, ...]) -> None:
    for column in columns:
        if column.value is None:
            raise NotUnderstood("* cannot stand in a subquery; name its columns", column.location)


class _From:
    """What has been read of one FROM so far. Each part of it may refer to those before it."""

    def __init__(self, statement: Statement, outer: Names | None, shared: Shared, level: int) -> None:
        self.statement = statement
        self.shared = shared
        self.level = level
        self.named: list[Named] = []
        self.names = Names(statement, self.named, outer)
        self.origins: list[Origin] = []
        self.formulas: list[Formula] = []
        self.where = Where(statement, self.names, shared.numbers, self._open_select, self._open_cte)

    def add(self, node: SqlNode, depth: int) -> None:
        match node:
            case {"RangeVar": _}:
                self._table(node)
            case {"RangeFunction": function}:
                self._function(function)
            case {"RangeSubselect": subquery}:
                self._subselect(subquery)
            case {"JoinExpr": join}:
                self._join(join, depth)
            case _:
                raise NotUnderstood("a table, a query or json_each(…) is expected in FROM", location_of(node))
        if len(self.origins) > MOST_ORIGINS:
            raise NotUnderstood(f"more than {MOST_ORIGINS} tables are read", location_of(node))

    def _table(self, node: SqlNode) -> None:
        relation = node["RangeVar"]
        name, alias = relation["relname"], relation.get("alias", {})
        if "schemaname" not in relation and (flat := self._open_cte(name)):
            self._query(flat, alias.get("aliasname", name), alias, relation["location"])
            return
        if "schemaname" not in relation and name.lower() in self.shared.unreachable:
            what = "queries under `with` cannot use each other; for a table of this name write its schema too"
            raise NotUnderstood(what, relation["location"])
        source = read_source(node)
        self.statement.check_table(source)
        place = Place(self.statement, source.location)
        table = Table(next(self.shared.numbers), source.table, source.alias, place)
        self.origins.append(table)
        self._name(named_table(str(table), table), source.location)

    def _function(self, node: SqlNode) -> None:
        location = location_of(node)
        call = node["functions"][0]["List"]["items"][0].get("FuncCall", {})
        path = [part["String"]["sval"] for part in call.get("funcname", [])]
        is_plain = node.keys() <= {"functions", "alias", "lateral"} and len(node["functions"]) == 1
        if path != ["json_each"] and (instead := instead_of({"RangeFunction": node})):
            raise NotUnderstood(instead, location)
        if path != ["json_each"] or len(call.get("args", [])) != 1 or not is_plain:
            raise NotUnderstood("json_each(array) AS name is the one function in FROM", location)
        alias = node.get("alias", {})
        if "colnames" in alias:
            raise NotUnderstood("the columns of json_each are called key and value", location)
        of = self.statement.read(call["args"][0], self.names)
        members = Members(next(self.shared.numbers), of, Place(self.statement, location))
        self.origins.append(members)
        self._name(named_members(alias.get("aliasname", "json_each"), members), location)

    def _subselect(self, node: SqlNode) -> None:
        location = location_of(node)
        alias = node.get("alias", {})
        if node.get("lateral"):
            raise NotUnderstood("LATERAL is not part of the rules language; write a join", location)
        if "aliasname" not in alias:
            raise NotUnderstood("a query in FROM needs a name: (SELECT …) AS name", location)
        self._query(self._open_select(node["subquery"]["SelectStmt"]), alias["aliasname"], alias, location)

    def _query(self, flat: Flat, name: str, alias: SqlNode, location: int) -> None:
        """What a query brings, as if its tables stood here."""
        given = [column["String"]["sval"] for column in alias.get("colnames", [])]
        if len(given) > len(flat.columns):
            raise NotUnderstood(f"{name} has {len(flat.columns)} columns only", location)
        columns: dict[str, Expression] = {}
        for i, column in enumerate(flat.columns):
            called = given[i] if i < len(given) else column.name
            if column.value is None or not called or called in columns:
                raise NotUnderstood(f"every column of {name} needs a name of its own", location)
            columns[called] = column.value
        self.origins += flat.origins
        self.formulas.append(flat.formula)
        self._name(Named(name.lower(), None, columns), location)

    def _join(self, join: SqlNode, depth: int) -> None:
        location = location_of(join.get("rarg"))
        kind = join["jointype"].removeprefix("JOIN_")
        if kind != "INNER":
            raise NotUnderstood(f"{kind} JOIN is not supported; write JOIN … ON", location)
        if "usingClause" in join or join.get("isNatural"):
            raise NotUnderstood("USING and NATURAL are not supported; write JOIN … ON a.x = b.y", location)
        if "alias" in join or depth > MOST_ORIGINS:
            raise NotUnderstood(
                "a join is not nested or named here; write a JOIN b ON … JOIN c ON …", location
            )
        self.add(join["larg"], depth + 1)
        self.add(join["rarg"], depth + 1)
        self.formulas.append(self.where.formula(join.get("quals")))

    def _name(self, named: Named, location: int) -> None:
        if any(named.name == other.name for other in self.named):
            raise NotUnderstood(f"two things in FROM are called {named.name}; write AS name", location)
        self.named.append(named)

    def _open_select(self, select: SqlNode) -> Flat:
        return _select(self.statement, select, self.names, self.shared, self.level + 1)

    def _open_cte(self, name: str) -> Flat | None:
        statement = self.shared.ctes.get(name.lower())
        if statement is None:
            return None
        self.shared.used.add(name.lower())
        inner = Shared(self.shared.context, {}, frozenset(self.shared.ctes) - {name.lower()})
        inner.numbers = self.shared.numbers
        try:
            return _select(statement, statement.select, None, inner, self.level + 1)
        except NotUnderstood as error:
            raise Refusal(error.what, Place(statement, error.location)) from None
