"""What a role may do × what replication takes → Findings with the grants that are missing. No I/O.

The least a role can have: it may log in, read the log, and read the tables the rules name. Nothing here asks
for superuser, for ownership, or for a right on any other table.
"""

from __future__ import annotations

from collections.abc import Sequence

from replicator.wal.catalogue import Catalogue, Need, Role
from replicator.wal.finding import Finding
from replicator.wal.names import quote


def judge_role(catalogue: Catalogue, needs: Sequence[Need], storage_schema: str | None) -> list[Finding]:
    """What the role lacks; the storage schema counts only if it is to be in this database."""
    role = catalogue.role
    found = [*_login(role), *_reading(catalogue, needs), *_rows(catalogue)]
    found += [_marks(role, function) for function in role.missing_functions]
    return found + (judge_storage(role, storage_schema) if storage_schema else [])


def _lacks(role: Role, code: str, what: str, why: str, sql: str) -> Finding:
    return Finding("error", code, quote(role.name), f"role {quote(role.name)} {what}", why, sql)


def _marks(role: Role, function: str) -> Finding:
    why = "The copy of a table marks in the log where each of its steps begins and ends."
    sql = f"GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {quote(role.name)};"
    return _lacks(role, "role.messages", f"may not execute {function}", why, sql)


def _login(role: Role) -> list[Finding]:
    name = quote(role.name)
    replication = (
        f"GRANT {role.managed_by} TO {name};" if role.managed_by else f"ALTER ROLE {name} REPLICATION;"
    )
    why = "Only a role with REPLICATION may read the log. It may read all of it, so give it a good password."
    if not role.exists:
        what = "does not exist"
        create = f"CREATE ROLE {name} LOGIN"
        create = f"{create};\n{replication}" if role.managed_by else f"{create} REPLICATION;"
        password = f"-- and give it a password, in psql: \\password {name}"
        return [_lacks(role, "role.missing", what, why, f"{create}\n{password}")]
    return (
        []
        if role.may_replicate
        else [_lacks(role, "role.replication", "may not replicate", why, replication)]
    )


_COPIED = "Tables are copied once with SELECT, before their changes are followed."
_LOOKED_UP = "Patients, or the subjects of tokens, are looked up in it; it need not be published."


def _reading(catalogue: Catalogue, needs: Sequence[Need]) -> list[Finding]:
    role, name = catalogue.role, quote(catalogue.role.name)
    found = []
    if not role.may_connect:
        database = quote(catalogue.database)
        sql = f"GRANT CONNECT ON DATABASE {database} TO {name};"
        found.append(_lacks(role, "role.connect", f"may not connect to {database}", "", sql))
    for namespace in sorted({need.namespace for need in needs}):
        may_use, _ = role.schemas.get(namespace, (True, False))
        if not may_use:
            schema = quote(namespace)
            sql = f"GRANT USAGE ON SCHEMA {schema} TO {name};"
            found.append(_lacks(role, "role.usage", f"may not use schema {schema}", "", sql))
    hidden = [table for table in catalogue.tables.values() if not table.may_select]
    looked_up = {(need.namespace, need.name) for need in needs if not need.is_followed}
    for table in hidden:
        is_looked_up = (table.namespace, table.name) in looked_up
        why = _LOOKED_UP if is_looked_up else _COPIED
        sql = f"GRANT SELECT ON {table.sql} TO {name};"
        found.append(_lacks(role, "role.select", f"may not read {table.label}", why, sql))
    return found


def _rows(catalogue: Catalogue) -> list[Finding]:
    role = catalogue.role
    hidden = [table.label for table in catalogue.tables.values() if table.hides_rows]
    if not hidden:
        return []
    what = f"is shown only some rows of {', '.join(hidden)}, by row level security"
    why = (
        "The log carries all rows, whatever the policies; the first copy would silently carry only some. "
        "The role can still read nothing but the tables it was granted."
    )
    return [_lacks(role, "role.row_security", what, why, f"ALTER ROLE {quote(role.name)} BYPASSRLS;")]


def judge_storage(role: Role, schema: str) -> list[Finding]:
    """What the role lacks to keep buckets in this schema."""
    name, quoted = quote(role.name), quote(schema)
    may_use, may_create = role.schemas.get(schema, (True, role.may_create))
    if may_use and may_create:
        return []
    if schema in role.schemas:
        what = f"may not create tables in schema {quoted}"
        sql = f"GRANT USAGE, CREATE ON SCHEMA {quoted} TO {name};"
    else:
        what = f"may not create schema {quoted}, where buckets are kept"
        sql = f"CREATE SCHEMA {quoted} AUTHORIZATION {name};"
    return [_lacks(role, "storage.rights", what, "A schema of its own is all it may write to.", sql)]
