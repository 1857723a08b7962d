"""What the replicator brought can be taken away again, to the last grant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.database import migrate
from replicator.observe import publication
from replicator.observe.removal import removal
from tests.database.clinics import RULES, build_tables, configure

if TYPE_CHECKING:
    from tests.fixtures.postgres import Database

#: Whatever of a database a replicator could change.
_TRACES = """
SELECT 'schema', nspname, coalesce(nspacl::text, '') FROM pg_namespace WHERE nspname !~ '^pg_'
UNION ALL SELECT 'publication', pubname, '' FROM pg_publication
UNION ALL SELECT 'table', relname, relreplident::text || coalesce(relacl::text, '') FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
UNION ALL SELECT 'slot', slot_name, '' FROM pg_replication_slots WHERE database = current_database()
UNION ALL SELECT 'role', rolname, '' FROM pg_roles WHERE rolname LIKE %s
ORDER BY 1, 2, 3
"""


async def test_what_was_brought_goes_without_trace(database: Database) -> None:
    role, slot = f"r_{database.name}", f"s_{database.name}"
    build_tables(database)
    # A table somebody has granted something of has a list of rights, which does not become none again.
    database.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO CURRENT_USER")
    before = database.execute(_TRACES, [role])
    config = configure(database.owner_dsn, slot=slot)
    planned = await publication.plan(config, RULES, role, whole_rows=True)
    await publication.apply(config, planned, quiet=True)
    await migrate(database.owner_dsn, "replicator")
    database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
    assert database.execute(_TRACES, [role]) != before

    script = await removal(config, RULES, role)
    # The server's settings are not ours alone.
    for statement in (line for line in script.splitlines() if "ALTER SYSTEM" not in line):
        if not statement.startswith("--"):
            database.execute(statement)
    assert database.execute(_TRACES, [role]) == before


async def test_what_may_be_somebody_elses_is_said_to_be(database: Database) -> None:
    build_tables(database)
    database.execute("CREATE TABLE more (id int); CREATE PUBLICATION powersync FOR TABLE users, more")
    script = await removal(configure(database.owner_dsn), RULES, None)
    assert "does somebody else read it?\nDROP PUBLICATION powersync;" in script
    assert "REPLICA IDENTITY" not in script and "DROP ROLE" not in script
