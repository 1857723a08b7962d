"""A configuration and rules → the SQL that takes away what the replicator brought, to read and choose from.

It only prints. What stood there before us nobody has written down, so what may have been somebody else's is
said to be so, and a role is dropped by a statement that refuses while it owns or may do anything else.
"""

from __future__ import annotations

from collections.abc import Iterator

from replicator.config import Config
from replicator.database import connected
from replicator.dsn import describe_dsn
from replicator.ehr.mapping import mapping_of
from replicator.observe.needs import needs_of
from replicator.observe.report import comment
from replicator.observe.survey import Server, be_harmless, read_server
from replicator.rules.model import Rules
from replicator.wal.catalogue import Catalogue, meant, read_catalogue
from replicator.wal.mend import LOCK_TIMEOUT
from replicator.wal.names import quote
from replicator.wal.slots import SlotState, find_slot


async def removal(config: Config, rules: Rules, role: str | None) -> str:
    """The script."""
    needs = needs_of(rules, mapping_of(config), config.sync.token.subject)
    name, schema = config.source.publication, config.storage.schema_name
    async with connected(config.source_dsn, "removal") as source, source.transaction():
        await be_harmless(source)
        needs = await meant(source, needs, schema)
        catalogue = await read_catalogue(source, name, needs, role or source.info.user, schema)
        slot = await find_slot(source, config.source.slot)
        server = await read_server(source)
    head = comment(
        f"{describe_dsn(config.source_dsn)}: what the replicator brought. Stop it first, and read on"
    )
    needed = {(need.namespace, need.name) for need in needs if need.is_followed}
    lines = [
        head,
        *_stream(catalogue, slot, needed),
        *_storage(config),
        *_identities(catalogue, needed),
        *_settings(server),
    ]
    lines += _role(catalogue, role, schema) if role is not None else ["-- with --role NAME, its grants, too"]
    return "\n".join(lines)


def _stream(catalogue: Catalogue, slot: SlotState | None, needed: set[tuple[str, str]]) -> Iterator[str]:
    if slot is not None:
        yield f"SELECT pg_drop_replication_slot('{slot.name}');"
    publication = catalogue.publication
    if publication is not None:
        if publication.all_tables or publication.schemas or set(publication.tables) - needed:
            yield "-- It holds what no rule needs: does somebody else read it?"
        yield f"DROP PUBLICATION {quote(publication.name)};"


def _storage(config: Config) -> Iterator[str]:
    if config.storage_dsn != config.source_dsn:
        yield comment(f"in {describe_dsn(config.storage_dsn)}:")
        yield comment(f"DROP SCHEMA IF EXISTS {quote(config.storage.schema_name)} CASCADE;")
    else:
        yield f"DROP SCHEMA IF EXISTS {quote(config.storage.schema_name)} CASCADE;"


def _identities(catalogue: Catalogue, needed: set[tuple[str, str]]) -> Iterator[str]:
    followed = [table for where, table in catalogue.tables.items() if where in needed]
    full = [table for table in followed if table.identity == "f" and table.key]
    if full:
        yield f"{LOCK_TIMEOUT}  -- rather give up than let the application queue behind us"
        yield "-- where it was not FULL before:"
    for table in full:
        yield f"ALTER TABLE {table.sql} REPLICA IDENTITY DEFAULT;"


def _settings(server: Server) -> Iterator[str]:
    if server.settings["max_slot_wal_keep_size"] != "-1":
        yield "-- unless other slots want it:"
        yield "ALTER SYSTEM RESET max_slot_wal_keep_size;"
        yield "SELECT pg_reload_conf();"
    yield "-- wal_level stays; to have it as before: ALTER SYSTEM RESET wal_level; then restart Postgres"


def _role(catalogue: Catalogue, role: str, schema: str) -> Iterator[str]:
    if not catalogue.role.exists:
        return
    name = quote(role)
    for table in catalogue.tables.values():
        yield f"REVOKE ALL ON {table.sql} FROM {name};"
    for namespace in sorted(set(catalogue.role.schemas) - {schema}):
        yield f"REVOKE ALL ON SCHEMA {quote(namespace)} FROM {name};"
    yield f"REVOKE ALL ON DATABASE {quote(catalogue.database)} FROM {name};"
    yield f"DROP ROLE {name};"
