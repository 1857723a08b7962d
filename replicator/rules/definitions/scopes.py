"""A name in a bucket definition's query → the column, request value or parameter it means. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from replicator.rules.definitions.requests import request_column, request_function
from replicator.rules.expression import BucketParameter, Column, Expression, Found, Metadata
from replicator.rules.sql.reader import NotUnderstood
from replicator.rules.sql.statement import REQUESTS, Source, Statement
from replicator.text.nodes import nearest

#: What json_each brings of each member, in this order.
EACH = ("key", "value")


@dataclass(slots=True)
class RequestScope:
    """Where a request is known, and no row: parameter queries without FROM, and the file's `parameters`."""

    named: Mapping[str, Expression]
    used: set[tuple[str, str]]

    def column(self, path: list[str], location: int) -> Expression:
        found = request_column(path, self.named, location)
        if found is not None:
            if path[0] == "parameters":
                self.used.add(("parameters", path[1]))
            return found
        name = ".".join(path)
        raise NotUnderstood(f"{name} is a column, and there is no table: it needs FROM, or quotes", location)

    def function(self, path: list[str], args: list[Expression], location: int) -> Expression | None:
        return request_function(path, args, location)

    def oid(self, column: Column) -> int | None:
        return None


@dataclass(slots=True)
class EachScope:
    """Where a member of a JSON array is known beside the request: after FROM json_each(…)."""

    request: RequestScope
    #: The step that brings the members.
    step: int
    alias: str | None

    def column(self, path: list[str], location: int) -> Expression:
        match path:
            case [name] if name in EACH:
                return Found(self.step, EACH.index(name))
            case [table, name] if name in EACH and table in (self.alias, "json_each"):
                return Found(self.step, EACH.index(name))
            case [name]:
                raise NotUnderstood(f"json_each has the columns key and value{nearest(name, EACH)}", location)
        return self.request.column(path, location)

    def function(self, path: list[str], args: list[Expression], location: int) -> Expression | None:
        return request_function(path, args, location)

    def oid(self, column: Column) -> int | None:
        return None


@dataclass(slots=True)
class RowScope:
    """Where one row is known."""

    statement: Statement
    source: Source

    def column(self, path: list[str], location: int) -> Expression:
        table = self.source.table
        match path:
            case ["_table_suffix"] if table.is_wildcard:
                return Metadata("table_suffix")
            case [name]:
                pass
            case [alias, name] if self.source.is_called(alias):
                pass
            case [namespace, alias, name] if (namespace, alias) == (table.namespace or "public", table.name):
                pass
            case _:
                raise NotUnderstood(self._unknown(path), location)
        self.statement.check_column(table, name, location)
        return Column(name)

    def function(self, path: list[str], args: list[Expression], location: int) -> Expression | None:
        return None

    def oid(self, column: Column) -> int | None:
        return self.statement.context.type_of(self.source.table, column.name)

    def _unknown(self, path: list[str]) -> str:
        known = [name for name in (self.source.alias, self.source.table.name) if name]
        near = nearest(path[0], known) if len(path) > 1 else ""
        return f"{'.'.join(path)} is no column of {self.source.table}{near}"


@dataclass(slots=True)
class ParameterScope:
    """Where a row and the request are known: parameter queries on a table."""

    row: RowScope
    request: RequestScope

    def column(self, path: list[str], location: int) -> Expression:
        if len(path) > 1 and not self.row.source.is_called(path[0]):
            if path[0] == "bucket":
                raise NotUnderstood(
                    "`bucket.` is known in data queries only: here it is being made", location
                )
            if path[0] in REQUESTS:
                return self.request.column(path, location)
        return self.row.column(path, location)

    def function(self, path: list[str], args: list[Expression], location: int) -> Expression | None:
        return request_function(path, args, location)

    def oid(self, column: Column) -> int | None:
        return self.row.oid(column)


@dataclass(slots=True)
class DataScope:
    """Where a row and what its bucket is called are known: data queries."""

    row: RowScope
    parameters: tuple[str, ...]
    #: The columns that are called as a parameter is, and where the first of each stands.
    alike: dict[str, int] = field(default_factory=dict)

    def column(self, path: list[str], location: int) -> Expression:
        if len(path) == 1 and path[0] in self.parameters:
            self.alike.setdefault(path[0], location)
        if len(path) > 1 and not self.row.source.is_called(path[0]):
            if path[0] == "bucket":
                return BucketParameter(self._place(".".join(path[1:]), location))
            if path[0] in REQUESTS:
                raise NotUnderstood(self._request(".".join(path)), location)
        return self.row.column(path, location)

    def function(self, path: list[str], args: list[Expression], location: int) -> Expression | None:
        if len(path) > 1 and path[0] in (*REQUESTS, "subscription"):
            raise NotUnderstood(self._request(".".join(path) + "()"), location)
        return None

    def oid(self, column: Column) -> int | None:
        return self.row.oid(column)

    def _place(self, name: str, location: int) -> int:
        if name in self.parameters:
            return self.parameters.index(name)
        if not self.parameters:
            raise NotUnderstood(
                f"this definition has no `parameters`, so there is no bucket.{name}", location
            )
        raise NotUnderstood(f"there is no bucket.{name}{nearest(name, self.parameters)}", location)

    def _request(self, name: str) -> str:
        return f"a data query does not know who asks: select {name} AS x in `parameters`, and write bucket.x"
