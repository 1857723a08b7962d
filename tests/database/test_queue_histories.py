"""Whatever happens to rows, in whatever transactions: a patient's jobs are the history of their rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import pytest

from replicator.database import connected
from replicator.ehr.job import Jobs
from replicator.ehr.mapping import parse_mapping
from replicator.ehr.queue import Feed, Meanings
from replicator.wal.lsn import Lsn
from replicator.wal.messages import Column, Relation
from replicator.wal.transactions import Change, Kind
from tests.database.feeding import deliver
from tests.database.queued import prepared
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.migrated

_MAPPING = """\
system: clinic
namespace: clinic
ctx: {language: en, territory: CM, setting: other care, composer: Clinic, time: at}
tables:
  readings:
    key: id
    patient: patient_id
    template: replicator.pulse.v1
    filter: status <> 'draft'
    soft_delete: deleted
    ignore: [synced]
    fields: {pulse_encounter/pulse/any_event:0/rate: {column: rate, unit: /min}}
"""
_PLAIN = _MAPPING.replace("    filter: status <> 'draft'\n    soft_delete: deleted\n", "")
_NAMES = ("id", "patient_id", "rate", "at", "status", "deleted", "synced")
_RELATION = Relation(
    1, "public", "readings", "f", tuple(Column(name, 25, -1, name == "id") for name in _NAMES)
)


class Row(NamedTuple):
    id: str
    patient_id: str | None
    rate: str
    at: str
    status: str
    deleted: str | None
    synced: str | None


class Told(NamedTuple):
    """What a patient's record is to be told: of which change, which row, and what it says, if anything."""

    lsn: int
    ordinal: int
    patient: str
    key: str
    rate: str | None


class History:
    """A table, the changes that chance makes to it, and what follows from them for patients."""

    def __init__(self, chance: random.Random, is_plain: bool) -> None:
        self.chance, self.is_plain = chance, is_plain
        self.rows: dict[str, Row] = {}
        self.told: list[Told] = []
        self.lsn = 0x1000

    def transaction(self) -> tuple[list[Change], Lsn]:
        self.lsn += 0x100
        made: list[Change] = []
        for ordinal in range(self.chance.choice([1, 1, 2, 5, 20])):
            kind, old, new = self._any()
            if kind is Kind.TRUNCATE:
                for row in self.rows.values():
                    self._tell(ordinal, row, None)
                self.rows.clear()
            else:
                self._tell(ordinal, old, new)
                if old is not None:
                    del self.rows[old.id]
                if new is not None:
                    self.rows[new.id] = new
            # As the log has it: nothing but a tuple.
            plain = new and tuple(new)
            made.append(Change(kind, _RELATION, old and tuple(old), plain, ordinal, old is not None))
        return made, Lsn(self.lsn)

    def _any(self) -> tuple[Kind, Row | None, Row | None]:
        what = self.chance.random()
        if what < 0.04:
            return Kind.TRUNCATE, None, None
        if self.rows and what > 0.4:
            old = self.chance.choice(list(self.rows.values()))
            return (Kind.DELETE, old, None) if what > 0.85 else (Kind.UPDATE, old, self._changed(old))
        free = [id for id in "abcdefgh" if id not in self.rows]
        if not free:
            return Kind.DELETE, (old := self.chance.choice(list(self.rows.values()))), None
        return Kind.INSERT, None, self._row(self.chance.choice(free))

    def _row(self, id: str) -> Row:
        pick = self.chance.choice
        patient = pick(["p1", "p1", "p2", "p3", None])
        return Row(id, patient, str(self.chance.randrange(99)), "2026", pick(["draft", "final"]), None, None)

    def _changed(self, old: Row) -> Row:
        free = [id for id in "abcdefgh" if id not in self.rows]
        match self.chance.randrange(7):
            case 0:
                return old._replace(synced=str(self.chance.random()))
            case 1:
                return old._replace(patient_id=self.chance.choice(["p1", "p2", "p3", None]))
            case 2:
                return old._replace(status=self.chance.choice(["draft", "final"]))
            case 3:
                return old._replace(deleted=self.chance.choice([None, "2026-01-01"]))
            case 4 if free:
                return old._replace(id=self.chance.choice(free))
        return old._replace(rate=str(self.chance.randrange(99)))

    def _tell(self, ordinal: int, old: Row | None, new: Row | None) -> None:
        before, after = self._place(old), self._place(new)
        if before is not None and before != after:
            self.told.append(Told(self.lsn, ordinal, *before, None))
        is_same = old is not None and new is not None and old[:-1] == new[:-1]
        if after is not None and new is not None and not is_same:
            self.told.append(Told(self.lsn, ordinal, *after, new.rate))

    def _place(self, row: Row | None) -> tuple[str, str] | None:
        if row is None or row.patient_id is None:
            return None
        is_out = not self.is_plain and (row.status == "draft" or row.deleted is not None)
        return None if is_out else (row.patient_id, row.id)


def by_change(told: list[Told]) -> Iterator[tuple[object, list[tuple[str, str | None]]]]:
    """Change after change of one patient: those of one TRUNCATE have no order among themselves."""
    for change, parts in groupby(told, key=itemgetter(0, 1)):
        yield change, sorted(((each.key, each.rate) for each in parts), key=str)


@pytest.mark.parametrize("seed", range(12))
async def test_jobs_are_the_history_of_the_rows(
    database: Database, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    monkeypatch.setattr("replicator.ehr.queue._HELD_BYTES", chance.choice([800, 4000, 400_000]))
    await prepared(database)
    is_plain = bool(seed % 2)
    record = parse_mapping(_PLAIN if is_plain else _MAPPING, "ehr.yaml")
    meanings = Meanings(Jobs(record, lambda *asked: None, {}))
    history = History(chance, is_plain)
    async with connected(database.dsn, "feed", schema="replicator") as storage:
        for _ in range(60):
            async with storage.transaction():
                feed = Feed(meanings)
                for _ in range(chance.randrange(1, 4)):
                    await feed.add(*history.transaction())
                    if feed.is_full:
                        await feed.spill(storage)
                await feed.send(storage)
            if chance.random() < 0.1:
                await deliver(database)
    found = [
        Told(*row)
        for row in database.execute(
            """SELECT (commit_lsn - '0/0')::bigint, ordinal, patient, record_key,
                      CASE WHEN operation <> 'delete' THEN snapshot::json ->> 'rate' END
            FROM replicator.ehr_sync_queue WHERE patient IS NOT NULL ORDER BY lane, seq"""
        )
    ]
    assert len(history.told) > 100
    for patient in ("p1", "p2", "p3"):
        jobs = [each for each in found if each.patient == patient]
        expected = [each for each in history.told if each.patient == patient]
        assert list(by_change(jobs)) == list(by_change(expected))
    troubled = "SELECT count(*) FROM replicator.ehr_sync_queue WHERE patient IS NULL AND trouble IS NULL"
    assert database.execute(troubled) == [(0,)]
