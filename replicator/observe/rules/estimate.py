"""A planned deploy × the source's statistics → how many rows it reads, how long it takes, what it stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from replicator import queries
from replicator.config import Config
from replicator.database import connected, rows
from replicator.observe.rules.deploying import Plan
from replicator.observe.rules.tables import SourceTable
from replicator.observe.survey import be_harmless

_q = queries.load("rules")
_deploy = queries.load("deploy")

#: Rows a second, where nothing has been copied yet from which to tell.
USUAL_RATE = 30_000.0
#: What an op takes besides its row: names, keys, index.
_OP_BYTES = 120


class TableEstimate(NamedTuple):
    """What reading one table comes to."""

    table: str
    rows: int
    #: In how many buckets, at a guess, each of its rows is.
    buckets_per_row: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a deploy comes to."""

    tables: tuple[TableEstimate, ...]
    #: Rows a second; whether that was measured here.
    rate: float
    is_measured: bool

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.tables)

    @property
    def seconds(self) -> float:
        return self.rows / self.rate

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.tables)


async def estimate(config: Config, plan: Plan) -> Estimate:
    """From what the source's planner believes; nothing is counted."""
    oids = [table.relation.oid for table in plan.tables]
    async with connected(config.source_dsn, "rules deploy") as source, source.transaction():
        await be_harmless(source)
        sizes = {oid: (count, size) for oid, count, size in await rows(source, _q.sizes, oids=oids)}
    schema, slot = config.storage.schema_name, config.source.slot
    async with connected(config.storage_dsn, "rules deploy", schema=schema) as storage:
        measured = (await rows(storage, _deploy.rate, slot=slot))[0][0]
    tables = [_table(table, plan, *sizes.get(table.relation.oid, (0, 0))) for table in plan.tables]
    return Estimate(tuple(tables), float(measured or USUAL_RATE), measured is not None)


def _table(table: SourceTable, plan: Plan, count: int, size: int) -> TableEstimate:
    terms = [
        term
        for variant in plan.new.variants()
        for query in variant.data
        if query.table.matches(*table.where)
        for term in query.terms
    ]
    # A row as JSON: its values, and the names of its columns.
    names = sum(len(column.name) + 4 for column in table.relation.columns)
    row = size // max(count, 1) + names + _OP_BYTES
    return TableEstimate(table.label, count, len(terms), count * len(terms) * row)
