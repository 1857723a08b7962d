"""Apps read while storage restarts, buckets are compacted, rules deployed: none sees what is not its own."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import aiohttp
import orjson
import psycopg
import pytest

from replicator.buckets import deploy
from replicator.buckets.compact import candidates, compact_bucket, horizon, lock
from replicator.buckets.compact_rest import forget_changes, forget_entries
from replicator.database import connected, migrate
from replicator.errors import ReplicatorError
from replicator.observe.tail_mirror import Aimed, Mirror, Verdict, lines_in
from replicator.rules.parse import parse_rules
from tests.fixtures.children import Child, StartChild
from tests.fixtures.least import restrict
from tests.fixtures.postgres import Connection, Database, MakeDatabase, Server
from tests.fixtures.tokens import AUDIENCE, KEY, token
from tests.oracle.tight import TIGHT, VARIABLE, bounded

pytestmark = pytest.mark.soak

USERS, WARDS, NOTES = 5, 6, 120
TABLES = """
CREATE TABLE notes (id integer PRIMARY KEY, ward text NOT NULL, n integer NOT NULL, said text NOT NULL);
CREATE TABLE members (user_id text, ward text, PRIMARY KEY (user_id, ward));
ALTER TABLE notes REPLICA IDENTITY FULL;
CREATE PUBLICATION powersync FOR TABLE notes, members;
"""
MINE = "SELECT id FROM notes WHERE ward IN (SELECT ward FROM members WHERE user_id = %s) ORDER BY id"
THROUGH_LOOKUP = {
    "parameters": "SELECT ward FROM members WHERE user_id = request.user_id()",
    "data": ["SELECT * FROM notes WHERE ward = bucket.ward"],
}
THROUGH_ROWS = {
    "parameters": "SELECT request.user_id() AS u",
    "data": ["SELECT * FROM notes WHERE ward IN (SELECT ward FROM members WHERE user_id = bucket.u)"],
}
#: Pages of few rows, and what is over stays only for a multiple of the time in which servers hear of that.
BOUNDS: dict[str, float] = {
    **TIGHT,
    "replicator.buckets.read._PAGE_BYTES": 12_000,
    "replicator.buckets.retire.GRACE_S": 8.0,
}
#: So much of the log may be ahead of what readers are shown: a slow disc would have it all to catch up with.
AHEAD_BYTES = 250_000
#: What has stood for so long stands still, on however slow a machine.
STILL_S = 120.0
_SHOWN = "SELECT coalesce(shown_lsn, '0/0')::text FROM replicator.checkpoints"
_AHEAD = "SELECT pg_current_wal_insert_lsn() - %s::pg_lsn"
#: Whether all of it is shown, by rules that no others are to follow; and on the way there, what moves.
_STANDING = """
SELECT shown_lsn > %(upto)s::pg_lsn
           AND NOT EXISTS (SELECT FROM replicator.rule_sets WHERE state = 'preparing'),
       least(lsn, %(upto)s::pg_lsn), least(shown_lsn, %(upto)s::pg_lsn), shown_rules,
       (SELECT array_agg(row(id, state) ORDER BY id) FROM replicator.rule_sets)::text,
       (SELECT array_agg(row(name, state, for_rules) ORDER BY name) FROM replicator.tables)::text,
       (SELECT array_agg(row(rules, oid, state, rows_copied) ORDER BY rules, oid)
        FROM replicator.rule_copies)::text
FROM replicator.checkpoints
"""


def rules(chance: random.Random) -> str:
    definition = chance.choice((THROUGH_LOOKUP, THROUGH_ROWS))
    other = {
        "parameters": "SELECT request.user_id() AS u",
        "data": ["SELECT ward AS id FROM members WHERE user_id = bucket.u"],
    }
    definitions = {f"notes{chance.randrange(2)}": definition} | (
        {"wards": other} if chance.random() < 0.7 else {}
    )
    return json.dumps({"bucket_definitions": definitions})


class Clinic:
    """One writer of the source, who knows who may see what; never far ahead of what readers are shown."""

    def __init__(self, source: Database, storage: Database, chance: random.Random) -> None:
        self._source, self._storage, self._chance = source, storage, chance
        self._shown = "0/0"
        self.n = 0
        #: Of each user and ward: since which number, and up to which. Nobody comes twice.
        self.since: dict[tuple[str, str], int] = {}
        self.until: dict[tuple[str, str], int] = {}
        self.is_over = False

    def may_see(self, user: str, ward: str, n: int) -> bool:
        """Whether this version of a row may ever be sent to a user."""
        which = user, ward
        return which in self.since and n < self.until.get(which, 1 << 60)

    def write(self) -> None:
        with psycopg.connect(self._source.owner_dsn, autocommit=True) as connection:
            while not self.is_over:
                self.n += 1
                connection.execute(self._statement().encode())
                connection.execute(b"SELECT pg_sleep(0.004)")
                while self.n % 50 == 0 and not self.is_over and self._is_far_ahead(connection):
                    connection.execute(b"SELECT pg_sleep(0.05)")

    def _is_far_ahead(self, connection: Connection) -> bool:
        with suppress(psycopg.OperationalError):  # storage is being restarted: by what it said last
            [(self._shown,)] = self._storage.execute(_SHOWN)
        [(ahead,)] = connection.execute(_AHEAD, [self._shown]).fetchall()
        return bool(ahead > AHEAD_BYTES)

    def _statement(self) -> str:
        chance, n = self._chance, self.n
        which = f"u{chance.randrange(USERS)}", f"w{chance.randrange(WARDS)}-{n // 400}"
        if chance.random() < 0.03 and which not in self.since:
            self.since[which] = n
            return f"INSERT INTO members VALUES ('{which[0]}', '{which[1]}')"
        if chance.random() < 0.02 and (there := [one for one in self.since if one not in self.until]):
            which = chance.choice(there)
            # Said before it is done: what is written from now on is not for them.
            self.until[which] = n
            return f"DELETE FROM members WHERE (user_id, ward) = ('{which[0]}', '{which[1]}')"
        note, size = chance.randrange(NOTES), chance.choice((10, 10, 1000, 3000))
        wards = [ward for _, ward in self.since] or ["none"]
        if chance.random() < 0.05:
            return f"DELETE FROM notes WHERE id = {note}"
        return (
            f"INSERT INTO notes VALUES ({note}, '{chance.choice(wards)}', {n}, repeat('x', {size})) "
            "ON CONFLICT (id) DO UPDATE SET ward = excluded.ward, n = excluded.n, said = excluded.said"
        )


class App:
    """One database of one user."""

    def __init__(self, user: str, clinic: Clinic, url: Callable[[], str], chance: random.Random) -> None:
        self.user, self._clinic, self._url, self._chance = user, clinic, url, chance
        self.mirror = Mirror()
        self.completed = 0
        #: The newest checkpoint that it has had whole.
        self.op_id = -1
        self.is_calm = False

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(None if self.is_calm else self._chance.uniform(0.5, 20)):
                    await self._connected()
            except (TimeoutError, aiohttp.ClientError, ConnectionError):
                pass
            await asyncio.sleep(0.05)
            if self._chance.random() < 0.1 and not self.is_calm:
                self.mirror = Mirror()  # it has been installed anew

    async def _connected(self) -> None:
        headers = {"authorization": f"Token {token(self.user)}", "accept": "application/x-ndjson"}
        rest = bytearray()
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{self._url()}/sync/stream", json=self.mirror.request(self.user), headers=headers
            ) as answer,
        ):
            if answer.status != 200:
                return
            async for chunk in answer.content.iter_any():
                for line in lines_in([chunk], rest):
                    self._take(orjson.loads(line))
                    if self._chance.random() < 0.05 and not self.is_calm:
                        await asyncio.sleep(self._chance.uniform(0, 0.5))

    def _take(self, line: dict[str, Any]) -> None:
        for op in line.get("data", {}).get("data", ()):
            if op["op"] == "PUT" and op["object_type"] == "notes":
                row = orjson.loads(op["data"])
                assert self._clinic.may_see(self.user, row["ward"], row["n"]), (
                    self.user,
                    row["ward"],
                    row["n"],
                    op["op_id"],
                )
        told = self.mirror.take(line)
        if isinstance(told, Verdict):
            assert not told.wrong, (self.user, told.op_id, told.wrong)
            self.completed += 1
            self.op_id = told.op_id
        elif isinstance(told, Aimed):
            assert told.op_id >= 0

    def notes(self) -> list[int]:
        found = {
            int(row_id)
            for kept in self.mirror.kept.values()
            for kind, row_id, _ in kept.rows
            if kind == "notes"
        }
        return sorted(found)


async def test_nobody_is_shown_what_is_not_theirs(
    own_server: Callable[..., Server],
    make_database: MakeDatabase,
    database: Database,
    children: StartChild,
    tmp_path: Path,
    rng: random.Random,
    seed: int,
    soak_minutes: float,
) -> None:
    print(f"seed {seed}, {soak_minutes:g} min")
    server = own_server(fsync=True)
    storage, config = make_database(on=server), tmp_path / "replicator.yaml"
    await migrate(storage.dsn, "replicator")
    database.execute(TABLES)
    (tmp_path / "rules.yaml").write_text(rules(rng))
    slot = f"slot_{database.name}"
    config.write_text(json.dumps({
        "source": {"dsn": database.dsn, "slot": slot}, "storage": {"dsn": storage.dsn}, "rules": "rules.yaml",
        "sync": {"listen": "127.0.0.1:0", "audience": [AUDIENCE], "keys": [KEY]},
    }))  # fmt: skip
    restrict(database, config)
    env = {VARIABLE: json.dumps(BOUNDS)}

    def run(part: str) -> Child:
        return children("run", "--only", part, "--config", config, target="tests.oracle.tight:main", env=env)

    replicating, serving = run("replicate"), run("serve")
    await asyncio.to_thread(replicating.wait_for, "rules switched")
    address = await asyncio.to_thread(serving.wait_for, "serving")
    clinic = Clinic(database, storage, random.Random(rng.random()))
    apps = [
        App(f"u{n % USERS}", clinic, lambda: f"http://{address['address']}", random.Random(rng.random()))
        for n in range(2 * USERS)
    ]
    counts = {"restarts": 0, "deploys": 0, "steps": 0}

    async def compacting(chance: random.Random) -> None:
        async with connected(storage.dsn, "compact", schema="replicator") as connection:
            await lock(connection)
            upto = await horizon(connection, slot, chance.choice((0.0, 0.5, 2.0)))
            if upto is None:
                return
            async for page in candidates(connection, upto):
                for one in page:
                    async for _ in compact_bucket(connection, one.number, upto):
                        counts["steps"] += 1
            async for _ in forget_changes(connection, 3.0):
                pass
            async for _ in forget_entries(connection, upto):
                pass

    async def deploying(chance: random.Random) -> None:
        async def one() -> None:
            async with connected(storage.dsn, "rules", schema="replicator") as connection:
                await deploy.store(connection, slot, parse_rules(rules(chance), "deployed"), "command")
                counts["deploys"] += 1

        many = [one() for _ in range(chance.choice((1, 1, 2, 3)))]
        # All of them have ended when this has: none comes later, when what there is is compared.
        for failed in await asyncio.gather(*many, return_exceptions=True):
            if isinstance(failed, BaseException):
                raise failed

    def restart(mode: Literal["immediate", "fast"]) -> None:
        # Whoever else writes to the disc may hold up each of its many files.
        server.stop(mode, within_s=300)
        server.start(within_s=300)

    async def restarting(chance: random.Random) -> None:
        doing = asyncio.create_task(asyncio.to_thread(restart, chance.choice(("immediate", "fast"))))
        try:
            await asyncio.shield(doing)
        finally:  # also when told to end: it is there again before anybody looks at what it holds
            await doing
        counts["restarts"] += 1

    async def again_and_again(what: Callable[[random.Random], Awaitable[None]], most_s: float) -> None:
        chance = random.Random(rng.random())
        while True:
            await asyncio.sleep(chance.uniform(0, most_s))
            try:
                await what(chance)
            except ReplicatorError as error:
                print(f"  {what.__name__}: {error.what}")

    with bounded(
        {
            "replicator.buckets.compact.STEP_OPS": 40,
            "replicator.buckets.compact.ROUND_OPS": 300,
            "replicator.buckets.merge.MERGED_MAX": 8,
        }
    ):
        writing = asyncio.create_task(asyncio.to_thread(clinic.write))
        reading = [asyncio.create_task(app.run()) for app in apps]
        troubles = [
            asyncio.create_task(again_and_again(what, most_s))
            for what, most_s in ((compacting, 1.0), (deploying, 12.0), (restarting, 30.0))
        ]
        try:
            done, _ = await asyncio.wait(
                [writing, *reading, *troubles], timeout=soak_minutes * 60, return_when=asyncio.FIRST_COMPLETED
            )
            for one in done:
                one.result()
            assert not done, "nothing ends by itself"
            clinic.is_over = True
            await writing
            for one in troubles:
                one.cancel()
            await asyncio.gather(*troubles, return_exceptions=True)
            for app in apps:
                app.is_calm = True
            await until_equal(database, storage, apps, reading, replicating, serving)
        finally:
            clinic.is_over = True
            for one in [*reading, *troubles]:
                one.cancel()
            await asyncio.gather(*reading, *troubles, return_exceptions=True)
    print(f"  {clinic.n} transactions, {counts}, checkpoints {[app.completed for app in apps]}")
    verified = children("verify", "--all", "--config", config)
    assert await asyncio.to_thread(verified.wait, 300) == 0, verified.stdout + verified.stderr


class Moving:
    """What is waited for, however long it takes, as long as something moves."""

    def __init__(self) -> None:
        self._last: object = None
        self._since = time.monotonic()

    def is_moving(self, stands: object) -> bool:
        now = time.monotonic()
        if stands != self._last:
            self._last, self._since = stands, now
        return now - self._since < STILL_S


def standing(storage: Database, upto: object) -> tuple[Any, ...]:
    """Whether so much is shown, and what is on the way there."""
    try:
        return storage.execute(_STANDING, {"upto": upto})[0]
    except psycopg.OperationalError:
        return (False,)  # its connections are being ended


async def until_equal(
    source: Database,
    storage: Database,
    apps: list[App],
    reading: list[asyncio.Task[None]],
    replicating: Child,
    serving: Child,
) -> None:
    """Wait until every app holds what its user may see."""
    [(upto,)] = source.execute("SELECT pg_logical_emit_message(true, 'soak', '')")
    expected = {app.user: [one for (one,) in source.execute(MINE, [app.user])] for app in apps}
    shown = Moving()
    while not (stands := await asyncio.to_thread(standing, storage, upto))[0]:
        assert replicating.code is None, replicating.stderr[-6000:]
        assert shown.is_moving(stands), f"not shown up to {upto}: {stands}\n{replicating.stderr[-6000:]}"
        await asyncio.sleep(0.1)
    come = Moving()
    while any(app.notes() != expected[app.user] for app in apps):
        for one in reading:
            if one.done():
                one.result()
        assert serving.code is None, serving.stderr[-6000:]
        assert come.is_moving([(app.op_id, app.notes()) for app in apps]), unlike(apps, expected)
        await asyncio.sleep(0.1)


def unlike(apps: list[App], expected: dict[str, list[int]]) -> str:
    lines = []
    for app in apps:
        have, want = set(app.notes()), set(expected[app.user])
        lines.append(f"{app.user} lacks {sorted(want - have)}, beyond {sorted(have - want)}, at {app.op_id}")
    return "\n".join(lines)
