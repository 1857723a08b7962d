"""A configuration and rules → a Report: can this source be replicated, and what has to be done first.

It only looks: one read-only transaction on each database, with a short timeout and no lock on any table, and
one replication connection that asks who is there.
"""

from __future__ import annotations

from collections.abc import Mapping

from replicator.buckets.model import Position
from replicator.config import Config
from replicator.dsn import describe_dsn
from replicator.ehr.mapping import mapping_of
from replicator.errors import ConfigError, ReplicatorError
from replicator.observe.check_server import free, judge_server, judge_way
from replicator.observe.check_slot import hours_to_full, judge_slot
from replicator.observe.check_storage import Storage, look_at_storage
from replicator.observe.check_sync import check_sync
from replicator.observe.needs import needs_of
from replicator.observe.report import Group, Report
from replicator.observe.survey import Survey, survey
from replicator.observe.units import size, span
from replicator.rules.model import Rules
from replicator.wal.finding import Finding
from replicator.wal.names import quote
from replicator.wal.publication import judge_publication
from replicator.wal.rights import judge_role


async def check(
    config: Config,
    rules: Rules,
    *,
    source_only: bool = False,
    sample_s: float = 0.0,
    environ: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Report:
    """Look at everything replication rests on, and at who is let in; perhaps as one user would be."""
    needs = needs_of(rules, mapping_of(config), config.sync.token.subject)
    try:
        source = await survey(config, needs, sample_s=sample_s)
    except ReplicatorError as error:
        return _refused(config, error)
    sync = await check_sync(config, rules, environ or {}, user)
    if source_only:
        return Report((*_judge_source(config, source, None), sync), _misconfigured(sync) or 1)
    storage = await look_at_storage(config, source)
    kept = Group("storage", _about_storage(config, storage), tuple(storage.findings))
    groups = (*_judge_source(config, source, storage.position), kept, sync)
    return Report(groups, _misconfigured(sync) or storage.exit_code)


def _misconfigured(sync: Group) -> int:
    """The exit code of what no statement mends, if there is such a thing."""
    return ConfigError.exit_code if any(finding.level == "error" for finding in sync.findings) else 0


def _refused(config: Config, error: ReplicatorError) -> Report:
    code = "connection.refused" if isinstance(error, ConfigError) else "connection.unreachable"
    finding = Finding("error", code, describe_dsn(config.source_dsn), error.what, error.hint)
    return Report((Group("connection", "", (finding,)),), error.exit_code)


def _judge_source(config: Config, source: Survey, position: Position | None) -> list[Group]:
    publication, slot, schema = config.source.publication, config.source.slot, config.storage.schema_name
    catalogue, needs, name = source.catalogue, source.needs, quote(source.server.role)
    where = f"{describe_dsn(config.source_dsn)} as {name}"
    may = f"{name} may replicate, and read every table it has to"
    followed = sum(need.is_followed for need in needs)
    sent = f"{followed} of the rules, in publication {quote(publication)}, with a replica identity"
    return [
        Group("connection", where, tuple(judge_way(source))),
        Group("server", _about_server(source), tuple(judge_server(source, slot))),
        Group("role", may, tuple(judge_role(catalogue, needs, None))),
        Group("tables", sent, tuple(judge_publication(catalogue, needs, publication, schema))),
        Group("slot", _about_slot(source, slot), tuple(judge_slot(source, slot, position))),
    ]


def _about_server(source: Survey) -> str:
    settings = source.server.settings
    slots = f"{free(source, 'max_replication_slots')} of {settings['max_replication_slots']} slots"
    senders = f"{free(source, 'max_wal_senders')} of {settings['max_wal_senders']} senders"
    return f"Postgres {source.server.release}, wal_level {settings['wal_level']}, {slots} and {senders} free"


def _about_slot(source: Survey, name: str) -> str:
    slot, pace, hours = source.slot(name), source.pace, hours_to_full(source.server, source.pace)
    room = ""
    if pace is not None and hours is not None:
        seen = f"at the pace seen over {span(pace.seconds)}"
        room = f"; if nobody read it, it would last {span(hours * 3600)} {seen}"
    if slot is None:
        return f"{quote(name)} is made when the replicator first runs{room}"
    reader = f"read by pid {slot.active_pid}" if slot.active_pid else "not read at present"
    return f"{quote(name)} is {slot.wal_status}, {size(slot.lag_bytes or 0)} behind, {reader}{room}"


def _about_storage(config: Config, storage: Storage) -> str:
    where = f"schema {quote(config.storage.schema_name)} of {describe_dsn(config.storage_dsn)}"
    return f"{where} is up to date" if storage.is_ready else where
