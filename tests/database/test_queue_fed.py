"""What the log says becomes jobs in the transaction of the checkpoint, and nothing else does."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Collection
from pathlib import Path

import pytest

from replicator.database import Connection, connected, migrate, pooled
from replicator.ehr.columns import computed, read_catalogue
from replicator.ehr.job import Jobs
from replicator.ehr.mapping import parse_mapping
from replicator.ehr.queue import Feed, Meanings
from replicator.ehr.queue_added import lane_id
from replicator.ehr.queue_found import Finder
from replicator.ehr.queue_manners import Manner
from replicator.ehr.queue_noted import note
from replicator.ehr.used import expressions
from replicator.errors import Unavailable
from replicator.wal.lsn import Lsn
from replicator.wal.messages import Column, Relation
from replicator.wal.transactions import Change, Kind
from tests.database.laying import laid_out
from tests.database.queued import AT, NAMES, Clinic, jobs_of_clinic, prepared
from tests.fixtures.children import StartChild
from tests.fixtures.least import restrict
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
    fields:
      pulse_encounter/pulse/any_event:0/rate: {column: rate, unit: /min}
    ignore: [composition_id]
"""
_PARTS = """\
system: clinic
namespace: clinic
ctx: {language: en, territory: CM, setting: other care, composer: Clinic, time: at}
tables:
  orders:
    key: id
    patient: patient_id
    template: replicator.pulse.v1
    fields: {pulse_encounter/context/location: at}
    groups:
      pulse_encounter/pulse:
        rows: {table: items, parent: {order_id: id}, order: order_id}
        fields:
          any_event:0/rate: {column: rate, unit: /min}
"""
_RULES = "bucket_definitions: {all: {data: [SELECT * FROM readings]}}"
_TABLE = """CREATE TABLE readings (
    id text PRIMARY KEY, patient_id text, rate integer, at timestamptz, composition_id text)"""


def inserted(count: int) -> list[Change]:
    relation = Relation(
        1, "public", "readings", "f", tuple(Column(name, 25, -1, name == "id") for name in NAMES)
    )
    return [
        Change(Kind.INSERT, relation, None, (str(n), f"p{n % 7}" if n % 5 else None, "70", AT, "t"), n)
        for n in range(count)
    ]


async def test_a_transaction_too_large_for_memory_is_appended_as_any_other(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for schema in ("spilled", "held"):
        database.allow_storage(schema)
        await migrate(database.dsn, schema)
    monkeypatch.setattr("replicator.ehr.queue._HELD_BYTES", 10_000)
    for schema in ("spilled", "held"):
        meanings = Meanings(jobs_of_clinic())
        async with connected(database.dsn, "feed", schema=schema) as storage:
            for lsn in (Lsn(0x100), Lsn(0x200)):
                async with storage.transaction():
                    feed = Feed(meanings)
                    for change in inserted(100):
                        await feed.add([change], lsn)
                        if feed.is_full and schema == "spilled":
                            await feed.spill(storage)
                    await feed.send(storage)
    columns = "lane, seq, record_key, patient, commit_lsn, ordinal, snapshot, priority, may_merge, trouble"
    query = f"SELECT {columns} FROM {{}}.ehr_sync_queue ORDER BY lane, seq"
    spilled = database.execute(query.format("spilled"))
    assert len(spilled) == 200 and spilled == database.execute(query.format("held"))
    lanes = "SELECT id, name, patient, appended, priority FROM {}.ehr_lanes ORDER BY id"
    assert database.execute(lanes.format("spilled")) == database.execute(lanes.format("held"))
    assert database.execute("SELECT count(*) FROM spilled.ehr_arrivals") == [(0,)]


@pytest.mark.parametrize("is_kept", [True, False], ids=["stored", "rolled back"])
async def test_lanes_that_were_met_go_on_as_any_others(database: Database, is_kept: bool) -> None:
    """One that is known to be there is not described to storage again."""
    schemas = ("known", "met anew")
    meanings = {schema: Meanings(jobs_of_clinic()) for schema in schemas}
    for schema in schemas:
        database.allow_storage(schema)
        await migrate(database.dsn, schema)
    for batch, patients in enumerate(("abc", "ab", "ab", "abcd", "dd"), 1):
        lsn, changes = Lsn(0x100 * batch), inserted(len(patients))
        changes = [
            change._replace(new=(f"{batch}-{n}", f"p{patient}", "70", AT, "t"))
            for n, (patient, change) in enumerate(zip(patients, changes, strict=True))
        ]
        for schema in schemas:
            if schema != "known":
                meanings[schema] = Meanings(jobs_of_clinic())
            async with (
                connected(database.dsn, "feed", schema=schema) as storage,
                storage.transaction(force_rollback=batch == 1 and not is_kept),
            ):
                feed = Feed(meanings[schema])
                await feed.add(changes, lsn)
                await feed.send(storage)
            if batch != 1 or is_kept:
                feed.kept()
            if batch == 2:  # Somebody has worked meanwhile.
                database.execute(
                    f"""UPDATE "{schema}".ehr_lanes
                    SET done_upto = appended, state = 'idle', priority = 7, due_at = '2026-01-01'
                    WHERE name = 'patient/pa'"""
                )
    assert len(meanings["known"].stored.lanes) == 4
    lanes = """SELECT name, patient, own_ehr_id, appended, state, priority, urgent_upto, due_at > '2026-01-02'
               FROM "{}".ehr_lanes ORDER BY id"""
    known, anew = (database.execute(lanes.format(schema)) for schema in schemas)
    assert known == anew and len(known) == 4
    columns = "lane, seq, record_key, patient, ehr_id, snapshot"
    jobs = f'SELECT {columns} FROM "{{}}".ehr_sync_queue ORDER BY lane, seq'
    known, anew = (database.execute(jobs.format(schema)) for schema in schemas)
    assert known == anew and len(known) == (13 if is_kept else 10)


async def test_lanes_that_somebody_has_removed_are_not_gone_on_with(database: Database) -> None:
    """Lanes are taken in their order, and that one is missing is found out when others have been taken."""
    await migrate(database.dsn, "replicator")
    meanings = Meanings(jobs_of_clinic())
    change = inserted(1)[0]

    async def feed(lsn: int) -> None:
        one = Feed(meanings)
        rows = [(f"{lsn}-{patient}", patient, "70", AT, "t") for patient in "ab"]
        await one.add([change._replace(new=row) for row in rows], Lsn(lsn))
        async with connected(database.dsn, "feed", schema="replicator") as storage, storage.transaction():
            await one.send(storage)
        one.kept()

    await feed(0x100)
    database.execute("DELETE FROM replicator.ehr_lanes WHERE patient = 'b'")
    with pytest.raises(Unavailable, match="lanes are gone"):
        await feed(0x200)
    assert database.execute("SELECT max(commit_lsn)::text FROM replicator.ehr_sync_queue") == [("0/100",)]


async def test_a_manner_that_is_new_is_noted_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with every batch: who notes one has others wait who would."""
    await migrate(database.dsn, "replicator")
    meanings, noted = Meanings(jobs_of_clinic()), list[int]()

    async def told(connection: Connection, manners: dict[int, Manner], known: Collection[int] = ()) -> None:
        noted.append(len(manners.keys() - set(known)))
        await note(connection, manners, known)

    monkeypatch.setattr("replicator.ehr.queue.note", told)
    async with connected(database.dsn, "feed", schema="replicator") as storage:
        for number in (1, 2, 3):
            async with storage.transaction():
                feed = Feed(meanings)
                await feed.add(inserted(2)[1:], Lsn(0x100 * number))
                if number == 1:
                    await feed.spill(storage)
                await feed.send(storage)
            feed.kept()
    assert noted == [1, 0, 0]


async def test_a_row_whose_text_was_erased_is_still_shown(database: Database) -> None:
    """And does not keep anybody from the others."""
    await migrate(database.dsn, "replicator")
    async with connected(database.dsn, "feed", schema="replicator") as storage, storage.transaction():
        feed = Feed(Meanings(jobs_of_clinic()))
        await feed.add(inserted(2), Lsn(0x100))
        await feed.send(storage)
    erased = """replace(jobs, ',"row":["1"', ',"nothing":["1"')"""
    database.execute(f"UPDATE replicator.ehr_parcels SET jobs = {erased}")
    found = """SELECT record_key, snapshot::json ->> 'rate', trouble
        FROM replicator.ehr_sync_queue ORDER BY 1, 2"""
    assert database.execute(found) == [("0", "70", "no patient"), (None, None, None)]
    await laid_out(database)
    lost = "nobody knows any more which row it is of"
    assert database.execute(found) == [("", None, lost), ("0", "70", "no patient")]


async def test_a_patient_whose_name_was_erased_keeps_nobody_from_being_laid_out(database: Database) -> None:
    """A worker parks what has no patient."""
    await migrate(database.dsn, "replicator")
    async with connected(database.dsn, "feed", schema="replicator") as storage, storage.transaction():
        feed = Feed(Meanings(jobs_of_clinic()))
        await feed.add(inserted(4)[1:], Lsn(0x100))
        await feed.send(storage)
    database.execute("UPDATE replicator.ehr_lanes SET patient = NULL WHERE patient = 'p2'")
    await laid_out(database)
    query = "SELECT record_key, patient, composition_id IS NULL FROM replicator.ehr_sync_queue ORDER BY 1"
    assert database.execute(query) == [("1", "p1", False), ("2", None, True), ("3", "p3", False)]


async def test_what_was_sent_is_let_go_of_at_once(database: Database) -> None:
    """And not when the collector comes, which is seldom: a batch takes megabytes."""
    await migrate(database.dsn, "replicator")
    feed = Feed(Meanings(jobs_of_clinic()))
    await feed.add(inserted(100), Lsn(0x100))
    gc.disable()
    try:
        sent = weakref.ref(feed._added)
        async with connected(database.dsn, "feed", schema="replicator") as storage, storage.transaction():
            await feed.send(storage)
        assert sent() is None
    finally:
        gc.enable()


async def test_a_batch_of_small_transactions_is_kept_in_memory() -> None:
    """Storage takes in what arrived before the end of its transaction at twice the cost."""
    feed = Feed(Meanings(jobs_of_clinic()))
    for lsn, changes in enumerate([inserted(100)] * 200, 1):
        await feed.add(changes, Lsn(lsn))
    assert not feed.is_full


@pytest.mark.parametrize("is_spilled", [False, True])
async def test_a_job_is_stored_as_it_is_said(database: Database, is_spilled: bool) -> None:
    """Whatever is in its values, and which of them there are."""
    await migrate(database.dsn, "replicator")
    meanings = Meanings(jobs_of_clinic())
    odd = ("\\N", "a\tb\nc\rd\\", "é ~/ 🩺", "\x01", "'\"", " ", "x" * 100_000)
    full = inserted(1)[0].relation
    values = [(text, patient, text, AT, None) for text in odd for patient in (*odd, "", None)]
    changes = [Change(Kind.INSERT, full, None, row, number) for number, row in enumerate(values)]
    changes += [
        Change(Kind.DELETE, full, row, None, number, old_is_whole=True)
        for number, row in enumerate(values, len(values))
    ]
    at = Lsn(0xFFFFFFFF_FFFFFFF0)
    async with connected(database.dsn, "feed", schema="replicator") as storage, storage.transaction():
        feed = Feed(meanings)
        await feed.add(changes, at)
        if is_spilled:
            await feed.spill(storage)
        await feed.send(storage)
    await laid_out(database)
    said = [job for change in changes for job in meanings.jobs.of(change, at)]
    stored = database.execute(
        """SELECT operation, mapping, source_table, record_key, patient, ehr_id::text, composition_id::text,
               template_id, commit_lsn::text, ordinal, part, snapshot, priority, may_merge, trouble, lane,
               state, attempts, created_at <= clock_timestamp()
           FROM replicator.ehr_sync_queue ORDER BY ordinal, part"""
    )
    assert len(said) > len(values)
    for job, row in zip(said, stored, strict=True):
        flat = [job.operation.value, *job[1:8], str(at), job.change.ordinal, job.part]
        assert row[:11] == tuple(flat)
        assert row[12:] == (*job[11:14], lane_id(job.lane), "waiting", 0, True)
        assert (row[11] and json.loads(row[11])) == (job.snapshot and json.loads(job.snapshot))


async def test_the_checkpoint_and_the_jobs_advance_together(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    """Killed around a commit, each change is queued once; and what is only copied is not."""
    await prepared(database)
    database.execute(_TABLE)
    database.execute("ALTER TABLE readings REPLICA IDENTITY FULL")
    database.execute("INSERT INTO readings VALUES ('old', 'p1', 60, now())")
    database.execute("CREATE PUBLICATION powersync FOR TABLE readings")
    (tmp_path / "ehr.yaml").write_text(_MAPPING)
    (tmp_path / "rules.yaml").write_text(_RULES)
    config = tmp_path / "replicator.yaml"
    ehr = {"mapping": "ehr.yaml", "url": "http://127.0.0.1:9/nowhere"}
    config.write_text(json.dumps({"source": {"dsn": database.dsn}, "rules": "rules.yaml", "ehr": ehr}))
    restrict(database, config)
    argv = ("run", "--only", "replicate", "--config", config)
    first = children(*argv)
    await asyncio.to_thread(first.wait_for, "streaming")
    expected = []
    for number in range(6):
        database.execute(f"INSERT INTO readings VALUES ('{number}', 'p1', {60 + number}, now())")
        expected.append((str(number), "create"))
    database.execute("UPDATE readings SET rate = 99 WHERE id = '3'")
    # What a delivery writes back is not a clinical change.
    database.execute("UPDATE readings SET composition_id = 'x'")
    database.execute("DELETE FROM readings WHERE id = 'old'")
    expected += [("3", "update"), ("old", "delete")]
    query = "SELECT record_key, operation FROM replicator.ehr_sync_queue ORDER BY lane, seq"
    killed_at = [("stored", 1), ("appended", 2), ("stored", 2)]
    for at in killed_at:
        await asyncio.to_thread(first.kill)
        first = children(*argv, kill_at=at)
        database.execute("INSERT INTO readings VALUES (%s, 'p1', 1, now())", [f"{at}"])
        expected.append((f"{at}", "create"))
        async with asyncio.timeout(60):
            while first.code is None and len(database.execute(query)) < len(expected):
                await asyncio.sleep(0.02)
    await asyncio.to_thread(first.kill)
    last = children(*argv)
    await asyncio.to_thread(last.wait_for, "streaming")
    async with asyncio.timeout(60):
        while len(database.execute(query)) < len(expected):
            await asyncio.sleep(0.02)
    last.terminate()
    assert await asyncio.to_thread(last.wait) == 0, last.stderr
    assert database.execute(query) == expected


async def test_a_job_waits_with_all_that_is_known_of_it(database: Database) -> None:
    clinic: Clinic = await prepared(database)
    await clinic.append(clinic.put("readings", {"id": "1", "patient_id": None, "rate": "1", "at": AT}))
    found = database.execute(
        "SELECT state, trouble, patient, created_at IS NOT NULL FROM replicator.ehr_sync_queue"
    )
    assert found == [("waiting", "no patient", None, True)]


async def test_a_patient_is_found_by_way_of_other_rows(database: Database) -> None:
    clinic = await prepared(database)
    database.execute("CREATE TABLE visits (id integer PRIMARY KEY, patient_id text)")
    database.execute("INSERT INTO visits VALUES (1, 'p1'), (2, NULL)")
    record = parse_mapping(
        _MAPPING.replace(
            "patient: patient_id",
            "patient: {column: patient_id, through: visits, key: id, patient: patient_id}",
        ),
        "ehr.yaml",
    )
    async with pooled(database.dsn, "find", most=1) as source:
        finder = Finder(source)
        feed = Feed(Meanings(Jobs(record, finder.find, {}), finder))
        rows = [("a", "1"), ("b", "2"), ("c", "3")]
        changes = [
            change._replace(new=(*row, "70", AT, "t")) for change, row in zip(inserted(3), rows, strict=True)
        ]
        await feed.add(changes, Lsn(0x100))
        async with connected(clinic.dsn, "feed", schema="replicator") as storage, storage.transaction():
            await feed.send(storage)
    found = database.execute(
        "SELECT record_key, patient, trouble FROM replicator.ehr_sync_queue ORDER BY record_key"
    )
    assert found == [("a", "p1", None), ("b", None, "no patient"), ("c", None, "no patient")]


async def test_a_part_of_a_row_that_is_gone_is_no_job(database: Database) -> None:
    await prepared(database)
    database.execute("CREATE TABLE orders (id text PRIMARY KEY, patient_id text, at timestamptz)")
    database.execute("INSERT INTO orders VALUES ('1', 'p1', now())")
    record = parse_mapping(_PARTS, "ehr.yaml")
    async with pooled(database.dsn, "find", most=1) as source:
        finder = Finder(source)
        feed = Feed(Meanings(Jobs(record, finder.find, {}), finder))
        relation = Relation(
            2, "public", "items", "f", (Column("order_id", 25, -1, True), Column("rate", 25, -1, False))
        )
        for ordinal, order in enumerate(("1", "gone")):
            await feed.add([Change(Kind.INSERT, relation, None, (order, "70"), ordinal)], Lsn(0x100))
        async with connected(database.dsn, "feed", schema="replicator") as storage, storage.transaction():
            await feed.send(storage)
    found = database.execute("SELECT record_key, patient, operation, snapshot FROM replicator.ehr_sync_queue")
    assert found == [("1", "p1", "update", None)]


async def test_expressions_read_columns_as_the_source_has_their_types(database: Database) -> None:
    """Also those of its own types, which a filter in the log's own words meets as numbers."""
    database.execute("CREATE DOMAIN grade AS integer; CREATE TYPE kind AS ENUM ('note', 'order')")
    database.execute(
        "CREATE TABLE readings (id uuid, patient_id uuid, rate grade, at timestamptz, kind kind)"
    )
    record = parse_mapping(
        _MAPPING.replace("    ignore: [composition_id]\n", "")
        .replace("{column: rate, unit: /min}", "{expression: rate + 1, unit: /min}")
        .replace("key: id", "key: id\n    filter: rate >= 9 AND kind = 'note'"),
        "ehr.yaml",
    )
    async with connected(database.dsn, "columns") as source:
        catalogue = await read_catalogue(source, record)
    (expression,) = [each for _, each in expressions(record.tables["readings"])]
    rows = [{"rate": "10", "kind": "note"}, {"rate": "10", "kind": "order"}, {"rate": "8", "kind": "note"}]
    compiled = computed(record, catalogue)
    assert compiled.formulas[expression.id](rows[0]) == "11"
    oids = catalogue.columns["public.readings"]
    columns = tuple(Column(name, oid, -1, name == "id") for name, oid in oids.items())
    relation = Relation(1, "public", "readings", "f", columns)
    jobs = Jobs(record, lambda *asked: None, {}, catalogue.types)
    made = [
        list(
            jobs.of(
                Change(Kind.INSERT, relation, None, (f"{n}", "p", row["rate"], AT, row["kind"]), n), Lsn(1)
            )
        )
        for n, row in enumerate(rows)
    ]
    assert [len(found) for found in made] == [1, 0, 0]
    table = record.tables["readings"]
    worker = Jobs(record, lambda *asked: None, compiled.filters)
    assert [worker.stands(table, {"id": "1", "patient_id": "p", **row}) for row in rows] == [
        True,
        False,
        False,
    ]
