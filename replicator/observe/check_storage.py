"""A configuration → Findings about the database buckets are kept in, and how far our stream is stored."""

from __future__ import annotations

from typing import NamedTuple

from psycopg import sql

from replicator import queries
from replicator.buckets.model import Position
from replicator.buckets.read import position as read_position
from replicator.config import Config
from replicator.database import Connection, check_migrated, connected, rows
from replicator.dsn import describe_dsn
from replicator.ehr.queue_mirrored import MIRROR
from replicator.errors import ConfigError, ReplicatorError, StorageUnready
from replicator.observe.survey import Server, Survey, be_harmless, read_place, read_server
from replicator.wal.catalogue import read_role
from replicator.wal.finding import Finding
from replicator.wal.names import qualify, quote
from replicator.wal.rights import judge_storage

_q = queries.load("check")
_migrate = queries.load("migrate")
_queue = queries.load("queue")

_OBJECTS = {"r": "TABLE", "p": "TABLE", "v": "VIEW", "S": "SEQUENCE"}


class Storage(NamedTuple):
    """What was found there."""

    findings: list[Finding]
    #: Whether the schema is as this release wants it.
    is_ready: bool
    position: Position | None
    exit_code: int = 1


async def look_at_storage(config: Config, source: Survey | None) -> Storage:
    """Look, as harmlessly as at the source."""
    try:
        async with connected(config.storage_dsn, "check") as connection:
            async with connection.transaction(force_rollback=True):
                await be_harmless(connection)
                return await _look(connection, config, source)
    except ReplicatorError as error:
        where = describe_dsn(config.storage_dsn)
        code = "storage.refused" if isinstance(error, ConfigError) else "storage.unreachable"
        return Storage([Finding("error", code, where, error.what, error.hint)], False, None, error.exit_code)


async def _look(connection: Connection, config: Config, source: Survey | None) -> Storage:
    schema = config.storage.schema_name
    server = await read_server(connection)
    found = await _beside(connection, source)
    if config.storage_dsn != config.source_dsn:
        found += _pooled(server)
    if not await _is_begun(connection, schema):
        rights = judge_storage(await read_role(connection, server.role, [schema]), schema)
        return Storage([*rights, *found, _new(schema)], False, None)
    strangers = await judge_owner(connection, schema, server.role)
    if strangers:
        return Storage([*strangers, *found], False, None)
    try:
        await check_migrated(connection, schema)
    except StorageUnready as error:
        wrong = Finding("error", "storage.schema", schema, error.what, error.hint)
        return Storage([wrong, *found], False, None)
    await connection.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(schema)))
    found += await _mirror(connection, config, source)
    return Storage(found, True, await read_position(connection, config.source.slot))


async def _mirror(connection: Connection, config: Config, source: Survey | None) -> list[Finding]:
    """Whether the table is kept by which apps are to hear what became of changes."""
    schema = config.storage.schema_name
    if source is None or all((need.namespace, need.name) != (schema, MIRROR) for need in source.needs):
        return []
    if (await rows(connection, _queue.is_mirrored))[0][0]:
        return []
    name = qualify(schema, MIRROR)
    what = f"the rules name {name}, and nobody keeps it"
    why = "It is empty, and apps are told nothing. Run: replicator queue mirror"
    return [Finding("warning", "storage.mirror", name, what, why)]


def _new(schema: str) -> Finding:
    what = f"the schema {quote(schema)} of buckets is still to be filled"
    why = "Run: replicator migrate (with --dry-run to see its SQL)"
    return Finding("note", "storage.new", schema, what, why)


async def _is_begun(connection: Connection, schema: str) -> bool:
    """Whether anything stands in the schema; what it is, check_migrated says."""
    return bool((await rows(connection, _migrate.is_migrated, schema=schema))[0][0]) or bool(
        await rows(connection, _migrate.occupied, schema=schema)
    )


def _pooled(server: Server) -> list[Finding]:
    if not server.is_pooled:
        return []
    what = "a connection pooler stands between here and the storage"
    why = (
        "That only one replicator writes, and that readers are woken, rests on sessions: in transaction mode "
        "both break. Let storage.dsn name the server itself, or a pool in session mode."
    )
    return [Finding("error", "storage.pooler", quote(server.database), what, why)]


async def _beside(connection: Connection, source: Survey | None) -> list[Finding]:
    """Whether storage shares the source's log."""
    place = await read_place(connection)
    if source is None or place is None or source.place is None or place[0] != source.place[0]:
        return []
    if place == source.place:
        what = "buckets are kept in the source database itself"
        why = (
            "The simplest way. What is stored goes through the same log and onto the same disk once more, "
            "and a slot that falls behind keeps that back, too."
        )
        return [Finding("note", "storage.same_database", source.server.database, what, why)]
    what = "buckets are kept on the same server as the source"
    why = "Its slots keep log for what is stored, too."
    return [Finding("note", "storage.same_server", source.server.database, what, why)]


async def judge_owner(connection: Connection, schema: str, role: str) -> list[Finding]:
    """Whether what stands in the schema is the role's to write."""
    found = await rows(connection, _q.foreign_objects, schema=schema, role=role)
    if not found:
        return []
    what = f"{len(found)} object(s) in schema {quote(schema)} belong to another role than {quote(role)}"
    why = "Who runs `replicator migrate` owns what it makes; it should be the role that runs the replicator."
    owner = quote(role)
    lines = [f"ALTER {_OBJECTS[kind]} {qualify(schema, name)} OWNER TO {owner};" for name, kind in found]
    fix = "\n".join([f"ALTER SCHEMA {quote(schema)} OWNER TO {owner};", *lines])
    return [Finding("error", "storage.owner", schema, what, why, fix)]
