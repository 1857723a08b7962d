"""Requests of tools for administration → what they ask about rules, schema and replication, or ask for.

Routes, fields and codes are those that existing tools know. There is one connection and one set of rules in
force. Nothing here runs SQL that somebody sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import orjson
from psycopg.conninfo import conninfo_to_dict
from starlette.requests import Request as HttpRequest

from replicator import queries
from replicator.config import Config
from replicator.database import Connect, Connection, rows
from replicator.errors import ReplicatorError, SourceUnready
from replicator.rules.model import Rules
from replicator.rules.parse import parse_rules
from replicator.sync.admin_rules import (
    Replicated,
    debug_answer,
    names_of,
    needs_of,
    refused_status,
    rules_status,
)
from replicator.sync.admin_schema import CONNECTION, read_columns, schema_answer, tables_of
from replicator.sync.admin_tokens import AdminTokens
from replicator.sync.http import Refused, body_of, invalid
from replicator.text.nodes import Problems
from replicator.wal.catalogue import read_catalogue
from replicator.wal.own import require_foreign
from replicator.wal.publication import judge_publication
from replicator.wal.slots import read_slots

_q = queries.load("status")

#: No rules file is longer than this.
BODY_MOST = 1 << 20

#: The text of a rules file → it is being put in force.
Deploy = Callable[[str], Awaitable[None]]
#: Everything is to be copied again.
Reprocess = Callable[[], Awaitable[None]]


class Admin:
    """What may be asked for with an admin token."""

    def __init__(
        self,
        config: Config,
        rules: Rules,
        text: str,
        admins: AdminTokens,
        storage: Connect,
        source: Connect,
        reprocess: Reprocess,
        deploy: Deploy,
    ) -> None:
        self._config, self._rules, self._text, self._admins = config, rules, text, admins
        self._storage, self._source = storage, source
        self._reprocess, self._deploy = reprocess, deploy
        self._slot = config.source.slot

    # -- /api/admin/v1 -----------------------------------------------------------------------------

    async def diagnostics(self, http: HttpRequest) -> dict[str, object]:
        body = await self._admitted(http)
        wants_content = body.get("sync_rules_content", False)
        if not isinstance(wants_content, bool):
            raise invalid(["sync_rules_content: must be true or false"])
        uri = _uri(self._config.source_dsn)
        connection: dict[str, object] = {"id": CONNECTION, "uri": uri, "postgres_uri": uri}
        content = self._text if wants_content else None
        try:
            status = await self._status_of(self._rules, self._text, content, is_in_force=True)
        except ReplicatorError as error:
            errors = [{"level": "fatal", "message": error.what}]
            return _data({"connections": [{**connection, "connected": False, "errors": errors}]})
        connections = [{**connection, "connected": True, "errors": []}]
        return _data({"connections": connections, "active_sync_rules": status})

    async def schema(self, http: HttpRequest) -> dict[str, object]:
        await self._admitted(http)
        async with self._source() as source:
            return _data(schema_answer(await read_columns(source, self._config.storage.schema_name)))

    async def validate(self, http: HttpRequest) -> dict[str, object]:
        body = await self._admitted(http)
        text = body.get("sync_rules")
        if not isinstance(text, str):
            raise invalid(["sync_rules: must be the text of a rules file"])
        try:
            return _data(await self._status_of(None, text, text, is_in_force=False))
        except Problems as refused:
            return _data(refused_status(refused.problems, text, text))

    async def reprocess(self, http: HttpRequest) -> dict[str, object]:
        await self._admitted(http)
        await self._copy_again()
        return _data({"connections": [{"id": CONNECTION, "tag": CONNECTION, "slot_name": self._slot}]})

    # -- /api/sync-rules/v1 ------------------------------------------------------------------------

    async def deploy_rules(self, http: HttpRequest) -> dict[str, object]:
        text = await self._sent_rules(http)
        try:
            rules = await asyncio.to_thread(parse_rules, text, "sync_rules")
            require_foreign(rules.tables(), self._config.storage.schema_name)
        except (Problems, SourceUnready) as refused:
            raise Refused(422, "PSYNC_R0001", "The rules cannot be meant", refused.what) from None
        await self._deploy(text)
        return _data({"slot_name": self._slot})

    async def validate_rules(self, http: HttpRequest) -> dict[str, object]:
        """Without the envelope, as tools expect it."""
        text = await self._sent_rules(http)
        try:
            return debug_answer(await asyncio.to_thread(parse_rules, text, "sync_rules"))
        except Problems as refused:
            return {"valid": False, "errors": [str(problem) for problem in refused.problems]}

    async def current(self, http: HttpRequest) -> dict[str, object]:
        self._admins.require(http.headers.get("authorization"))
        debug = debug_answer(self._rules)
        return _data(
            {"current": {"slot_name": self._slot, "content": self._text, **debug}, "next": None},
        )

    async def reprocess_rules(self, http: HttpRequest) -> dict[str, object]:
        await self._admitted(http)
        await self._copy_again()
        return _data({"slot_name": self._slot})

    # -- what they share ---------------------------------------------------------------------------

    async def _admitted(self, http: HttpRequest) -> dict[str, Any]:
        """The body, of who may."""
        self._admins.require(http.headers.get("authorization"))
        return _object(await body_of(http.receive, BODY_MOST))

    async def _sent_rules(self, http: HttpRequest) -> str:
        """A rules file: the body itself, or `content` in a JSON body."""
        self._admins.require(http.headers.get("authorization"))
        raw = await body_of(http.receive, BODY_MOST)
        kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            content = _object(raw).get("content")
            if not isinstance(content, str):
                raise invalid(["content: must be the text of a rules file"])
            return content
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise invalid(["body: must be UTF-8 text"]) from None

    async def _copy_again(self) -> None:
        async with self._storage() as storage:
            known = await rows(storage, _q.tables, slot=self._slot)
        if not known:
            raise Refused(422, "PSYNC_S4104", "Nothing is replicated yet")
        if any(state != "copied" for _, _, _, state, *_ in known):
            raise Refused(409, "PSYNC_S4106", "Tables are being copied already", "Wait until they have been.")
        await self._reprocess()

    async def _status_of(
        self, rules: Rules | None, text: str, content: str | None, *, is_in_force: bool
    ) -> dict[str, object]:
        """SyncRulesStatus, of rules or of a text that is to be read with what the source has."""
        config = self._config
        schema, publication = config.storage.schema_name, config.source.publication
        async with self._source() as source:
            tables = tables_of(await read_columns(source, schema))
            if rules is None:
                rules = await asyncio.to_thread(parse_rules, text, "sync_rules", tables)
            names = names_of(rules, tables)
            needs = needs_of(names)
            role: str = (await rows(source, b"SELECT current_user::text"))[0][0]
            catalogue = await read_catalogue(source, publication, needs, role, schema)
            replicated = await self._replicated(source) if is_in_force else None
        findings = judge_publication(catalogue, needs, publication, schema)
        return rules_status(rules, text, replicated, names, catalogue, findings, content)

    async def _replicated(self, source: Connection) -> Replicated:
        slots = {slot.name: slot for slot in await read_slots(source)}
        kept: str = (await rows(source, b"SELECT current_setting('max_slot_wal_keep_size')"))[0][0]
        async with self._storage() as storage:
            stands = await rows(storage, _q.stands, slot=self._slot)
            known = await rows(storage, _q.tables, slot=self._slot)
        is_complete = bool(known) and all(state == "copied" for _, _, _, state, *_ in known)
        lsn, recorded_at = (stands[0][1], stands[0][4]) if stands else (None, None)
        return Replicated(self._slot, slots.get(self._slot), is_complete, lsn, recorded_at, kept)


def _data(result: dict[str, object]) -> dict[str, object]:
    return {"data": result}


def _object(raw: bytes) -> dict[str, Any]:
    if not raw.strip():
        return {}
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise invalid([f"body: not JSON: {error}"]) from None
    if not isinstance(body, dict):
        raise invalid(["body: must be an object"])
    return body


def _uri(dsn: str) -> str:
    """Where the source is, without who with which password."""
    parts = conninfo_to_dict(dsn)
    host, port = str(parts.get("host") or ""), str(parts.get("port") or "5432")
    return f"postgresql://{quote(host, safe=',.:-')}:{port}/{quote(str(parts.get('dbname') or ''))}"
