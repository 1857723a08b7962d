"""A publication as it is × the tables needed → Findings, and the plan that mends them. No I/O.

The order of findings is the order in which to run their SQL. A table that has to send whole old rows does so
before it enters the publication: one that is published without a usable replica identity refuses the
application's updates. Nothing here drops a publication, or takes a table out of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from replicator.wal.catalogue import Catalogue, Need, Publication, Table
from replicator.wal.finding import Finding
from replicator.wal.names import qualify, quote
from replicator.wal.own import WHY, is_own
from replicator.wal.rights import judge_role
from replicator.wal.tables import SENDS_GENERATED, judge_table, publishable

OPERATIONS = ("insert", "update", "delete", "truncate")
#: What a person decides about and runs at a time of their choosing: it locks or rewrites a table for long.
BY_HAND = frozenset({"table.key", "table.unlogged"})
#: What keeps a table out of the plan.
_UNFIT = frozenset({"table.unlogged", "table.missing", "table.kind", "table.own"})
#: How many names a sentence lists.
_SHOWN = 6


def judge_publication(
    catalogue: Catalogue, needs: Sequence[Need], name: str, storage_schema: str, *, whole_rows: bool = False
) -> list[Finding]:
    """What the publication and its tables lack, in the order in which to mend it."""
    followed = [need for need in needs if need.is_followed]
    needs = [need for need in followed if not is_own(need.namespace, need.name, storage_schema)]
    fit = [table for need in needs if (table := publishable(catalogue, need, name, whole_rows=whole_rows))]
    found = [_own(need) for need in followed if need not in needs]
    found += _generated(catalogue, fit, name)
    for need in needs:
        found += judge_table(catalogue, need, name, whole_rows=whole_rows)
    # The tables one after the other, but each kind of remedy together.
    found.sort(key=lambda finding: _ORDER.get(finding.code, 0))
    publication = catalogue.publication
    if publication is None:
        return [*found, _create(catalogue, fit, name), *_partitioned(fit)]
    return [
        *found,
        *_operations(publication, needs),
        *_via_root(publication, fit),
        *_members(publication, fit),
        *_filtered(publication, fit),
        *_partitioned(fit),
        *_unneeded(publication, needs),
        *_own_tables(publication, storage_schema),
    ]


_ORDER = {
    "publication.generated": 1,
    "table.column_list": 2,
    "table.unlogged": 3,
    "table.key": 4,
    "table.identity": 5,
}


def _own(need: Need) -> Finding:
    what = f"{need.label} is a table of the storage, which nobody can follow"
    return Finding("error", "table.own", need.label, what, WHY)


def _generated(catalogue: Catalogue, tables: Sequence[Table], name: str) -> Iterable[Finding]:
    publication = catalogue.publication
    generating = [table.label for table in tables if table.generates("s")]
    if publication is None or publication.sends_generated is not False or not generating:
        return
    why = (
        "What is not sent reaches nobody, and Postgres refuses updates of a table with REPLICA IDENTITY FULL "
        "and generated columns that are not sent."
    )
    what = f"publication {quote(name)} does not send the generated columns of {_some(generating)}"
    sql = f"ALTER PUBLICATION {quote(name)} SET (publish_generated_columns = stored);"
    yield Finding("error", "publication.generated", name, what, why, sql)


def _create(catalogue: Catalogue, tables: Sequence[Table], name: str) -> Finding:
    options = []
    if any(table.kind == "p" for table in tables):
        options.append("publish_via_partition_root = true")
    if catalogue.version >= SENDS_GENERATED and any(table.generates("s") for table in tables):
        options.append("publish_generated_columns = stored")
    listed = ",\n    ".join(table.sql for table in tables)
    sql = f"CREATE PUBLICATION {quote(name)} FOR TABLE\n    {listed}"
    sql += f"\n    WITH ({', '.join(options)});" if options else ";"
    why = "It says which tables leave this database." if tables else "It waits for a table to be put into it."
    what = f"there is no publication {quote(name)}"
    return Finding("error", "publication.missing", name, what, why, sql if tables else "")


def _operations(publication: Publication, needs: Sequence[Need]) -> Iterable[Finding]:
    lacking = [operation for operation in OPERATIONS if operation not in publication.operations]
    if not lacking:
        return
    name = quote(publication.name)
    what = f"publication {name} leaves out every {_some(lacking)}"
    why = "What is left out stays in the apps as it was, for ever and without a word."
    sql = f"ALTER PUBLICATION {name} SET (publish = '{', '.join(OPERATIONS)}');"
    needed = {(need.namespace, need.name) for need in needs}
    harmed = [qualify(*table) for table in publication.without_identity if table not in needed]
    if harmed and {"update", "delete"} & set(lacking):
        sql, why = "", _HARMS.format(_some(harmed))
    yield Finding("error", "publication.operations", publication.name, what, why, sql)


_HARMS = (
    "To publish them would make every UPDATE and DELETE of {} fail, which no rule needs and has no replica "
    "identity. Give it a primary key, take it out, or use a publication of your own (source.publication)."
)


def _via_root(publication: Publication, tables: Sequence[Table]) -> Iterable[Finding]:
    roots = [table.label for table in tables if table.kind == "p"]
    leaves = [
        table.label
        for table in tables
        if table.is_partition and table.kind != "p" and _by_root(table, publication)
    ]
    name, code = quote(publication.name), "publication.via_root"
    alter = f"ALTER PUBLICATION {name} SET (publish_via_partition_root = "
    if roots and not publication.via_root:
        what = f"{_some(roots)} is partitioned, and {name} sends changes under the names of partitions"
        why = "The rules name the table as a whole."
        yield Finding("error", code, publication.name, what, why, "" if leaves else f"{alter}true);")
    if leaves and publication.via_root:
        what = f"{name} sends the changes of {_some(leaves)} under the name of the table it is a partition of"
        why = "The rules name the partition. Let them name partitions or whole tables, not both."
        yield Finding("error", code, publication.name, what, why, "" if roots else f"{alter}false);")


def _by_root(table: Table, publication: Publication) -> bool:
    one = table.membership(publication.name)
    return one is not None and one.by_ancestor


def _members(publication: Publication, tables: Sequence[Table]) -> Iterable[Finding]:
    for table in tables:
        if table.membership(publication.name) is None:
            what = f"{table.label} is not in publication {quote(publication.name)}"
            sql = f"ALTER PUBLICATION {quote(publication.name)} ADD TABLE {table.sql};"
            why = "The rules need it; without it no change of it is sent."
            yield Finding("error", "publication.table", table.label, what, why, sql)


def _filtered(publication: Publication, tables: Sequence[Table]) -> Iterable[Finding]:
    for table in tables:
        one = table.membership(publication.name)
        if one is not None and one.has_row_filter:
            what = (
                f"publication {quote(publication.name)} sends only rows of {table.label} that pass its filter"
            )
            why = "The others reach nobody, whatever the rules say."
            yield Finding("note", "publication.row_filter", table.label, what, why)


def _partitioned(tables: Sequence[Table]) -> Iterable[Finding]:
    for table in tables:
        if table.kind == "p":
            what = f"{table.label} is partitioned"
            why = (
                "A partition added later needs the table's replica identity before it is used. TRUNCATE of a "
                "single one is not in the log, nor are the rows of one that is attached or detached: the "
                "table is then copied again."
            )
            yield Finding("note", "table.partitioned", table.label, what, why)


def _unneeded(publication: Publication, needs: Sequence[Need]) -> Iterable[Finding]:
    needed = {(need.namespace, need.name) for need in needs}
    more = [qualify(*table) for table in publication.tables if table not in needed]
    more += [f"every table of schema {quote(schema)}" for schema in publication.schemas]
    more += ["every table of this database"] if publication.all_tables else []
    if more:
        what = f"publication {quote(publication.name)} also holds what no rule needs: {_some(more)}"
        why = "It is sent, decoded and dropped: work for nothing, and more of the record than has to leave."
        yield Finding("note", "publication.unneeded", publication.name, what, why)


def _own_tables(publication: Publication, storage_schema: str) -> Iterable[Finding]:
    if publication.all_tables or storage_schema in publication.schemas:
        what = f"publication {quote(publication.name)} includes the schema {quote(storage_schema)} of our own"
        why = "What we write there comes back to us and is passed over; it costs, and does no harm."
        yield Finding("note", "publication.own_tables", publication.name, what, why)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class Plan:
    """From what there is to what the rules need."""

    publication: str
    #: To be run, in this order.
    steps: tuple[Finding, ...]
    #: What no statement of the plan mends; it is not complete while there are any.
    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]


def plan_publication(
    catalogue: Catalogue,
    needs: Sequence[Need],
    name: str,
    storage_schema: str,
    *,
    with_role: bool,
    with_storage: bool,
    whole_rows: bool = False,
) -> Plan:
    """The statements to run; a table that has to be mended by hand first is left out of them."""
    everything = judge_publication(catalogue, needs, name, storage_schema, whole_rows=whole_rows)
    problems = [one for one in everything if one.level == "error" and (one.code in BY_HAND or not one.sql)]
    unfit = {one.about for one in problems if one.code in _UNFIT}
    ready = [need for need in needs if need.label not in unfit]
    mending = judge_publication(catalogue, ready, name, storage_schema, whole_rows=whole_rows)
    role = judge_role(catalogue, ready, storage_schema if with_storage else None) if with_role else []
    steps = [one for one in (*role, *mending) if one.sql and one.code not in BY_HAND]
    notes = [one for one in everything if one.level != "error" and one not in steps]
    return Plan(name, tuple(steps), tuple(problems), tuple(notes))
