"""A table as it is × as it is needed → Findings with the SQL that makes it fit. No I/O.

What must never happen: that a statement printed here makes the application's own writes fail. Postgres
refuses UPDATE and DELETE on a published table when its replica identity holds a column some publication does
not send, and REPLICA IDENTITY FULL holds them all. So before FULL is proposed, every publication the table
is in (not only ours) is looked at.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from replicator.wal.catalogue import Catalogue, Need, Table
from replicator.wal.finding import Finding, Level
from replicator.wal.names import qualify, quote

#: From this version on, generated columns can be published, and unpublished ones count against FULL.
SENDS_GENERATED = 180000

_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


def judge_table(catalogue: Catalogue, need: Need, publication: str, *, whole_rows: bool) -> list[Finding]:
    """What keeps this table from being followed, in the order in which to mend it.

    `whole_rows` asks for REPLICA IDENTITY FULL also where another identity is enough.
    """
    table = catalogue.tables.get((need.namespace, need.name))
    if table is None:
        return [_missing(catalogue, need)]
    if table.kind in _KINDS or table.persistence == "t":
        kind = _KINDS.get(table.kind, "a temporary table")
        why = "Only ordinary tables are in the log. Let the rules name the tables it is made of."
        return [Finding("error", "table.kind", table.label, f"{table.label} is {kind}", why)]
    return [
        *_columns(catalogue, table, need),
        *_unlogged(table),
        *_key(table),
        *_column_list(table, publication),
        *_identity(table, obstacles(catalogue.version, table, publication), whole_rows),
    ]


def publishable(catalogue: Catalogue, need: Need, publication: str, *, whole_rows: bool) -> Table | None:
    """The table, if it can be in a publication without harm."""
    table = catalogue.tables.get((need.namespace, need.name))
    if table is None or table.kind in _KINDS or table.persistence == "t":
        return None
    is_to_change = table.identity != "f" and becomes_full(table, whole_rows)
    return None if is_to_change and obstacles(catalogue.version, table, publication) else table


def obstacles(version: int, table: Table, ours: str) -> list[str]:
    """Why REPLICA IDENTITY FULL would end the application's updates, where we cannot mend that ourselves."""
    found = []
    may_matter = version >= SENDS_GENERATED
    if may_matter and (virtual := table.generates("v")):
        found.append(
            f"its column {quote(virtual[0])} is generated and virtual, which Postgres cannot publish"
        )
    for one in table.memberships:
        if not one.sends_changes:
            continue
        name = quote(one.publication)
        if one.has_column_list and not _can_drop_list(table, one.publication, ours):
            found.append(f"publication {name} has a column list for it")
        if may_matter and table.generates("s") and not one.sends_generated and one.publication != ours:
            found.append(f"publication {name} does not send its generated columns")
    return found


def _can_drop_list(table: Table, publication: str, ours: str) -> bool:
    """Whether taking the table out and in again is all it takes; a row filter would be lost."""
    one = table.membership(publication)
    return publication == ours and one is not None and one.is_direct and not one.has_row_filter


def _missing(catalogue: Catalogue, need: Need) -> Finding:
    if need.is_wildcard:
        what = f"there is no table yet of those that {need.label} stands for"
        why = "One that comes is followed if the publication takes it in, and once the role may read it."
        return Finding("note", "table.none", need.label, what, why)
    elsewhere = [qualify(*one) for one in catalogue.relations if one[1] == need.name]
    beside = {
        name: qualify(*one) for one in catalogue.relations if one[0] == need.namespace for name in one[1:]
    }
    close = [beside[name] for name in difflib.get_close_matches(need.name, beside, 1)]
    meant = next(iter(elsewhere + close), None)
    hint = f"; did you mean {meant}?" if meant else ""
    why = "A rule or the mapping names it. Correct that, or create the table."
    return Finding("error", "table.missing", need.label, f"there is no table {need.label}{hint}", why)


def _columns(catalogue: Catalogue, table: Table, need: Need) -> Iterable[Finding]:
    names = [column.name for column in table.columns]
    for name in sorted(need.columns - set(names)):
        close = difflib.get_close_matches(name, names, 1)
        hint = f"; did you mean {quote(close[0])}?" if close else ""
        what = f"{table.label} has no column {quote(name)}{hint}"
        why = (
            "Every row is known to the apps by its id, a column of that name."
            if name == "id"
            else "A rule or the mapping names it. Correct that, or add the column."
        )
        yield Finding("error", "table.column", table.label, what, why)
    sends_stored = catalogue.version >= SENDS_GENERATED
    unsent = [c.name for c in table.columns if c.generated == "v" or (c.generated and not sends_stored)]
    for name in unsent:
        what = f"column {quote(name)} of {table.label} is generated, and never in the log"
        if name in need.columns:
            why = "A rule decides by it. Let the rule name the columns it is computed from."
            yield Finding("error", "table.generated", table.label, what, why)
        else:
            why = "Apps will not see it. Stored ones are sent from Postgres 18 on."
            yield Finding("warning", "table.generated", table.label, what, why)


def _unlogged(table: Table) -> Iterable[Finding]:
    if table.persistence == "u":
        why = "Its changes are not in the log. SET LOGGED rewrites the whole table while nobody can use it."
        sql = f"ALTER TABLE {table.sql} SET LOGGED;"
        yield Finding("error", "table.unlogged", table.label, f"{table.label} is unlogged", why, sql)


def _key(table: Table) -> Iterable[Finding]:
    if table.late_key is not None:
        what = f"the primary key of {table.label} is DEFERRABLE"
        columns, name = ", ".join(map(quote, table.key)), quote(table.late_key)
        sql = (
            f"ALTER TABLE {table.sql} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} PRIMARY KEY ({columns});"
        )
        why = (
            "Inside a transaction two rows may have one key, and cannot be told apart. The statement builds "
            "an index while nobody can use the table; foreign keys to it have to be dropped and made again."
        )
        yield Finding("error", "table.key", table.label, what, why, sql)
        return
    if table.key:
        return
    has_id = any(column.name == "id" for column in table.columns)
    sql = f"ALTER TABLE {table.sql} ADD PRIMARY KEY (id);" if has_id else ""
    why = "Its rows can be neither copied in pieces nor told apart. " + (
        "The statement builds an index while nobody can write; on a large table, CREATE UNIQUE INDEX "
        "CONCURRENTLY and ADD PRIMARY KEY USING INDEX."
        if has_id
        else f"ALTER TABLE {table.sql} ADD PRIMARY KEY (…), with the columns that tell them apart."
    )
    yield Finding("error", "table.key", table.label, f"{table.label} has no primary key", why, sql)


def _column_list(table: Table, publication: str) -> Iterable[Finding]:
    one = table.membership(publication)
    if one is None or not one.has_column_list:
        return
    name = quote(publication)
    alter = f"ALTER PUBLICATION {name}"
    sql = f"BEGIN;\n{alter} DROP TABLE {table.sql};\n{alter} ADD TABLE {table.sql};\nCOMMIT;"
    why = (
        "What the list leaves out reaches nobody, and Postgres refuses every UPDATE and DELETE of a table "
        "that has both REPLICA IDENTITY FULL and a column list. What was sent before lacks the columns until "
        "it is copied again."
    )
    if not _can_drop_list(table, publication, publication):
        sql, why = "", f"{why} Publish it by its own name, without a column list; mind its row filter."
    what = f"publication {name} sends only some columns of {table.label}"
    yield Finding("error", "table.column_list", table.label, what, why, sql)


def _identity(table: Table, in_the_way: list[str], whole_rows: bool) -> Iterable[Finding]:
    goal = "f" if becomes_full(table, whole_rows) else table.identity
    leaves = [leaf for leaf in table.leaves if leaf.identity != goal]
    is_lacking = table.identity != goal or bool(leaves)
    if in_the_way and goal == "f":
        becomes = "would then fail" if is_lacking else "fails at present"
        why = f"Every UPDATE and DELETE of the application {becomes}, because {'; and '.join(in_the_way)}."
        state = "cannot be given" if is_lacking else "should not have"
        what = f"{table.label} {state} REPLICA IDENTITY FULL as things stand"
        yield Finding("error", "table.identity_blocked", table.label, what, f"{why} Change that first.")
        return
    if table.identity != "f":
        cost = (
            f"; FULL adds some {table.row_bytes} bytes of log to an update or delete"
            if table.row_bytes
            else ""
        )
        what = f"{table.label} {_old_row(table)}{cost}"
        if goal != "f":
            yield Finding("note", "table.identity", table.label, what, _WHY_ENOUGH)
        else:
            yield _full(table.namespace, table.name, what, level="warning" if _is_enough(table) else "error")
    for leaf in leaves:
        name = qualify(leaf.namespace, leaf.name)
        if goal == "f":
            what = f"{name}, a partition of {table.label}, does not send the whole of an old row"
            yield _full(leaf.namespace, leaf.name, what)
        else:
            what = f"{name}, a partition of {table.label}, has another replica identity than the table"
            sql = f"ALTER TABLE {qualify(leaf.namespace, leaf.name)} REPLICA IDENTITY DEFAULT;"
            why = "What the log tells of its old rows could not be used."
            yield Finding("error", "table.identity", name, what, why, sql if goal == "d" else "")


def becomes_full(table: Table, whole_rows: bool) -> bool:
    """Whether REPLICA IDENTITY FULL is what the table has, needs, or is wished to have."""
    return whole_rows or table.identity == "f" or not _is_enough(table)


def _is_enough(table: Table) -> bool:
    """Whether what the log says of an old row tells which row it was."""
    return table.identity == "i" or (table.identity == "d" and bool(table.key) and table.late_key is None)


def _full(namespace: str, name: str, what: str, level: Level = "error") -> Finding:
    sql = f"ALTER TABLE {qualify(namespace, name)} REPLICA IDENTITY FULL;"
    why = _WHY_FULL if level == "error" else _WHY_RATHER_FULL
    return Finding(level, "table.identity", qualify(namespace, name), what, why, sql)


_WHY_FULL = (
    "A row is in a bucket because of what it says. To see it leave, the log must carry the whole row as it "
    "was, TOASTed values included. The statement needs the table's lock for an instant: run SET lock_timeout "
    "= '3s'; before it, so that it never makes the application queue, and repeat it if it gives up."
)
_WHY_ENOUGH = (
    "That is enough: the newest version of each of its rows is kept in storage, looked up and written with "
    "every change, which costs room and time there. With REPLICA IDENTITY FULL the log carries the old row "
    "instead, which costs log; replicator publication plan --identity full prints the statements."
)
_WHY_RATHER_FULL = (
    "What it sends is enough; FULL was asked for. The statement needs the table's lock for an instant: run "
    "SET lock_timeout = '3s'; before it, so that the application never queues, and repeat it if it gives up."
)


def _old_row(table: Table) -> str:
    match table.identity:
        case "d" if table.key:
            return f"sends only the key ({', '.join(map(quote, table.key))}) of an old row"
        case "i":
            return "sends only the columns of an index of an old row"
        case _:
            return "sends nothing of an old row"
