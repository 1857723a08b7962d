"""What FROM names → the meaning of column and function names. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replicator.rules.expression import Call, Column, Expression, Metadata, Request
from replicator.rules.sql.reader import NotUnderstood
from replicator.rules.sql.statement import Statement
from replicator.rules.streams.scoped import (
    CONNECTION,
    JWT,
    MEMBER_COLUMNS,
    SUBSCRIPTION,
    USER,
    Members,
    Origin,
    Table,
)
from replicator.text.nodes import nearest

_METADATA = ("schema", "table_name", "table_suffix")
#: What each namespace of functions is about. `request` is how edition 2 says some of it.
_REQUEST_FUNCTIONS: dict[str, dict[str, Request]] = {
    "auth": {"user_id": USER, "parameters": JWT, "parameter": JWT},
    "connection": {"parameters": CONNECTION, "parameter": CONNECTION},
    "subscription": {"parameters": SUBSCRIPTION, "parameter": SUBSCRIPTION},
    "request": {"user_id": USER, "jwt": JWT, "parameters": CONNECTION, "parameter": CONNECTION},
}


@dataclass(frozen=True, slots=True)
class Named:
    """One thing that FROM names."""

    #: In lower case.
    name: str
    #: None for a subquery.
    origin: Origin | None
    #: What its columns mean; None: it is a table, and has whatever columns it has.
    columns: Mapping[str, Expression] | None

    def column(self, name: str, location: int) -> Expression:
        if self.columns is None:
            assert self.origin is not None
            return Column(name, self.origin.at)
        if name not in self.columns:
            raise NotUnderstood(f"{self.name} has no column {name}{nearest(name, self.columns)}", location)
        return self.columns[name]


def named_table(name: str, origin: Table) -> Named:
    return Named(name.lower(), origin, None)


def named_members(name: str, origin: Members) -> Named:
    return Named(name.lower(), origin, {column: Column(column, origin.at) for column in MEMBER_COLUMNS})


class Names:
    """The names of one SELECT; those of the SELECTs around it are known by `name.column` only."""

    def __init__(self, statement: Statement, named: Sequence[Named], outer: Names | None) -> None:
        self._statement = statement
        self.named = named
        self._outer = outer
        self._edition = statement.context.dialect.edition

    def find(self, name: str) -> Named | None:
        """What is called so here, or around here."""
        for named in self.named:
            if named.name == name.lower():
                return named
        return self._outer.find(name) if self._outer else None

    def column(self, path: list[str], location: int) -> Expression:
        match path:
            case [name]:
                found = self._single(name, location)
            case [owner, name]:
                found = self._owner(owner, name, location)
            case _:
                raise NotUnderstood(f"{'.'.join(path)} is not understood; write alias.column", location)
        if isinstance(found.origin, Table):
            self._statement.check_column(found.origin.name, name, location)
        return found.column(name, location)

    def _single(self, name: str, location: int) -> Named:
        if len(self.named) == 1:
            return self.named[0]
        if not self.named:
            raise NotUnderstood(f"there is no FROM that could have a column {name}", location)
        choices = " or ".join(f"{named.name}.{name}" for named in self.named[:3])
        raise NotUnderstood(f"several tables are read here, so say of which: {choices}", location)

    def _owner(self, owner: str, name: str, location: int) -> Named:
        found = self.find(owner)
        if found is not None:
            return found
        if owner == "bucket":
            raise NotUnderstood("a stream has no bucket parameters; compare with auth.user_id() …", location)
        if owner in ("token_parameters", "user_parameters"):
            instead = "auth" if owner == "token_parameters" else "connection"
            raise NotUnderstood(f"{owner} is not part of streams; write {instead}.parameter('…')", location)
        names = [named.name for named in self.named]
        raise NotUnderstood(f"nothing in FROM is called {owner}{nearest(owner, names)}", location)

    def function(self, path: list[str], args: list[Expression], location: int) -> Expression | None:
        match path:
            case [namespace, name] if namespace in _REQUEST_FUNCTIONS:
                return self._request(namespace, name, args, location)
            case [owner, name] if name in _METADATA:
                return self._metadata(owner, name, args, location)
            case ["json_each"]:
                raise NotUnderstood("json_each stands in FROM: `FROM json_each(…) AS j`", location)
        return None

    def _metadata(self, owner: str, name: str, args: list[Expression], location: int) -> Expression:
        found = self.find(owner)
        if found is None or not isinstance(found.origin, Table):
            raise NotUnderstood(f"{owner}.{name}() needs a table in FROM that is called {owner}", location)
        if args:
            raise NotUnderstood(f"{owner}.{name}() has no arguments", location)
        return Metadata(name, found.origin.at)

    def _request(self, namespace: str, name: str, args: list[Expression], location: int) -> Expression:
        if namespace == "request" and self._edition >= 3:
            what = "request is not known to edition 3; write auth.user_id(), auth.parameter('…')"
            raise NotUnderstood(f"{what} or connection.parameter('…')", location)
        functions = _REQUEST_FUNCTIONS[namespace]
        if name not in functions:
            raise NotUnderstood(f"{namespace}.{name}() is not known{nearest(name, functions)}", location)
        if name != "parameter":
            if args:
                raise NotUnderstood(f"{namespace}.{name}() has no arguments", location)
            return functions[name]
        if len(args) != 1:
            raise NotUnderstood(f"{namespace}.parameter('name') needs one name", location)
        return Call("->>", (functions[name], args[0]))
