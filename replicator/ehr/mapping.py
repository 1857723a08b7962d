"""ehr.yaml → RecordMapping, or everything that is wrong with it at once.

    system: clinic                  what the source is called in the record; never change it
    namespace: clinic               of the subject ids of EHRs
    zone: +01:00                    of times that say none; +00:00 if left out
    existing: deliver               the rows that are there already, too; or skip. A table may say otherwise
    atomic: false                   what one transaction changes for a patient: at once, as one contribution
    committer: clinic               who commits those; the system, if left out
    ctx: {language: en, …}          for every table; a table's own `ctx` goes before
    tables: {vital_signs: {…}}      what the rows of each table become

What a path means, and whether a column exists, is not known here: `bind` asks the record system's own
template and the source's own catalogue.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from yaml import MappingNode, ScalarNode

from replicator.config import Config
from replicator.ehr.fields import qualified, read_fields, read_groups
from replicator.ehr.model import Children, OnDelete, RecordMapping, Style, TableMapping
from replicator.ehr.parts import (
    CTX,
    read_ctx,
    read_filter,
    read_gone,
    read_patient,
    read_status,
    read_template,
)
from replicator.ehr.used import tables_followed, used_columns
from replicator.ehr.written import Keys, Written
from replicator.errors import ConfigError
from replicator.text.file import read
from replicator.text.nodes import Entry, dotted
from replicator.wal.own import is_stored

HINT = "config/ehr.yaml shows how tables are mapped."
TOP = ("system", "namespace", "zone", "existing", "atomic", "committer", "ctx", "tables")
ALWAYS = ("key", "patient", "table", "ignore", "priority", "coalesce", "existing")
COMPOSITION = (
    *("template", "ctx", "commit", "episode", "filter", "fields", "groups", "atomic"),
    *("delete", "marked", "soft_delete"),
)
STYLES = {style.value: style for style in Style}
EXISTING = ("deliver", "skip")
POLICIES = {policy.value: policy for policy in OnDelete}
#: What the record system accepts as a namespace; others are refused with every single EHR.
NAMESPACE = re.compile(r"[a-zA-Z][a-zA-Z0-9_:/&+?-]*")
ZONE = re.compile(r"([+-])(0\d|1[0-4]):([0-5]\d)")
TABLE = re.compile(r"[^\s.]{1,63}(\.[^\s.]{1,63})?")
SYSTEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def load_mapping(path: Path) -> RecordMapping:
    """The mapping of a file."""
    return parse_mapping(read(path, "Set `ehr.mapping` to the path of your mapping."), str(path))


def mapping_of(config: Config) -> RecordMapping | None:
    """The mapping of a configuration, where there is a record system to feed."""
    if config.ehr.url is None:
        return None
    mapping = load_mapping(config.ehr.mapping_path)
    for table in tables_followed(mapping):
        namespace, _, name = table.partition(".")
        if is_stored(namespace, name, config.storage.schema_name):
            raise ConfigError(
                f"{mapping.file}: {table} is a table of the storage: each job would make another",
                "Map the tables of the application; if this is one of them, choose another storage.schema.",
            )
    return mapping


def parse_mapping(text: str, file: str) -> RecordMapping:
    """The mapping that a text means; `file` is for messages."""
    written = Written(text, file)
    root = written.document.root
    keys = written.keys(root, "", TOP, ("system", "namespace", "tables"))
    assert keys is not None, "a document's root is a mapping"
    what = "letters, digits, dots, dashes and _ are expected: a name that stays"
    system = written.matching(keys.get("system"), "system", SYSTEM, what)
    what = "a letter is expected first, then letters, digits and any of -_:/&+?"
    namespace = written.matching(keys.get("namespace"), "namespace", NAMESPACE, what)
    zone = _zone(written, keys)
    committer = written.words(keys.get("committer"), "committer")
    atomic = written.flag(keys.get("atomic"), "atomic", False)
    shared = _Shared(_shared_ctx(written, keys), _existing(written, keys, "deliver"), atomic)
    tables: dict[str, TableMapping] = {}
    for entry in written.entries(keys.get("tables"), "tables", "a mapping from tables is expected here"):
        table = _table(written, entry, shared)
        if table is not None:
            tables[table.name] = table
    if not tables and not written.document.problems:
        written.refuse(keys.get("tables"), "tables", "no table is mapped")
    written.document.settle(HINT)
    assert system and namespace, "settled"
    return RecordMapping(file, system, namespace, zone, tables, committer or system)


def _zone(written: Written, keys: Keys) -> int:
    text = written.matching(keys.get("zone"), "zone", ZONE, 'a form like "+01:00" is expected, in quotes')
    if text is None:
        return 0
    minutes = int(text[1:3]) * 60 + int(text[4:])
    return -minutes if text[0] == "-" else minutes


def _existing(written: Written, keys: Keys, default: str) -> str:
    return written.choice(keys.get("existing"), keys.at("existing"), EXISTING) or default


class _Shared(NamedTuple):
    """What the file says for every table that does not say it itself."""

    ctx: Keys | None
    existing: str
    atomic: bool


def _shared_ctx(written: Written, keys: Keys) -> Keys | None:
    node = keys.get("ctx")
    return None if node is None else written.keys(node, "ctx", CTX)


def _table(written: Written, entry: Entry, shared: _Shared) -> TableMapping | None:
    path = dotted("tables", entry.name)
    if not TABLE.fullmatch(entry.name):
        written.refuse(entry.key, "tables", "the name of a table is expected, perhaps with its schema")
        return None
    is_status = isinstance(entry.value, MappingNode) and any(
        isinstance(key, ScalarNode) and key.value == "status" for key, _ in entry.value.value
    )
    known = (*ALWAYS, "status") if is_status else (*ALWAYS, *COMPOSITION)
    needed = ("key", "patient") if is_status else ("key", "patient", "template")
    keys = written.keys(entry.value, path, known, needed)
    if keys is None:
        return None
    key, patient = (
        written.columns(keys.get("key"), keys.at("key"), is_needed=True),
        read_patient(written, keys),
    )
    if not key or patient is None:
        return None
    table = written.matching(keys.get("table"), keys.at("table"), TABLE, "the name of a table is expected")
    always = (
        entry.name,
        qualified(table or entry.name),
        written.place(entry.key),
        key,
        patient,
    )
    plain = TableMapping(
        *always,
        ignore=written.columns(keys.get("ignore"), keys.at("ignore")),
        priority=written.number(keys.get("priority"), keys.at("priority"), 100, 0, 1000),
        coalesce=written.flag(keys.get("coalesce"), keys.at("coalesce"), True),
        deliver_existing=_existing(written, keys, shared.existing) == "deliver",
    )
    if is_status:
        return replace(plain, status=read_status(written, keys))
    return _composition(written, keys, shared, plain)


def _composition(written: Written, keys: Keys, shared: _Shared, table: TableMapping) -> TableMapping:
    style = STYLES[written.choice(keys.get("commit"), keys.at("commit"), STYLES) or "event"]
    default = "delete" if style is Style.EVENT else "keep"
    on_delete = POLICIES[written.choice(keys.get("delete"), keys.at("delete"), POLICIES) or default]
    read = replace(
        table,
        template=read_template(written, keys),
        ctx=read_ctx(written, keys, shared.ctx),
        style=style,
        episode=written.column(keys.get("episode"), keys.at("episode")),
        filter=read_filter(written, keys),
        fields=read_fields(written, keys.get("fields"), keys.at("fields")),
        groups=read_groups(written, keys.get("groups"), keys.at("groups")),
        on_delete=on_delete,
        marked=read_fields(written, keys.get("marked"), keys.at("marked")),
        gone=read_gone(written, keys.get("soft_delete"), keys.at("soft_delete")),
        # Where rows share a composition, each is a version of it: nothing that could happen at once.
        atomic=written.flag(keys.get("atomic"), keys.at("atomic"), shared.atomic and style is Style.EVENT),
    )
    _refuse_what_clashes(written, keys, read)
    return read


def _refuse_what_clashes(written: Written, keys: Keys, table: TableMapping) -> None:
    if not table.fields and not table.groups and not written.document.problems:
        written.refuse(
            keys.get("fields") or keys.node, keys.path, "neither fields nor groups: nothing is written"
        )
    if (table.style is Style.EPISODIC) != (table.episode is not None):
        written.refuse(
            keys.get("episode") or keys.node, keys.at("commit"), "episode goes with commit: episodic"
        )
    if table.style is not Style.EVENT and table.atomic:
        what = f"each row is a version of its own here ({table.style.value}): atomic goes with commit: event"
        written.refuse(keys.get("atomic"), keys.at("atomic"), what)
    if table.style is not Style.EVENT and table.on_delete is OnDelete.DELETE:
        what = f"a row is only one version of a composition here ({table.style.value}): use keep or mark"
        written.refuse(keys.get("delete"), keys.at("delete"), what)
    if (table.on_delete is OnDelete.MARK) != bool(table.marked):
        what = "delete: mark and marked (the fields that say so) go together"
        written.refuse(keys.get("marked") or keys.get("delete") or keys.node, keys.path, what)
    for group in table.groups:
        each, names = group.each, [column.name for column in table.key]
        if isinstance(each, Children) and (len(names) > 1 or [*each.parent.values()] != names):
            what = (
                f"parent must lead to the key of this table, and that must be one column ({', '.join(names)})"
            )
            written.refuse_at(each.at, keys.at("groups"), what)
    _refuse_ignored(written, keys, table)


def _refuse_ignored(written: Written, keys: Keys, table: TableMapping) -> None:
    names = {column.name for column in table.ignore}
    for used in used_columns(table):
        if used.name in names:
            place = next(column.at for column in table.ignore if column.name == used.name)
            what = f"ignored, but used at {used.at.line}:{used.at.column}: a change of it would be missed"
            written.refuse_at(place, keys.at("ignore"), what)
