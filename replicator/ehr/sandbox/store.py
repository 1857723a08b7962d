"""The schema `sandbox` of a Postgres → what is in it, and one transaction per call that changes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import orjson
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from replicator import database, queries
from replicator.ehr.sandbox.changes import Kind, Version
from replicator.ehr.sandbox.refusals import Refused, unknown_ehr

_q = queries.load("sandbox/store")
_CONNECTIONS = 8


class Record(NamedTuple):
    """An EHR as such."""

    ehr_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Store:
    """What a call sees of the schema: one connection, in a transaction."""

    connection: AsyncConnection[TupleRow]

    # ── EHRs ─────────────────────────────────────────────────────────────────────────────────────

    async def add_ehr(self, ehr_id: str, subject: tuple[str, str] | None, now: datetime) -> bool:
        """False if its id or its subject is taken."""
        subject_id, namespace = subject or (None, None)
        found = await self._rows(
            _q.add_ehr, ehr_id=ehr_id, subject_id=subject_id, subject_namespace=namespace, now=now
        )
        return bool(found)

    async def ehr(self, ehr_id: str, *, lock: bool = False) -> Record:
        """Raises Refused if there is none."""
        found = await self._rows(_q.lock_ehr if lock else _q.ehr, ehr_id=ehr_id)
        if not found:
            raise unknown_ehr(ehr_id)
        return Record(*found[0])

    async def ehr_of(self, subject_id: str, namespace: str) -> Record | None:
        found = await self._rows(_q.ehr_of_subject, subject_id=subject_id, subject_namespace=namespace)
        return Record(*found[0]) if found else None

    async def move_subject(self, ehr_id: str, subject: tuple[str, str] | None) -> None:
        subject_id, namespace = subject or (None, None)
        await self.connection.execute(
            _q.move_subject, {"ehr_id": ehr_id, "subject_id": subject_id, "subject_namespace": namespace}
        )

    # ── Versions ─────────────────────────────────────────────────────────────────────────────────

    async def versions(self, object_id: str) -> list[Version]:
        """Oldest first."""
        return [Version(*row) for row in await self._rows(_q.versions, object_id=object_id)]

    async def latest(self, ehr_id: str, kind: Kind) -> list[Version]:
        """The latest version of each object that is not deleted."""
        return [Version(*row) for row in await self._rows(_q.latest_of_ehr, ehr_id=ehr_id, kind=kind)]

    async def add(self, version: Version, contribution_id: str) -> None:
        await self.connection.execute(
            _q.add_version,
            {
                "object_id": version.object_id,
                "number": version.number,
                "ehr_id": version.ehr_id,
                "kind": version.kind,
                "contribution_id": contribution_id,
                "change": version.change,
                "template_id": version.template_id,
                "form": version.form,
                "body": None if version.body is None else orjson.dumps(version.body).decode(),
                "source_system": version.source_system,
                "source_version": version.source_version,
                "source_items": list(version.source_items),
                "source_types": list(version.source_types),
                "now": version.committed_at,
            },
        )

    # ── Contributions ────────────────────────────────────────────────────────────────────────────

    async def add_contribution(
        self, contribution_id: str, ehr_id: str, audit: dict[str, Any], now: datetime
    ) -> None:
        said = orjson.dumps(audit).decode()
        await self.connection.execute(
            _q.add_contribution,
            {"contribution_id": contribution_id, "ehr_id": ehr_id, "audit": said, "now": now},
        )

    async def contribution(
        self, ehr_id: str, contribution_id: str
    ) -> tuple[dict[str, Any], list[tuple[str, int, Kind]]]:
        """Its audit, and the versions it made."""
        found = await self._rows(_q.contribution, ehr_id=ehr_id, contribution_id=contribution_id)
        if not found:
            raise Refused(404, f"Contribution with id {contribution_id} does not exist")
        made = await self._rows(_q.contributed, contribution_id=contribution_id)
        return found[0][0], [(row[0], row[1], row[2]) for row in made]

    # ── Templates ────────────────────────────────────────────────────────────────────────────────

    async def add_template(self, opt: str | None, web_template: dict[str, Any], now: datetime) -> bool:
        """False if there is one of its id."""
        found = await self._rows(
            _q.add_template,
            template_id=web_template["templateId"],
            opt=opt,
            web_template=orjson.dumps(web_template).decode(),
            now=now,
        )
        return bool(found)

    async def template(self, template_id: str) -> tuple[str | None, dict[str, Any]] | None:
        """The OPT, if one was uploaded, and the web template."""
        found = await self._rows(_q.template, template_id=template_id)
        return (found[0][0], found[0][1]) if found else None

    async def templates(self) -> list[tuple[str, str, datetime]]:
        return [(row[0], row[1], row[2]) for row in await self._rows(_q.templates)]

    async def _rows(self, query: bytes, **values: Any) -> list[TupleRow]:
        return await database.rows(self.connection, query, **values)


class Stores:
    """Connections to the database, and its schema made if it is not there."""

    def __init__(self, dsn: str) -> None:
        settings = {"autocommit": True, "application_name": "replicator sandbox"}
        self._pool = AsyncConnectionPool[AsyncConnection[TupleRow]](
            dsn, kwargs=settings, min_size=1, max_size=_CONNECTIONS, open=False
        )

    async def open(self) -> None:
        await self._pool.open(wait=True)
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(_q.schema)

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Store]:
        """All of what is done within, or none of it."""
        try:
            async with self._pool.connection() as connection, connection.transaction():
                yield Store(connection)
        except psycopg.OperationalError:
            await self._pool.check()  # where one is gone the others may be: not each is to fail somebody
            raise
