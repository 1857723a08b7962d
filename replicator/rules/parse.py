"""YAML text → Rules, or every problem in it with its place. No I/O but reading the file.

At the top of a file stand `config` (what the rest means), `bucket_definitions` (editions 1 and 2), `streams`,
`with` (named subqueries for streams) and `parameters`: names for what is known of a request, as in

    parameters:
      user_id: SELECT request.jwt() ->> 'sub'

A parameter query may then say `parameters.user_id` for it. A name that nothing refers to is a warning.

And `event_definitions`, of which one is known: rows by which a backend tells how far clients' writes are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from yaml import MappingNode, Node, ScalarNode

from replicator.rules.context import ACCEPT, Context, Tables, is_accepted_anywhere, is_for_everybody
from replicator.rules.definitions.definitions import read_definition
from replicator.rules.definitions.events import read_events
from replicator.rules.definitions.scopes import RequestScope
from replicator.rules.editions import read_config
from replicator.rules.expression import Expression
from replicator.rules.model import Definition, Rules, Warned
from replicator.rules.sql.reader import NotUnderstood
from replicator.rules.sql.statement import Statement, check_clauses, open_statement, targets_of
from replicator.rules.streams.streams import read_stream
from replicator.text.file import read
from replicator.text.nodes import Document, Entry, nearest, parse, shown

TOP = ("config", "bucket_definitions", "streams", "with", "parameters", "event_definitions")

#: A name begins the names of buckets, in which these characters have a meaning.
NAME = re.compile(r'[^\[\]|#"\\\x00-\x1f\x7f-\x9f\u2028\u2029]{1,100}')

#: A definition whose name begins so says itself that it is for everybody.
PUBLIC = ("global", "public", "everybody", "everyone")

Reader = Callable[[Document, str, Node, Context], Definition | None]


def load_rules(path: Path, tables: Tables | None = None) -> Rules:
    """The rules of a file."""
    hint = "Name a file of rules that is there, or set `rules` in the configuration to its path."
    return parse_rules(read(path, hint), str(path), tables)


def parse_rules(text: str, file: str, tables: Tables | None = None, *, is_strict: bool = True) -> Rules:
    """The rules that a text means; `file` is for messages, `tables` is what the source has, if known.

    Unless it `is_strict`, what is refused because of the tables alone is only warned of.
    """
    document = parse(text, file, tags=(f"!{ACCEPT}",))
    parts: dict[str, Entry] = {}
    for entry in document.entries(document.root):
        if entry.name not in TOP:
            document.refuse(entry.key, shown(entry.name), f"unknown key{nearest(entry.name, TOP)}")
        parts[entry.name] = entry
    context = Context(document, tables=tables, is_strict=is_strict)
    if "config" in parts:
        context.dialect = read_config(context, parts["config"].value)
    _read_with(context, parts.get("with"))
    _read_parameters(context, parts.get("parameters"))
    definitions = _read_definitions(context, parts)
    writes = read_events(context, parts["event_definitions"]) if "event_definitions" in parts else ()
    _warn_of_unused(context, parts)
    document.settle()
    return Rules(
        tuple(definitions),
        tuple(context.lookups.values()),
        context.dialect,
        tuple(context.warnings),
        tuple(context.for_everybody),
        writes,
        text,
    )


def _read_definitions(context: Context, parts: dict[str, Entry]) -> list[Definition]:
    """What stands under `bucket_definitions` and `streams`: their names are those of one set."""
    document, edition = context.document, context.dialect.edition
    names: dict[str, str] = {}
    found: list[Definition] = []
    if "bucket_definitions" in parts and edition >= 3:
        what = "edition 3 has streams only: set `config.edition` to 2, or write streams"
        document.refuse(parts["bucket_definitions"].key, "bucket_definitions", what)
    elif "bucket_definitions" in parts:
        found += _each(context, parts["bucket_definitions"], names, read_definition)
    if "streams" in parts:
        if edition < 3:
            what = (
                "streams of this edition are an early form of them; `config.edition: 3` has all they can do"
            )
            context.warn(parts["streams"].key, "streams", what)
        found += _each(context, parts["streams"], names, read_stream)
    if not parts.keys() & {"bucket_definitions", "streams"} and not document.problems:
        expected = "streams" if edition >= 3 else "bucket_definitions"
        document.refuse(None, expected, "this key is missing")
    return found


def _each(context: Context, top: Entry, names: dict[str, str], reader: Reader) -> list[Definition]:
    if not isinstance(top.value, MappingNode) or not top.value.value:
        context.refuse(top.value, top.name, "a mapping from names to definitions is expected")
        return []
    found: list[Definition] = []
    for entry in context.document.entries(top.value):
        if not NAME.fullmatch(entry.name):
            what = 'a name has 1 to 100 characters, none of them a control character or one of []|#"\\'
            context.refuse(entry.key, f"{top.name}.{shown(entry.name)}", what)
        if names.setdefault(entry.name, top.name) != top.name:
            what = f"{shown(entry.name)} stands under {names[entry.name]} too"
            context.refuse(entry.key, f"{top.name}.{shown(entry.name)}", what)
        if len(names) > context.limits.definitions:
            context.refuse(entry.key, top.name, f"more than {context.limits.definitions} definitions")
            break
        definition = reader(context.document, entry.name, entry.value, context)
        if definition is not None:
            found.append(definition)
            _note_everybody(context, entry, definition)
    return found


def _note_everybody(context: Context, entry: Entry, definition: Definition) -> None:
    """A bucket without parameters is everybody's, which may be meant, or forgotten."""
    is_meant = entry.name.lower().startswith(PUBLIC) or is_accepted_anywhere(entry.value)
    if is_meant or not is_for_everybody(definition):
        return
    tables = sorted({str(query.table) for variant in definition.variants for query in variant.data})
    count = f"{len(tables)} table{'s' if len(tables) > 1 else ''}"
    what = (
        f"everybody who has a token gets these rows of {count}; if that is meant, let the name begin with "
        f"{' or '.join(PUBLIC[:2])}, or add `{ACCEPT}: true`"
    )
    line, column = context.document.place_of(entry.key)
    context.for_everybody.append(Warned(context.document.file, line, column, shown(entry.name), what))


def _read_with(context: Context, top: Entry | None) -> None:
    for entry in _mapping(context, top, "a mapping from names to SELECTs is expected"):
        if context.dialect.edition < 3:
            context.refuse(entry.key, "with", "this needs `config.edition: 3`")
            return
        if isinstance(entry.value, ScalarNode):
            context.ctes[entry.name] = entry.value
        else:
            context.refuse(entry.value, f"with.{shown(entry.name)}", "a SELECT is expected")


def _read_parameters(context: Context, top: Entry | None) -> None:
    found: dict[str, Expression] = {}
    for entry in _mapping(context, top, "a mapping from names to `SELECT request…` is expected"):
        statement = open_statement(context, f"parameters.{shown(entry.name)}", entry.value)
        if statement is None:
            continue
        try:
            found[entry.name] = _request_value(statement)
        except NotUnderstood as error:
            statement.refuse(error.what, error.location)
    # Only now: one of them cannot refer to another.
    context.requests.update(found)


def _request_value(statement: Statement) -> Expression:
    """The one value, of a request, that a SELECT under `parameters` has."""
    check_clauses(statement.select)
    targets = list(targets_of(statement.select))
    if (
        len(targets) != 1
        or targets[0].name is None
        or statement.select.keys() & {"fromClause", "whereClause"}
    ):
        raise NotUnderstood("one value is expected here, such as `SELECT request.jwt() ->> 'sub'`", 0)
    return statement.read(targets[0].node, RequestScope({}, set()))


def _mapping(context: Context, top: Entry | None, what: str) -> list[Entry]:
    if top is None:
        return []
    if not isinstance(top.value, MappingNode):
        context.refuse(top.value, top.name, what)
        return []
    return list(context.document.entries(top.value))


def _warn_of_unused(context: Context, parts: dict[str, Entry]) -> None:
    for kind, known in (("with", context.ctes.keys()), ("parameters", context.requests.keys())):
        for entry in _mapping(context, parts.get(kind), "") if known else []:
            if entry.name in known and (kind, entry.name) not in context.used:
                key = f"{kind}.{shown(entry.name)}"
                context.warn(entry.key, key, "nothing refers to this name")
