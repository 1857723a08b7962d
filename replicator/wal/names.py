"""A name in the database → how SQL writes it, quoted only where it must be. No I/O."""

from __future__ import annotations

import re
from typing import Final

_PLAIN: Final = re.compile(r"[a-z_][a-z0-9_]*")
#: Words a plain name may not be, in any Postgres from 14 to 18 (pg_get_keywords() but for the unreserved).
_RESERVED: Final = frozenset(
    """
    all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both
    case cast char character check coalesce collate collation column concurrently constraint create cross
    current_catalog current_date current_role current_schema current_time current_timestamp current_user dec
    decimal default deferrable desc distinct do else end except exists extract false fetch float for foreign
    freeze from full grant greatest group grouping having ilike in initially inner inout int integer intersect
    interval into is isnull join json json_array json_arrayagg json_exists json_object json_objectagg
    json_query json_scalar json_serialize json_table json_value lateral leading least left like limit
    localtime localtimestamp merge_action national natural nchar none normalize not notnull null nullif
    numeric offset on only or order out outer overlaps overlay placing position precision primary real
    references returning right row select session_user setof similar smallint some substring symmetric
    system_user table tablesample then time timestamp to trailing treat trim true union unique user using
    values varchar variadic verbose when where window with xmlattributes xmlconcat xmlelement xmlexists
    xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable
    """.split()
)


def quote(name: str) -> str:
    """`vital_signs` as it is; `"Odd Name"` and `"user"` in quotes."""
    if _PLAIN.fullmatch(name) and name not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def matches(pattern: str, name: str) -> bool:
    """Whether a name of the rules, which may end in `%`, means this one."""
    return name.startswith(pattern[:-1]) if is_wildcard(pattern) else name == pattern


def is_wildcard(name: str) -> bool:
    """Whether a name of the rules may mean several."""
    return name.endswith("%")


def like(pattern: str) -> str:
    """The same as a pattern of SQL's LIKE."""
    stem, wild = (pattern[:-1], "%") if is_wildcard(pattern) else (pattern, "")
    return re.sub(r"([\\%_])", r"\\\1", stem) + wild


def qualify(namespace: str, name: str) -> str:
    """`clinic.vital_signs`: in SQL whatever the search path, and for people, in one form everywhere."""
    return f"{quote(namespace)}.{quote(name)}"
