"""`config:` at the top of a rules file → a Dialect. No I/O.

An edition is a set of defaults; each can be set by itself. Without `config`, all is as it was at first.
"""

from __future__ import annotations

from yaml import MappingNode, Node, ScalarNode

from replicator.rules.context import Context
from replicator.rules.expression import EDITION_1, EDITION_2, EDITION_3, Dialect
from replicator.text.nodes import nearest
from replicator.text.words import boolean, whole

EDITIONS = {1: EDITION_1, 2: EDITION_2, 3: EDITION_3}
SWITCHES = ("timestamps_iso8601", "versioned_bucket_ids", "fixed_json_extract", "custom_postgres_types")
ENGINE = "unstable_sqlite_expression_engine"
PRECISION = "timestamp_max_precision"
#: Postgres has no more than six.
DIGITS = {"seconds": 0, "milliseconds": 3, "microseconds": 6, "nanoseconds": 6}
KEYS = ("edition", "storage_version", *SWITCHES, ENGINE, PRECISION)


def read_config(context: Context, node: Node) -> Dialect:
    """The dialect that `config` sets; what is wrong with it is noted."""
    if not isinstance(node, MappingNode):
        context.refuse(node, "config", "a mapping is expected, such as `edition: 2`")
        return EDITION_1
    parts: dict[str, Node] = {}
    for entry in context.document.entries(node):
        if entry.name not in KEYS:
            context.refuse(entry.key, f"config.{entry.name}", f"unknown key{nearest(entry.name, KEYS)}")
        parts[entry.name] = entry.value
    dialect = _edition(context, parts.get("edition"))
    switches = {name: _switch(context, name, parts[name]) for name in (*SWITCHES, ENGINE) if name in parts}
    is_engine = switches.pop(ENGINE, False)
    dialect = dialect._replace(**switches)
    _check_storage_version(context, parts.get("storage_version"))
    if is_engine:
        _refuse_engine(context, parts[ENGINE], dialect)
    if PRECISION in parts:
        dialect = dialect._replace(fraction_digits=_digits(context, parts[PRECISION], dialect))
    return dialect


def _text(node: Node) -> str:
    return str(node.value) if isinstance(node, ScalarNode) else ""


def _edition(context: Context, node: Node | None) -> Dialect:
    if node is None:
        return EDITION_1
    if _text(node) not in ("1", "2", "3"):
        context.refuse(node, "config.edition", "there are the editions 1, 2 and 3")
        return EDITION_1
    return EDITIONS[int(_text(node))]


def _switch(context: Context, name: str, node: Node) -> bool:
    try:
        return boolean(_text(node))
    except ValueError as error:
        context.refuse(node, f"config.{name}", str(error))
        return False


def _check_storage_version(context: Context, node: Node | None) -> None:
    """It is a number of another server's storage; ours has its own."""
    if node is None:
        return
    try:
        version = whole(_text(node))
    except ValueError:
        version = 0
    if version not in (2, 3):
        context.refuse(
            node, "config.storage_version", "the versions 2 and 3 are accepted, and mean nothing here"
        )


def _refuse_engine(context: Context, node: Node, dialect: Dialect) -> None:
    key = f"config.{ENGINE}"
    if dialect.edition < 3:
        context.refuse(node, key, "this needs `edition: 3`, and is not offered there either: leave it out")
    elif not dialect.fixed_json_extract:
        context.refuse(node, key, "this needs `fixed_json_extract`, and is not offered either: leave it out")
    else:
        context.refuse(node, key, "not offered: expressions mean what they mean without it; leave it out")


def _digits(context: Context, node: Node, dialect: Dialect) -> int | None:
    key, word = f"config.{PRECISION}", _text(node)
    if word not in DIGITS:
        context.refuse(node, key, f"there is no such precision{nearest(word, DIGITS)}")
        return None
    if not dialect.timestamps_iso8601:
        context.refuse(node, key, "this needs `timestamps_iso8601: true`, which edition 2 has")
    return DIGITS[word]
