"""Short words for plans, and rules files made of a few SELECTs."""

from __future__ import annotations

from replicator.errors import ConfigError
from replicator.rules.context import Tables
from replicator.rules.expression import Call, Column, Expression, Literal, Request, Scalar
from replicator.rules.model import DataQuery, Lookup, ParameterQuery, Predicate, Rules, Term, Variant, Window
from replicator.rules.parse import parse_rules
from replicator.text.nodes import Problems

USER = Request("user_id")
DAY = 86400.0


def jwt(name: str) -> Call:
    return Call("->>", (Request("jwt"), Literal(name)))


def client(name: str) -> Call:
    return Call("->>", (Request("parameters"), Literal(name)))


def array(name: str) -> Call:
    """`request.jwt() -> 'name'`."""
    return Call("->", (Request("jwt"), Literal(name)))


def call(name: str, *args: Expression | Scalar) -> Call:
    """A call whose plain values are literals."""
    return Call(name, tuple(Literal(arg) if isinstance(arg, Scalar) else arg for arg in args))


def column(name: str) -> Column:
    return Column(name)


def moment(name: str) -> Call:
    return call("unixepoch", Column(name), "subsec")


def written(
    parameters: str | list[str] | None, *data: str, extra: str = "", top: str = "", name: str = "d"
) -> str:
    """A rules file with one definition; every SELECT stands on a line of its own, from column 9."""
    lines = [*top.splitlines(), "bucket_definitions:", f"  {name}:", *extra.splitlines()]
    if parameters is not None:
        lines += ["    parameters:", *(f"      - {one}" for one in _list(parameters))]
    return "\n".join([*lines, "    data:", *(f"      - {one}" for one in data), ""])


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def read(
    parameters: str | list[str] | None,
    *data: str,
    extra: str = "",
    top: str = "",
    tables: Tables | None = None,
) -> Rules:
    return parse_rules(written(parameters, *data, extra=extra, top=top), "f", tables)


def variant(rules: Rules) -> Variant:
    (definition,) = rules.definitions
    (only,) = definition.variants
    return only


def terms(where: str, *names: str) -> tuple[Term, ...]:
    """The terms of `SELECT * FROM t WHERE …` with these bucket parameters."""
    selected = ", ".join(f"request.jwt() ->> '{name}' AS {name}" for name in names)
    (query,) = variant(read(f"SELECT {selected}", f"SELECT * FROM t WHERE {where}")).data
    return query.terms


def queried(sql: str) -> tuple[tuple[ParameterQuery, ...], tuple[Lookup, ...]]:
    """What one parameter query comes to; its columns need not be used."""
    names = [word for word in ("x", "y", "z") if f" AS {word}" in sql]
    where = " AND ".join(f"{name} = bucket.{name}" for name in names)
    rules = read(sql, "SELECT * FROM t" + (f" WHERE {where}" if where else ""))
    return variant(rules).queries, rules.lookups


def data(sql: str, parameters: str | None = None) -> DataQuery:
    (query,) = variant(read(parameters, sql)).data
    return query


def problems(text: str, tables: Tables | None = None) -> list[str]:
    """What is wrong with a file, as line:column: key: what."""
    try:
        parse_rules(text, "f", tables)
    except Problems as found:
        return [str(problem).removeprefix("f:") for problem in found.problems]
    except ConfigError as error:
        return [str(error)]
    return []


def refused(parameters: str | list[str] | None, *data: str, extra: str = "", top: str = "") -> list[str]:
    return problems(written(parameters, *data, extra=extra, top=top))


def warned(
    parameters: str | list[str] | None,
    *data: str,
    extra: str = "",
    top: str = "",
    tables: Tables | None = None,
) -> list[str]:
    rules = read(parameters, *data, extra=extra, top=top, tables=tables)
    return [str(warning).removeprefix("f:") for warning in rules.warnings]


def only(test: Expression, text: str) -> tuple[Predicate, ...]:
    return (Predicate(test, text),)


def until(name: str, seconds: float, text: str) -> Window:
    return Window(moment(name), seconds, True, text)


def since(name: str, seconds: float, text: str) -> Window:
    return Window(moment(name), seconds, False, text)
