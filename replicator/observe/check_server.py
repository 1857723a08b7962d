"""What a source server says of itself → Findings about its version, settings and the way to it. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from replicator.errors import ReplicatorError
from replicator.observe.survey import Server, Survey
from replicator.observe.units import span
from replicator.wal.finding import Finding, Level
from replicator.wal.names import quote

#: The oldest and the newest major version this release is tested with.
VERSIONS = (14, 18)
RELOAD = "SELECT pg_reload_conf();"
RESTART = "restart Postgres"
#: A reader that hangs is noticed, and its slot free for another, within this; and not by mistake.
_TIMEOUT_MS = (5_000, 900_000)

#: Where ALTER SYSTEM is not for the DBA: where settings are made, and the name of wal_level there.
_PROVIDERS = {
    "rds": ("the parameter group", "rds.logical_replication = 1"),
    "cloudsql": ("the instance's flags", "cloudsql.logical_decoding = on"),
    "alloydb": ("the instance's flags", "alloydb.logical_decoding = on"),
    "azure": ("the server parameters", "wal_level = logical"),
}


def judge_way(survey: Survey) -> list[Finding]:
    """Whether the server can be spoken to as replication has to."""
    server, identity = survey.server, survey.identity
    way = f"database {quote(server.database)}"
    if not isinstance(identity, ReplicatorError):
        if not server.is_pooled:
            return []
        what = "a connection pooler stands between here and the source"
        why = "Replication got through it; but a stream that lasts for months does better without."
        return [Finding("warning", "connection.pooler", way, what, why)]
    said = identity.what
    if server.is_pooled or "unsupported startup parameter" in said:
        what = "a connection pooler stands in the way: it does not pass on replication connections"
        why = f"Let source.dsn name the server itself, its own host and port. ({said})"
        return [Finding("error", "connection.pooler", way, what, why)]
    if "pg_hba.conf" in said:
        what = "pg_hba.conf does not let replication connections in"
        why = (
            f"A line like `hostssl {quote(server.database)} {quote(server.role)} ADDRESS scram-sha-256` lets "
            "them in; logical replication goes by the database's name, not by the word replication. Then: "
            f"{RELOAD} ({said})"
        )
        return [Finding("error", "connection.pg_hba", way, what, why)]
    is_explained = not survey.catalogue.role.may_replicate or free(survey, "max_wal_senders") < 1
    if is_explained:
        return []
    what = "no replication connection could be made"
    return [Finding("error", "connection.replication", way, what, f"It said: {said}. {identity.hint}")]


def judge_server(survey: Survey, slot: str) -> list[Finding]:
    """Whether the server is one we know, and set up for logical replication."""
    server = survey.server
    ours = survey.slot(slot)
    needs_slot = ours is None
    needs_sender = ours is None or ours.active_pid is None
    return [
        *_version(server),
        *_standby(server),
        *judge_level(server),
        *(_room(survey, "max_replication_slots", "slots") if needs_slot else ()),
        *(_room(survey, "max_wal_senders", "senders") if needs_sender else ()),
        *_sender_timeout(server),
        *(_writers(survey) if needs_slot else ()),
        *_holders(survey),
    ]


def set_system(
    server: Server, level: Level, code: str, name: str, value: str, what: str, why: str
) -> Finding:
    """A finding about a setting; how it is mended depends on who runs the server."""
    takes_restart = name in ("wal_level", "max_replication_slots", "max_wal_senders")
    if name in server.pending:
        return Finding(level, code, name, f"{what}; a new value is set, and waits for a restart", why)
    if server.provider is not None:
        place, logical = _PROVIDERS[server.provider]
        setting = logical if name == "wal_level" else f"{name} = {value}"
        restart = f", then {RESTART}" if takes_restart else ""
        return Finding(level, code, name, what, f"{why} Here it is set in {place}: {setting}{restart}.")
    then = RESTART if takes_restart else RELOAD
    return Finding(level, code, name, what, why, f"ALTER SYSTEM SET {name} = '{value}'; -- then: {then}")


def _version(server: Server) -> Iterable[Finding]:
    oldest, newest = VERSIONS
    major = server.version // 10000
    if major < oldest:
        why = f"Postgres {oldest} to {newest} can be replicated; upgrade the source."
        yield Finding("error", "server.version", "version", f"this is Postgres {server.release}", why)
    elif major > newest:
        why = f"This release knows {oldest} to {newest}. It may work; is there a newer one?"
        yield Finding("warning", "server.version", "version", f"this is Postgres {server.release}", why)


def _standby(server: Server) -> Iterable[Finding]:
    if not server.is_standby:
        return
    what = "this server is a standby"
    if server.version < 160000:
        why = "Logical replication from a standby needs Postgres 16. Let source.dsn name the primary."
    else:
        why = (
            "Tables are copied between marks that have to be written to the log, which a standby cannot do. "
            "Let source.dsn name the primary."
        )
    yield Finding("error", "server.standby", "pg_is_in_recovery", what, why)


def judge_level(server: Server) -> Iterable[Finding]:
    """Whether the log says which rows have changed."""
    level = server.settings["wal_level"]
    if level != "logical":
        why = "The log says which blocks of the disk have changed; it has to say which rows."
        what = f"wal_level is {level}"
        yield set_system(server, "error", "server.wal_level", "wal_level", "logical", what, why)


def free(survey: Survey, name: str) -> int:
    """How many slots or senders are left."""
    used = len(survey.slots) if name == "max_replication_slots" else survey.server.senders_used
    return int(survey.server.settings[name]) - used


def _room(survey: Survey, name: str, what: str) -> Iterable[Finding]:
    if free(survey, name) < 1:
        all_of_them = int(survey.server.settings[name])
        found = f"all {all_of_them} replication {what} are taken" if all_of_them else f"{name} is 0"
        why = f"The replicator takes one of {name}; some to spare let standbys and others in."
        yield set_system(survey.server, "error", f"server.{what}", name, str(all_of_them + 10), found, why)


def _sender_timeout(server: Server) -> Iterable[Finding]:
    name, timeout_ms = "wal_sender_timeout", int(server.settings["wal_sender_timeout"])
    if timeout_ms == 0:
        what = "wal_sender_timeout is 0: a reader that died without a word keeps its slot"
    elif timeout_ms > _TIMEOUT_MS[1]:
        what = f"wal_sender_timeout is {span(timeout_ms / 1000)}: for so long a dead reader keeps its slot"
    elif timeout_ms < _TIMEOUT_MS[0]:
        what = f"wal_sender_timeout is {timeout_ms} ms: a moment's stall ends the stream"
    else:
        return
    why = (
        "Another replicator can take over only when the server has noticed. 60 s is what Postgres comes with."
    )
    yield set_system(server, "warning", "server.sender_timeout", name, "60s", what, why)


def _writers(survey: Survey) -> Iterable[Finding]:
    """The slot does not exist yet, and waits for all of these when it is made."""
    long = [str(one) for one in survey.writers if one.age_s is not None and one.age_s > 60]
    if long:
        what = f"{len(long)} open transaction(s) will hold up the making of the slot: {'; '.join(long)}"
        why = "It waits until these have ended: by themselves, or by pg_terminate_backend(pid)."
        yield Finding("warning", "server.open_transactions", "pg_stat_activity", what, why)
    hidden = [one for one in survey.writers if one.age_s is None]
    if hidden:
        name = quote(survey.server.role)
        what = f"{len(hidden)} open transaction(s) write at present; for how long is not shown to role {name}"
        sql = f"GRANT pg_read_all_stats TO {name};"
        why = "To be told in time who holds up the slot, or vacuum, it would have to be."
        yield Finding("note", "server.hidden_transactions", name, what, why, sql)


def _holders(survey: Survey) -> Iterable[Finding]:
    if survey.holders:
        what = f"open transactions keep old rows from being vacuumed: {'; '.join(map(str, survey.holders))}"
        why = "Not ours, and not in our way; but tables and indexes grow until they end."
        yield Finding("warning", "server.old_snapshots", "pg_stat_activity", what, why)
