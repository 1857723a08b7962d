"""A database → a clinic in it, and the configuration and rules of a replicator that has not run yet."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from replicator import queries
from replicator.config import Config, load
from replicator.observe.check import check
from replicator.observe.report import Report
from replicator.rules.model import Rules
from replicator.rules.parse import load_rules, parse_rules
from replicator.wal.finding import Finding

if TYPE_CHECKING:
    from tests.fixtures.postgres import Database

RULES = load_rules(queries.house("config") / "rules.yaml")


def build_tables(database: Database) -> None:
    """The clinic's tables, and nothing done for replication."""
    database.execute(queries.load("clinic").schema.decode())


def rules_for(*tables: str, column: str | None = None) -> Rules:
    """Rules that read these tables; `schema.table` where it is not in public."""
    where = "" if column is None else f' WHERE "{column}" = bucket.it'
    definition: dict[str, object] = {"data": [f"SELECT * FROM {_quoted(table)}{where}" for table in tables]}
    if column is not None:
        definition["parameters"] = "SELECT request.user_id() AS it"
    return parse_rules(json.dumps({"bucket_definitions": {"all": definition}}), "rules_for")


def _quoted(table: str) -> str:
    return ".".join(f'"{part}"' for part in table.rsplit(".", 1))


def configure(dsn: str, *, storage_dsn: str | None = None, **source: str) -> Config:
    """A configuration; `slot="…"` or `publication="…"` to differ from the default."""
    config = load(None, {"SOURCE_DSN": dsn} | ({"STORAGE_DSN": storage_dsn} if storage_dsn else {}))
    return config.model_copy(update={"source": config.source.model_copy(update=source)})


async def look(config: Config, rules: Rules = RULES, *, source_only: bool = False) -> Report:
    """A check that does not wait to see how fast the log grows."""
    return await check(config, rules, source_only=source_only, sample_s=0)


def found(report: Report, code: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.code == code]


def wrong(report: Report) -> list[str]:
    """What is left that is not merely worth knowing, and not about a whole server we share."""
    return [
        f"{finding.code}: {finding.what}"
        for finding in report.findings
        if finding.level != "note" and finding.code != "slot.keep"
    ]


def run_all(dsn: str, report: Report) -> None:
    """Every SQL of every finding, as the superuser whose connection string this is."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for finding in report.findings:
            if finding.sql:
                connection.execute(finding.sql.encode())


@contextlib.contextmanager
def a_role(database: Database, name: str, attributes: str = "LOGIN") -> Iterator[str]:
    """A role of this server with a password; its connection string for this database."""
    role = sql.Identifier(name)
    create = sql.SQL("CREATE ROLE {} {} PASSWORD 'a password'").format(role, sql.SQL(attributes))
    with psycopg.connect(database.owner_dsn, autocommit=True) as admin:
        admin.execute(create)
    try:
        yield database.server.dsn(database.name, user=name, password="a password")
    finally:
        with psycopg.connect(database.owner_dsn, autocommit=True) as admin:
            for statement in ("REASSIGN OWNED BY {} TO CURRENT_USER", "DROP OWNED BY {}", "DROP ROLE {}"):
                admin.execute(sql.SQL(statement).format(role))
