"""What storage holds × what the source held → nothing, or an AssertionError that says where they differ.

Every checkpoint that was ever shown is compared, not only the last: a trigger on `checkpoints` writes each
of them down in the transaction that stored it, so none is missed and none is made up.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from replicator import queries
from replicator.rules.versions import Versions
from tests.fixtures.postgres import Connection
from tests.oracle.history import History, State
from tests.oracle.values import Shown, read
from tests.oracle.world import Contents, Row, Table, World

_WATCH = """
CREATE SCHEMA oracle;
CREATE TABLE oracle.checkpoints (
    n bigint GENERATED ALWAYS AS IDENTITY, xid text NOT NULL, op_id bigint NOT NULL, lsn pg_lsn NOT NULL,
    shown_op_id bigint, shown_lsn pg_lsn, lsn_before pg_lsn NOT NULL, confirmed_lsn pg_lsn,
    clock float8 NOT NULL, shown_rules bigint);
-- It writes as who made it: the writer may be a role that may not.
CREATE FUNCTION oracle.write_down() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO oracle.checkpoints
        (xid, op_id, lsn, shown_op_id, shown_lsn, lsn_before, confirmed_lsn, clock, shown_rules)
    SELECT pg_current_xact_id()::xid::text, new.op_id, new.lsn, new.shown_op_id, new.shown_lsn, old.lsn,
           -- Where an operator has said that all is copied again, the slot may have gone its own way.
           (SELECT confirmed_flush_lsn FROM pg_replication_slots
            WHERE slot_name = new.slot AND coalesce(old.given_up, new.given_up) IS NULL), new.clock,
           new.shown_rules;
    RETURN new;
END $$;
CREATE TRIGGER write_down AFTER UPDATE ON replicator.checkpoints
    FOR EACH ROW EXECUTE FUNCTION oracle.write_down();
"""
_CHECKPOINTS = """
SELECT n, xid, op_id, (lsn - '0/0')::bigint, shown_op_id, (shown_lsn - '0/0')::bigint,
       (lsn_before - '0/0')::bigint, (confirmed_lsn - '0/0')::bigint, clock, shown_rules
FROM oracle.checkpoints WHERE n > %s ORDER BY n
"""
_OPS = """
SELECT o.op_id, o.xmin::text, b.name, o.op, o.object_type, o.object_id, o.subkey,
       o.checksum::bigint & 4294967295, o.data
FROM replicator.ops AS o JOIN replicator.buckets AS b ON b.id = o.bucket
WHERE o.op_id > %s ORDER BY o.op_id, o.bucket
"""
#: What compaction has left of all of them, up to a checkpoint; and how many are gone, by bucket.
_LEFT = """
SELECT b.name, o.op, o.object_type, o.object_id, o.subkey, o.data
FROM replicator.ops AS o JOIN replicator.buckets AS b ON b.id = o.bucket
WHERE o.op_id <= %s ORDER BY o.op_id
"""
_REMOVED = """
SELECT b.name, c.removed FROM replicator.compacted AS c JOIN replicator.buckets AS b ON b.id = c.bucket
"""
_TOLD = """
SELECT c.op_id, c.buckets IS NULL,
       ARRAY(SELECT b.name FROM replicator.buckets AS b WHERE b.id = ANY (c.buckets))
FROM replicator.changes AS c WHERE c.op_id > %s ORDER BY c.op_id
"""


_SETS = "SELECT id, content, versions FROM replicator.rule_sets"


class Checkpoint(NamedTuple):
    """What the trigger wrote down of one change of the checkpoint."""

    n: int
    xid: str
    op_id: int
    lsn: int
    shown_op_id: int | None
    shown_lsn: int | None
    #: What was stored until then, and what the slot had confirmed by then.
    lsn_before: int
    confirmed_lsn: int | None
    #: The time at which rows are where they are, in seconds since 1970.
    clock: float
    #: The set of rules by which it is to be read.
    shown_rules: int | None


class Op(NamedTuple):
    op_id: int
    xid: str
    bucket: str
    op: str
    object_type: str
    object_id: str
    subkey: str
    checksum: int
    data: str | None


def watch(storage: Connection) -> None:
    """Write down every checkpoint from now on."""
    storage.execute(_WATCH.encode())


class Reader:
    """A reader of all buckets, which goes from checkpoint to checkpoint and forgets nothing."""

    #: Whether op ids may be those of something else: entries of lookups take some.
    has_gaps = False

    def __init__(self, world: World, history: History) -> None:
        self._world, self._history = world, history
        #: By their rules, every world that has been, or is to be, in force.
        self.worlds = {world.rules(): world}
        #: By number, the sets that were deployed.
        self._sets: dict[int, tuple[World, Versions]] = {}
        self._in_force: int | None = None
        self._outputs = world.outputs()
        #: What the names begin with of buckets, and lookups, that the set in force has.
        self._live: set[str] = set()
        self._maintained: set[str] = set()
        #: object_type → (bucket, object_id) → subkey → the row, for every PUT that stands.
        self._held: dict[str, dict[tuple[str, str], dict[str, dict[str, Shown | None]]]] = {}
        self._pending: list[Op] = []
        #: What each bucket's ops come to: their ids and checksums.
        self._sums: dict[str, list[tuple[int, int]]] = {}
        self._last: Checkpoint | None = None
        self._ops_read = 0
        self._expected: dict[tuple[int, str, int], tuple[tuple[Row, ...], Contents]] = {}
        #: By which sets checkpoints were shown.
        self.shown_by: list[int] = []
        #: How many checkpoints have been compared.
        self.compared = 0

    def compare(self, storage: Connection) -> None:
        """Read everything that is new, and compare each checkpoint that was shown."""
        with storage.transaction():
            storage.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            checkpoints = [
                Checkpoint(*row)
                for row in storage.execute(_CHECKPOINTS, [self._last.n if self._last else 0]).fetchall()
            ]
            ops = [
                Op(*row) for row in storage.execute(_OPS, [self._last.op_id if self._last else 0]).fetchall()
            ]
            for number, content, versions in storage.execute(_SETS.encode()).fetchall():
                self._sets[number] = self.worlds[content], Versions.from_json(versions)
            total = storage.execute("SELECT count(*) FROM replicator.ops").fetchall()[0][0]
            removed: dict[str, int] = dict(storage.execute(_REMOVED).fetchall())
            told = storage.execute(_TOLD, [self._last.op_id if self._last else 0]).fetchall()
            storage.execute("SET LOCAL search_path TO replicator, pg_temp")
            shown = [c.shown_op_id for c in checkpoints if c.shown_op_id is not None][-1:]
            totals = [
                (upto, row)
                for upto in shown
                for row in storage.execute(
                    queries.load("buckets").totals, {"upto": upto, "buckets": self._names(ops)}
                ).fetchall()
            ]
            left = [(upto, storage.execute(_LEFT, [upto]).fetchall()) for upto in shown]
        self._ops_read += len(ops)
        gone = sum(removed.values())
        assert total + gone == self._ops_read, (
            f"{total} ops are stored and {gone} compacted, but {self._ops_read} have been seen to appear"
        )
        ids = [op.op_id for op in ops]
        assert len(set(ids)) == len(ids), "an op_id was given twice"
        later = deque(ops)
        for checkpoint in checkpoints:
            self._check_order(checkpoint)
            self._pending += self._upto(later, checkpoint)
            self._show(checkpoint)
            self._last = checkpoint
        assert not later, "there are ops beyond the stored checkpoint"
        self._check_told(checkpoints, ops, told)
        self._check_totals(totals, removed)
        self._check_left(left)

    def _names(self, ops: list[Op]) -> list[str]:
        return sorted(self._sums.keys() | {op.bucket for op in ops})

    def _check_told(self, checkpoints: list[Checkpoint], ops: list[Op], told: list[tuple[Any, ...]]) -> None:
        """Whoever waits for a bucket hears of each of its ops, with the checkpoint that brings it."""
        ends = [checkpoint.op_id for checkpoint in checkpoints]
        for upto, are_all, buckets in told:
            assert upto in ends, f"changes up to {upto} were told, which is no checkpoint"
            before = max([end for end in ends if end < upto], default=0)
            changed = {op.bucket for op in ops if before < op.op_id <= upto}
            assert are_all or changed <= set(buckets), f"{changed - set(buckets)} were not told at {upto}"
        heard = {upto for upto, *_ in told}
        silent = [op.op_id for op in ops if min(end for end in ends if end >= op.op_id) not in heard]
        assert not silent, f"ops {silent[:5]} were told nobody"

    def _check_totals(self, totals: list[tuple[int, tuple[Any, ...]]], removed: dict[str, int]) -> None:
        """What storage says that a bucket comes to is what its ops came to, also of those that are gone."""
        for upto, (bucket, checksum, count, is_past) in totals:
            assert not is_past, f"{bucket} was compacted past {upto}, which is shown"
            sums = [value for op_id, value in self._sums.get(bucket, []) if op_id <= upto]
            expected = sum(sums) % (1 << 32), len(sums) - removed.get(bucket, 0)
            assert (checksum, count) == expected, f"{bucket} up to {upto}"

    def _check_left(self, left: list[tuple[int, list[tuple[Any, ...]]]]) -> None:
        """What compaction has left comes to the rows that all the ops came to."""
        for upto, ops in left:
            assert upto == self.shown, "it is what was compared last"
            held: dict[tuple[str, ...], str] = {}
            for bucket, op, *row, data in ops:
                if op in ("PUT", "REMOVE"):
                    held.pop((bucket, *row), None)
                if op == "PUT":
                    held[(bucket, *row)] = data
            found = {place: read(data) for place, data in held.items()}
            expected = {
                (bucket, object_type, object_id, subkey): shown
                for object_type, places in self._held.items()
                for (bucket, object_id), by_subkey in places.items()
                for subkey, shown in by_subkey.items()
            }
            assert found == expected, f"{len(found)} rows are left, not {len(expected)}"

    @property
    def shown(self) -> int | None:
        """The op of the newest checkpoint that was compared."""
        return None if self._last is None else self._last.shown_op_id

    def _upto(self, ops: deque[Op], checkpoint: Checkpoint) -> list[Op]:
        """The ops that this checkpoint brought: its own transaction wrote them, and no other (promise 2)."""
        found: list[Op] = []
        while ops and ops[0].op_id <= checkpoint.op_id:
            found.append(ops.popleft())
        first = self._last.op_id + 1 if self._last else 1
        ids = [op.op_id for op in found]
        assert not ids or ids[0] >= first, "an op appeared below a checkpoint"
        assert self.has_gaps or ids == list(range(first, checkpoint.op_id + 1)), "op ids have a gap"
        for op in found:
            self._sums.setdefault(op.bucket, []).append((op.op_id, op.checksum))
            assert op.xid == checkpoint.xid, f"op {op.op_id} appeared at another time than its checkpoint"
            assert 0 <= op.checksum < 1 << 32 and op.op in ("PUT", "REMOVE")
            assert (op.op == "PUT") == bool(op.data)
        return found

    def _check_order(self, now: Checkpoint) -> None:
        """Promise 1, and that nothing goes back."""
        assert now.confirmed_lsn is None or now.confirmed_lsn <= now.lsn_before, (
            f"the slot confirmed {now.confirmed_lsn:X}, stored was {now.lsn_before:X}"
        )
        assert (now.shown_op_id or 0) <= now.op_id and (now.shown_lsn or 0) <= now.lsn
        was = self._last
        if was is not None:
            assert now.op_id >= was.op_id and now.lsn >= was.lsn, f"the checkpoint went back: {was}, {now}"
            assert now.clock >= was.clock, f"the clock went back: {was}, {now}"
            assert (now.shown_op_id or 0) >= (was.shown_op_id or 0), f"what is shown went back: {was}, {now}"
            assert (now.shown_lsn or 0) >= (was.shown_lsn or 0), f"what is shown went back: {was}, {now}"

    def _show(self, checkpoint: Checkpoint) -> None:
        upto, lsn = checkpoint.shown_op_id, checkpoint.shown_lsn
        if upto is None or lsn is None:
            return
        was = self._last
        if was is not None and (was.shown_op_id, was.shown_lsn, was.shown_rules) == (
            *(upto, lsn),
            checkpoint.shown_rules,
        ):
            return
        self._go_by(checkpoint.shown_rules)
        applied = [op for op in self._pending if op.op_id <= upto]
        self._pending = [op for op in self._pending if op.op_id > upto]
        for op in applied:
            self._apply(op)
        self._compare(checkpoint, self._history.at(lsn), applied)
        self.compared += 1

    def goes_by(self, world: World) -> bool:
        return self._world is world

    def _go_by(self, rules: int | None) -> None:
        assert rules is not None, "a checkpoint is shown by no rules"
        assert rules >= (self._in_force or 0), "older rules are in force again"
        if rules != self._in_force:
            self._in_force = rules
            self.shown_by.append(rules)
            self._world, versions = self._sets[rules]
            self._outputs = self._world.outputs()
            self._live, self._maintained = versions.buckets(), versions.maintained()

    def _apply(self, op: Op) -> None:
        rows = self._held.setdefault(op.object_type, {}).setdefault((op.bucket, op.object_id), {})
        if op.op == "PUT":
            assert op.data is not None
            rows[op.subkey] = read(op.data)
            return
        rows.pop(op.subkey, None)
        if not rows:
            del self._held[op.object_type][op.bucket, op.object_id]

    def _compare(self, checkpoint: Checkpoint, states: list[State], applied: list[Op]) -> None:
        held = {name: _single(rows, self._live) for name, rows in self._held.items()}
        held = {name: contents for name, contents in held.items() if contents}
        wrong = ""
        for state in states:
            expected = {name: self._contents(name, table, state) for name, table in self._outputs.items()}
            expected = {name: contents for name, contents in expected.items() if contents}
            if held == expected:
                return
            wrong = wrong or "\n".join(_differences(held, expected, applied))
        raise AssertionError(
            f"the checkpoint at {checkpoint.shown_lsn:X}, op {checkpoint.shown_op_id}, shows something else "
            f"than the source held there:\n{wrong}"
        )

    def _contents(self, name: str, table: Table, state: State) -> Contents:
        """Worked out once for each version of a table; the version is kept, so that its id stays its own."""
        rows = state[table]
        key = id(self._world), name, id(rows)
        if key not in self._expected:
            self._expected[key] = rows, self._world.contents(name, rows)
        return self._expected[key][1]


def _single(rows: dict[tuple[str, str], dict[str, dict[str, Shown | None]]], live: set[str]) -> Contents:
    """What is in the buckets of the set in force, whose names are told without their versions."""
    held: Contents = {}
    for place, by_subkey in rows.items():
        bucket, row_id = place
        if bucket.partition("[")[0] in live:
            assert len(by_subkey) == 1, f"{place} is held {len(by_subkey)} times: {sorted(by_subkey)}"
            held[bucket.partition("#")[2], row_id] = next(iter(by_subkey.values()))
    return held


def _differences(
    held: dict[str, Contents], expected: dict[str, Contents], applied: list[Op], most: int = 6
) -> list[str]:
    """The first few differences, in words, and what was done last to each of these rows."""
    found: list[str] = []
    for name in sorted(held.keys() | expected.keys()):
        have, want = held.get(name, {}), expected.get(name, {})
        for place in sorted(have.keys() | want.keys()):
            if have.get(place) == want.get(place):
                continue
            found.append(f"  {name} {place}: {_difference(have.get(place), want.get(place))}")
            found += [
                f"    op {op.op_id} {op.op} {_short(op.data)}"
                for op in applied
                if (op.bucket.partition("#")[2], op.object_id) == place and op.object_type == name
            ]
            if len(found) > most:
                return [*found, "  …"]
    return found


def _difference(have: dict[str, Shown | None] | None, want: dict[str, Shown | None] | None) -> str:
    if have is None or want is None:
        return "missing" if have is None else "should not be there"
    return "; ".join(
        f"{column} is {_short(have.get(column))}, should be {_short(want.get(column))}"
        for column in sorted(have.keys() | want.keys())
        if have.get(column) != want.get(column)
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:60]} … {text[-50:]}"
