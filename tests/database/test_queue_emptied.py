"""A TRUNCATE of a mapped table ends what was fed of it, in its lanes and in its place among the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from replicator.database import Connect, connected
from replicator.ehr.job import Jobs
from replicator.ehr.lanes import Home
from replicator.ehr.lanes_taken import Lanes
from replicator.ehr.mapping import parse_mapping
from replicator.ehr.queue import Feed, Meanings
from replicator.wal.lsn import Lsn
from replicator.wal.messages import Column, Relation
from replicator.wal.transactions import Change, Kind
from tests.database.feeding import deliver
from tests.database.laying import laid_out
from tests.database.queued import AT, NAMES, prepared
from tests.database.test_queue_lanes import HOUR, done
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
    fields: {pulse_encounter/pulse/any_event:0/rate: {column: rate, unit: /min}}
    MORE
"""
_MARK = "delete: mark\n    marked: {pulse_encounter/context/location: {constant: gone}}"
_PARTS = """groups:
      pulse_encounter/pulse:
        rows: {table: items, parent: {order_id: id}, order: order_id}
        fields: {any_event:0/rate: {column: rate, unit: /min}}"""
Step = tuple[str, str | None, str | None]


def relation(name: str = "readings") -> Relation:
    return Relation(1, "public", name, "f", tuple(Column(each, 25, -1, each == "id") for each in NAMES))


def changes(steps: Sequence[Step]) -> list[Change]:
    """`(+, id, patient)`, `(-, id, patient)` and `(truncate, table, None)`."""
    made: list[Change] = []
    for ordinal, (what, id, patient) in enumerate(steps):
        row = (id, patient, "70", AT, "t")
        if what == "truncate":
            made.append(Change(Kind.TRUNCATE, relation(id or ""), None, None, ordinal))
        elif what == "+":
            made.append(Change(Kind.INSERT, relation(), None, row, ordinal))
        else:
            made.append(Change(Kind.DELETE, relation(), row, None, ordinal, True))
    return made


class Fed:
    """Transactions told one after another, each as one storage transaction."""

    def __init__(self, database: Database, more: str = "", system: str = "clinic") -> None:
        text = _MAPPING.replace("MORE", more).replace("system: clinic", f"system: {system}")
        record = parse_mapping(text, "ehr.yaml")
        self.database = database
        self._meanings = Meanings(Jobs(record, lambda *asked: None, {}))
        self._lsn = 0x1000

    async def __call__(self, *steps: Step) -> None:
        self._lsn += 0x100
        async with (
            connected(self.database.dsn, "feed", schema="replicator") as storage,
            storage.transaction(),
        ):
            feed = Feed(self._meanings)
            await feed.add(changes(steps), Lsn(self._lsn))
            await feed.send(storage)

    def forget(self) -> None:
        self.database.execute("DELETE FROM replicator.ehr_jobs_done")

    def waiting(self) -> list[tuple[Any, ...]]:
        """What waits, lane by lane."""
        return self.database.execute(
            """SELECT patient, record_key, operation FROM replicator.ehr_sync_queue_open
            ORDER BY patient, lane, seq"""
        )


async def test_what_was_delivered_and_what_waits_is_ended_once(database: Database) -> None:
    await prepared(database)
    fed = Fed(database)
    await fed(("+", "1", "p1"), ("+", "2", "p2"), ("+", "gone", "p1"), ("-", "gone", "p1"))
    await deliver(database)
    await fed(("+", "3", "p1"), ("+", "4", "p2"), ("-", "4", "p2"))
    await fed(("truncate", "readings", None))
    await fed(("truncate", "readings", None))
    assert fed.waiting() == [
        ("p1", "3", "create"),
        ("p1", "1", "delete"),
        ("p1", "3", "delete"),
        ("p2", "4", "create"),
        ("p2", "4", "delete"),
        ("p2", "2", "delete"),
    ]
    await deliver(database)
    await fed(("truncate", "readings", None))
    assert fed.waiting() == []


async def test_what_comes_before_and_after_it_in_one_transaction_keeps_its_order(database: Database) -> None:
    await prepared(database)
    fed = Fed(database)
    await fed(
        ("+", "1", "p1"),
        ("truncate", "readings", None),
        ("+", "1", "p1"),
        ("truncate", "readings", None),
        ("+", "1", "p1"),
    )
    assert fed.waiting() == [("p1", "1", each) for each in ("create", "delete", "create", "delete", "create")]
    query = "SELECT ordinal FROM replicator.ehr_sync_queue_open ORDER BY seq"
    assert [row[0] for row in database.execute(query)] == [0, 1, 2, 3, 4]
    assert database.execute("SELECT count(*) FROM replicator.ehr_arrivals") == [(0,)]


async def test_what_waits_without_an_id_is_what_was_delivered_meanwhile(
    connect: Connect, database: Database
) -> None:
    """Nobody has named the deletion and the creation that still wait: both are about the same composition."""
    await prepared(database)
    fed = Fed(database)
    for steps in ("+", "1", "p1"), ("truncate", "readings", None), ("+", "1", "p1"):
        await fed(steps)
    lanes = Lanes(connect, "one", HOUR)
    (lane,) = await lanes.claim(1, 1)
    lane.home = Home(str(lane.tasks[0].job.ehr), "sandbox")
    await lanes.record([done(lane, delay=0.0)])
    await fed(("truncate", "readings", None))
    assert fed.waiting() == [("p1", "1", each) for each in ("delete", "create", "delete")]


@pytest.mark.parametrize("is_laid_out", [False, True])
@pytest.mark.parametrize(
    ("before", "after", "system"),
    [
        ("", "commit: longitudinal", "clinic"),
        ("", "commit: episodic\n    episode: active", "clinic"),
        ("commit: longitudinal", "", "clinic"),
        ("", "", "hospital"),
    ],
)
async def test_what_waits_is_ended_as_the_mapping_was_when_it_came(
    database: Database, before: str, after: str, system: str, is_laid_out: bool
) -> None:
    await prepared(database)
    await Fed(database, f"{before}\n    {_MARK}")(("+", "1", "p1"), ("+", "2", "p1"))
    if is_laid_out:
        await laid_out(database)
    now = Fed(database, f"{after}\n    {_MARK}", system)
    await now(("truncate", "readings", None))
    await laid_out(database)
    about: dict[str, set[str]] = {}
    for operation, composition in database.execute(
        "SELECT operation, composition_id::text FROM replicator.ehr_sync_queue_open"
    ):
        about.setdefault(operation, set()).add(composition)
    assert about["mark"] == about["create"] and None not in about["mark"]


async def test_with_policy_keep_nothing_happens(database: Database) -> None:
    await prepared(database)
    fed = Fed(database, "delete: keep")
    await fed(("+", "1", "p1"), ("truncate", "readings", None))
    assert fed.waiting() == [("p1", "1", "create")]


async def test_marks_say_what_the_row_said_last(database: Database) -> None:
    """Also of what has been delivered; and where nobody knows any more, a person has to decide."""
    await prepared(database)
    fed = Fed(database, _MARK)
    await fed(("+", "1", "p1"), ("+", "marked", "p1"))
    await fed(("-", "marked", "p1"))
    await deliver(database)
    await fed(("+", "2", "p2"), ("truncate", "readings", None))
    query = """SELECT record_key, snapshot::json ->> 'rate', trouble IS NULL
               FROM replicator.ehr_sync_queue_open WHERE operation = 'mark' ORDER BY record_key"""
    assert database.execute(query) == [("1", "70", True), ("2", "70", True)]
    await deliver(database)
    await fed(("+", "3", "p3"))
    await deliver(database)
    fed.forget()
    database.execute("DELETE FROM replicator.ehr_compositions WHERE record_key <> '3'")
    await fed(("truncate", "readings", None))
    assert database.execute(query) == [("3", None, False)]


async def test_parts_that_are_emptied_are_read_again_with_the_rows_they_belong_to(database: Database) -> None:
    await prepared(database)
    fed = Fed(database, _PARTS)
    await fed(("+", "1", "p1"), ("+", "2", "p1"), ("-", "2", "p1"))
    await deliver(database)
    await fed(("+", "3", "p1"))
    await fed(("truncate", "items", None))
    assert sorted(fed.waiting()) == [("p1", "1", "update"), ("p1", "3", "create"), ("p1", "3", "update")]


@pytest.mark.parametrize("rows", [1, 3000])
async def test_any_number_of_records_is_ended_without_being_read(
    database: Database, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicator.ehr.queue._HELD_BYTES", 40_000)
    await prepared(database)
    fed = Fed(database)
    await fed(*(("+", str(n), f"p{n % 7}") for n in range(rows)))
    await fed(("truncate", "readings", None))
    await laid_out(database)
    query = """SELECT operation, count(*), count(DISTINCT composition_id)
               FROM replicator.ehr_sync_queue_open GROUP BY 1"""
    assert sorted(database.execute(query)) == [("create", rows, rows), ("delete", rows, rows)]
    lanes = (
        "SELECT bool_and(appended = jobs) FROM replicator.ehr_lanes JOIN (SELECT lane, max(seq) AS jobs FROM "
    )
    assert database.execute(f"{lanes} replicator.ehr_sync_queue GROUP BY lane) AS q ON lane = id") == [
        (True,)
    ]
