"""A clinic whose queue belongs to whom its records belong: what its rules, as written, must come to.

The two rule files are those that this project grew from. What they say is written down here once more, as
comprehensions over all rows of all tables. The traffic is one session's, in which records come before their
rows in the queue, after them, and at once; patients, keys and whole tables move.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import yaml
from psycopg import sql
from psycopg.sql import SQL, Composed, Identifier

from replicator import queries
from replicator.rules import keys
from replicator.rules.parse import parse_rules
from replicator.wal.messages import Column as Named
from replicator.wal.messages import Relation
from tests.fixtures.postgres import Connection, Database
from tests.oracle.compare import Checkpoint, Op, Reader
from tests.oracle.history import History, State
from tests.oracle.scene import Scene
from tests.oracle.values import Kind, wide_text
from tests.oracle.values import shown as value_shown
from tests.oracle.world import Column, Contents, Row, Table, World
from tests.unit.rules.from_scratch import Entry, FromScratch, Known, compact

FILES = Path(__file__).parents[1] / "unit" / "rules" / "seeds"
_ID, _PATIENT = Column("id", Kind.UUID, False), Column("patient_id", Kind.UUID)


def _table(name: str, **columns: Kind) -> Table:
    first = () if name in ("users", "ehrbase_sync_queue") else (_PATIENT,)
    made = tuple(Column(column, kind) for column, kind in columns.items())
    return Table("public", name, (_ID, *first, *made), ("id",), "default")


_T, _I = Kind.TEXT, Kind.INTEGER
USERS = _table(
    "users",
    firebase_uid=_T,
    full_name=_T,
    date_of_birth=Kind.DAY,
    is_active=Kind.BOOLEAN,
    created_at=Kind.TIME,
)
EHRS = _table("electronic_health_records", ehr_id=Kind.UUID, ehr_status=_T)
VITALS = _table(
    "vital_signs",
    temperature_celsius=Kind.NUMERIC,
    blood_pressure_systolic=_I,
    blood_pressure_diastolic=_I,
    heart_rate_bpm=_I,
    notes=_T,
    recorded_at=Kind.TIME,
    created_at=Kind.TIME,
)
LABS = _table("lab_results", test_name=_T, result_value=_T, unit=_T, result_date=Kind.TIME)
PRESCRIPTIONS = _table("prescriptions", medication_name=_T, dosage=_T, frequency=_T, status=_T)
IMMUNIZATIONS = _table("immunizations", vaccine_name=_T, administration_date=Kind.DAY, dose_number=_I)
RECORDS = _table(
    "medical_records", record_type=_T, title=_T, description=_T, diagnosis_codes=Kind.LIST, metadata=Kind.JSON
)
QUEUE = _table("ehrbase_sync_queue", table_name=_T, record_id=_T, operation=_T, status=_T, payload=_T)
#: Those with a row in the queue for each of their changes.
QUEUED = (VITALS, LABS, PRESCRIPTIONS, IMMUNIZATIONS, RECORDS)
TABLES = (USERS, EHRS, *QUEUED, QUEUE)

_QUEUE = """
CREATE TABLE ehrbase_sync_queue (
    id uuid PRIMARY KEY, table_name text, record_id text, operation text, status text, payload text)
"""
_WIDE = {
    "vital_signs": "notes",
    "medical_records": "description",
    "ehrbase_sync_queue": "payload",
    "users": "full_name",
}


class Seeds(World):
    """One of the two files; or their definitions, both or one of them, without some of the tables."""

    def __init__(self, file: Path, without: Mapping[str, frozenset[str]] | None = None) -> None:
        super().__init__(TABLES, (), ())
        object.__setattr__(self, "file", file)
        object.__setattr__(self, "without", without)

    file: Path
    #: By definition, the tables that it leaves out; None: the file as it is written.
    without: Mapping[str, frozenset[str]] | None

    def rules(self) -> str:
        if self.without is None:
            return self.file.read_text(encoding="utf-8")
        found = {}
        for name, without in self.without.items():
            definition = yaml.safe_load(_FILE_OF[name].read_text(encoding="utf-8"))["bucket_definitions"][
                name
            ]
            data = [query for query in definition["data"] if query.split()[3] not in without]
            found[name] = definition | {"data": data}
        return json.dumps({"bucket_definitions": found})

    def changed(self, rng: random.Random) -> World:
        """Another of a few, so that definitions also become what they were before."""
        names = rng.choice((["global"], ["user_data"], ["global", "user_data"], ["global", "user_data"]))
        left_out: list[frozenset[str]] = [
            *(frozenset(), frozenset({"vital_signs"}), frozenset({"ehrbase_sync_queue", "users"}))
        ]
        return Seeds(self.file, {name: rng.choice(left_out) for name in names})

    def outputs(self) -> dict[str, Table]:
        return {table.name: table for table in TABLES}

    def contents_at(self, state: State) -> dict[str, Contents]:
        """Every bucket, by the names clients see."""
        there = self.without
        if there is None:
            there = {name: frozenset() for name, file in _FILE_OF.items() if file.name == self.file.name}
        found: dict[str, Contents] = {table.name: {} for table in TABLES}
        for name, without in there.items():
            for table in TABLES:
                for row in state[table] if table.name not in without else ():
                    for user in _users_of(table, row, state, name == "global"):
                        held = {c.name: value_shown(c.kind, row[c.name]) for c in table.columns}
                        found[table.name][f"{name}[{compact(user)}]", str(row["id"])] = held
        return found


#: Which file has which definition.
_FILE_OF = {"global": FILES / "own_record.yaml", "user_data": FILES / "own_record_and_queue.yaml"}


def _users_of(table: Table, row: Row, state: State, is_first: bool) -> set[str]:
    """Whose buckets hold a row."""
    record = row.get("record_id")
    if table is USERS:
        found = {row["id"]}
    elif table is not QUEUE:
        found = {row["patient_id"]}
    elif is_first:
        found = {user["id"] for user in state[USERS] if user["id"] == record}
    else:
        found = {record} if row["table_name"] == "users_demographics" else set()
        if row["table_name"] in {table.name for table in QUEUED}:
            found |= {one["patient_id"] for of in QUEUED for one in state[of] if one["id"] == record}
    return {user for user in found if user is not None}


def make_source(source: Database, rng: random.Random) -> None:
    """The clinic and its queue; some tables tell the whole row as it was, and some do not."""
    with source.connect() as connection:
        connection.execute(queries.load("clinic").schema)
        connection.execute(_QUEUE.encode())
        for table in TABLES:
            if rng.random() < 0.5:
                connection.execute(SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(table.sql))
        for name, column in _WIDE.items():
            alter = SQL("ALTER TABLE {} ALTER COLUMN {} SET STORAGE EXTERNAL")
            connection.execute(alter.format(Identifier(name), Identifier(column)))
        tables = SQL(", ").join(table.sql for table in TABLES)
        connection.execute(SQL("CREATE PUBLICATION powersync FOR TABLE {}").format(tables))


class SeedsScene(Scene):
    """The clinic's traffic, and a reader that knows what all tables held together."""

    def __init__(
        self, world: Seeds, source: Database, storage: Database, folder: Path, rng: random.Random
    ) -> None:
        super().__init__(world, source, storage, folder, rng)
        self.traffic = SeedsTraffic(self.history, rng)  # type: ignore[assignment]  # it has the same steps
        self.reader = SeedsReader(world, self.history, storage, source)


# ── What must be there ───────────────────────────────────────────────────────────────────────────


class SeedsReader(Reader):
    """Compares the lookups as well as the buckets."""

    has_gaps = True

    def __init__(self, world: Seeds, history: History, storage: Database, source: Database) -> None:
        super().__init__(world, history)
        self._storage, self._source = storage, source
        self._at: tuple[State, World, dict[str, Contents]] | None = None

    def _contents(self, name: str, table: Table, state: State) -> Contents:
        assert isinstance(self._world, Seeds)
        if self._at is None or self._at[0] is not state or self._at[1] is not self._world:
            self._at = state, self._world, self._world.contents_at(state)
        return self._at[2][name]

    def _compare(self, checkpoint: Checkpoint, states: list[State], applied: list[Op]) -> None:
        super()._compare(checkpoint, states, applied)
        query = """SELECT lookup, key, value, subkey FROM replicator.lookups WHERE op_id <= %(at)s
            AND (until_op_id IS NULL OR until_op_id > %(at)s) AND lookup NOT LIKE '@%%'"""
        found = self._storage.execute(query, {"at": checkpoint.shown_op_id})
        assert len(found) == len(set(found)), "an entry stands twice"
        standing = [
            (lookup.partition("#")[2], *entry) for lookup, *entry in found if lookup in self._maintained
        ]
        assert any(set(standing) == self._entries(state) for state in states), (
            f"at {checkpoint.shown_lsn:X} the lookups say something else than the tables: "
            f"{[sorted(set(standing) ^ self._entries(state))[:6] for state in states]}"
        )

    def _entries(self, state: State) -> set[Entry]:
        assert isinstance(self._world, Seeds)
        rules = parse_rules(self._world.rules(), "in force")
        found = FromScratch(rules, [self._known(table, state) for table in TABLES])
        return {
            (lookup, key, keys.pack(_loads(value)), subkey) for lookup, key, value, subkey in found.entries
        }

    def _known(self, table: Table, state: State) -> Known:
        query = (
            "SELECT oid::bigint FROM pg_class WHERE relname = %s AND relnamespace = 'public'::regnamespace"
        )
        ((oid,),) = self._source.execute(query, [table.name])
        # To keys and values of the lookups here all columns are text.
        columns = tuple(Named(column.name, 25, -1, column.name == "id") for column in table.columns)
        rows = [tuple(row[column.name] for column in table.columns) for row in state[table]]
        return Known(Relation(oid, "public", table.name, "d", columns), ("id",), rows)


def _loads(value: str) -> list[str | None]:
    found: list[str | None] = json.loads(value)
    return found


# ── What happens ─────────────────────────────────────────────────────────────────────────────────


class SeedsTraffic:
    """One session of the clinic's application."""

    def __init__(self, history: History, rng: random.Random) -> None:
        self.history, self._rng = history, rng
        #: Few, so that much meets; a record's id is known before there is a record.
        self._patients = [self._uuid() for _ in range(4)]
        self._records = [self._uuid() for _ in range(10)]
        self._connection: Connection

    def steps(self, connect: Callable[[], Connection], transactions: int) -> Iterator[None]:
        """So many commits; what the caller does between two steps happens in the middle of them."""
        self._connection = connect()
        until = len(self.history.commits) + transactions
        while len(self.history.commits) < until:
            self._execute(SQL("BEGIN"))
            for _ in range(self._rng.choice((1, 1, 2, 3, 8, 25))):
                whats = list(_WEIGHTS)
                self._rng.choices(whats, [_WEIGHTS[one] for one in whats])[0](self)
                yield
            if self._rng.random() < 0.08:
                self._execute(SQL("ROLLBACK"))
            else:
                self.history.commit(lambda: self._execute(SQL("COMMIT")), TABLES)
            yield

    def _admit(self) -> None:
        patient = self._rng.choice(self._patients)
        self._insert(USERS, id=patient, firebase_uid=f"uid {patient[:4]}", full_name=self._text())
        if self._rng.random() < 0.5:
            self._insert(EHRS, id=self._uuid(), patient_id=patient, ehr_id=self._uuid())

    def _record(self) -> None:
        """A record, and what is queued of it: before, after, or not at all."""
        table, record = self._rng.choice(QUEUED), self._rng.choice(self._records)
        order = self._rng.choice(("queue record", "record queue", "record", "queue"))
        for what in order.split():
            if what == "queue":
                self._queue(table.name, record)
            else:
                self._insert(table, id=record, patient_id=self._patient(), **self._details(table))

    def _details(self, table: Table) -> dict[str, str]:
        now = "2024-01-02"
        match table.name:
            case "vital_signs":
                return {"notes": self._text(), "heart_rate_bpm": str(self._rng.randrange(200))}
            case "lab_results":
                return {"test_name": self._text(), "result_value": "5"}
            case "prescriptions":
                return {"medication_name": "m", "dosage": "d", "frequency": "f"}
            case "immunizations":
                return {"vaccine_name": "v", "administration_date": now}
        return {"record_type": "r", "title": "t", "description": self._text(), "diagnosis_codes": "{a,b}"}

    def _queue(self, table: str, record: str) -> None:
        self._insert(
            QUEUE,
            id=self._uuid(),
            table_name=table,
            record_id=record,
            operation="I",
            status="pending",
            payload=self._text(),
        )

    def _queue_any(self) -> None:
        names = [*(table.name for table in QUEUED), "users_demographics", "users_demographics", "elsewhere"]
        self._queue(self._rng.choice(names), self._rng.choice((*self._records, *self._patients, "nobody")))

    def _queue_many(self) -> None:
        """More rows behind one record than are held in memory."""
        record = self._rng.choice((*self._records, *self._patients))
        for _ in range(self._rng.choice((5, 12))):
            self._queue(self._rng.choice(QUEUED).name, record)

    def _move(self) -> None:
        table = self._rng.choice((*QUEUED, EHRS))
        set_ = SQL("patient_id = {}").format(sql.Literal(self._patient()))
        if table is EHRS or self._rng.random() < 0.8:
            self._update(table, set_ if table is not EHRS else SQL("ehr_status = 'moved'"), self._some(table))
        else:
            self._update(table, set_, SQL("true"))

    def _change(self) -> None:
        """Values that decide nothing; some of them so long that the log leaves them out next time."""
        name = self._rng.choice(list(_WIDE))
        table = next(table for table in TABLES if table.name == name)
        self._update(
            table,
            SQL("{} = {}").format(Identifier(_WIDE[name]), sql.Literal(self._text())),
            self._some(table),
        )

    def _touch(self) -> None:
        table = self._rng.choice(TABLES)
        self._update(table, SQL("id = id"), self._some(table))

    def _requeue(self) -> None:
        what = self._rng.choice(("record_id", "table_name", "status"))
        values = {
            "record_id": self._rng.choice((*self._records, *self._patients)),
            "table_name": self._rng.choice(("vital_signs", "lab_results", "users_demographics", None)),
            "status": "done",
        }
        self._update(
            QUEUE, SQL("{} = {}").format(Identifier(what), sql.Literal(values[what])), self._some(QUEUE)
        )

    def _rekey(self) -> None:
        """Another id, for a record, for a row of the queue, or for a patient who has none."""
        table = self._rng.choice((*QUEUED, QUEUE, USERS))
        ids = self._records if table in QUEUED else self._patients if table is USERS else [self._uuid()]
        becomes = sql.Literal(self._rng.choice(ids))
        free = SQL("NOT EXISTS (SELECT FROM {} WHERE id = {})").format(table.sql, becomes)
        if table is USERS:
            alone = [
                SQL("NOT EXISTS (SELECT FROM {} p WHERE p.patient_id = users.id)").format(t.sql)
                for t in (*QUEUED, EHRS)
            ]
            free = SQL(" AND ").join([free, *alone])
        self._update(table, SQL("id = {}").format(becomes), SQL("{} AND {}").format(self._some(table), free))

    def _rename(self) -> None:
        """A patient signs in as somebody else."""
        name = SQL("firebase_uid = 'uid ' || left(gen_random_uuid()::text, 6)")
        self._update(USERS, name, self._some(USERS))

    def _delete(self) -> None:
        weights = (1, 1, 3, 3, 3, 3, 3, 8)
        table = self._rng.choices(TABLES, weights)[0]
        self._execute(SQL("DELETE FROM {} WHERE {}").format(table.sql, self._some(table)))

    def _truncate(self) -> None:
        table = self._rng.choice((*QUEUED, QUEUE, QUEUE, USERS))
        self._execute(SQL("TRUNCATE {} CASCADE").format(table.sql))

    def _truncate_both(self) -> None:
        both = [QUEUE, self._rng.choice(QUEUED)]
        self._rng.shuffle(both)
        self._execute(SQL("TRUNCATE {}").format(SQL(", ").join(table.sql for table in both)))

    # ── Parts of statements ──────────────────────────────────────────────────────────────────────

    def _insert(self, table: Table, **values: str | None) -> None:
        self._execute(
            SQL("INSERT INTO {} ({}) SELECT {} WHERE {} ON CONFLICT DO NOTHING").format(
                table.sql,
                SQL(", ").join(map(Identifier, values)),
                SQL(", ").join(
                    SQL("{}::{}").format(sql.Literal(value), SQL(_type(table, name)))
                    for name, value in values.items()
                ),
                self._is_there(values.get("patient_id")),
            )
        )

    def _is_there(self, patient: str | None) -> Composed:
        if patient is None:
            return SQL("{}").format(SQL("true"))
        return SQL("EXISTS (SELECT FROM users WHERE id = {})").format(sql.Literal(patient))

    def _update(self, table: Table, what: sql.Composable, where: sql.Composable) -> None:
        self._execute(SQL("UPDATE {} SET {} WHERE {}").format(table.sql, what, where))

    def _some(self, table: Table) -> Composed:
        """One row, if there is one."""
        found = self._execute(SQL('SELECT id::text FROM {} ORDER BY id::text COLLATE "C"').format(table.sql))
        return SQL("id = {}").format(sql.Literal(self._rng.choice(found)[0] if found else self._uuid()))

    def _patient(self) -> str | None:
        """One who is there, or nobody."""
        found = self._execute(SQL("SELECT id::text FROM users ORDER BY id"))
        return None if not found or self._rng.random() < 0.1 else str(self._rng.choice(found)[0])

    def _text(self) -> str:
        return (
            wide_text(self._rng).replace("\0", "")
            if self._rng.random() < 0.3
            else self._rng.choice(("a", "é\\\t", ""))
        )

    def _uuid(self) -> str:
        digits = f"{self._rng.getrandbits(128):032x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def _execute(self, query: sql.Composable) -> list[tuple[object, ...]]:
        cursor = self._connection.execute(SQL("{}").format(query))
        return cursor.fetchall() if cursor.description else []


def _type(table: Table, name: str) -> str:
    return next(column.kind.value for column in table.columns if column.name == name)


_WEIGHTS: Mapping[Callable[[SeedsTraffic], None], float] = {
    SeedsTraffic._admit: 6,
    SeedsTraffic._record: 20,
    SeedsTraffic._queue_any: 10,
    SeedsTraffic._queue_many: 1.5,
    SeedsTraffic._move: 12,
    SeedsTraffic._change: 8,
    SeedsTraffic._touch: 2,
    SeedsTraffic._requeue: 6,
    SeedsTraffic._rekey: 6,
    SeedsTraffic._rename: 2,
    SeedsTraffic._delete: 14,
    SeedsTraffic._truncate: 0.7,
    SeedsTraffic._truncate_both: 0.4,
}
