"""A running replicator that serves → how long its clients wait, how much they get, and what they cost.

The clients are a process of their own (clients.py), as is the server; Postgres is on the same machine. What
is measured against is the goal set for it: nothing else at hand does the same work.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import jwt

from tests.bench import workload
from tests.bench.bench import Bench
from tests.bench.place import Source, source
from tests.bench.result import Result, at_least, at_most

ROOT = Path(__file__).parents[2]
GOAL = "the goal"
RULES = workload.RULES + "  everyone:\n    data:\n      - SELECT * FROM notices\n"


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that can be reached, and the means to become its client."""

    db: Source
    url: str
    secret: bytes
    pid: int

    def token(self, user: str) -> str:
        now = int(time.time())
        claims = {"sub": user, "aud": "bench", "iat": now, "exp": now + 36_000}
        return jwt.encode(claims, self.secret, headers={"kid": "bench"})

    def clients(self, verb: str, users: Sequence[str], **options: Any) -> Clients:
        tokens = [self.token(user) for user in users]
        return Clients({"verb": verb, "url": self.url, "tokens": tokens, **options})

    def memory_kb(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmRSS:\s*(\d+)", status)
        assert found is not None, "a process has a size"
        return int(found[1])

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Clients:
    """The process with the clients, which says a line of JSON at a time what happened to them."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.clients"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None and self._process.stdout is not None, "both are pipes"
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the clients ended with code {self._process.wait()}")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def serving(bench: Bench, name: str, rows: int) -> Iterator[Serving]:
    """A database with so many rows of the workload, replicated, and served."""
    with source(bench.serve(), name) as db, tempfile.TemporaryDirectory() as folder:
        db.session.execute("CREATE TABLE notices (id int PRIMARY KEY, text text NOT NULL)")
        db.session.execute("INSERT INTO notices VALUES (1, 'welcome')")
        db.session.execute(f"ALTER PUBLICATION {workload.PUBLICATION} ADD TABLE notices".encode())
        if rows:
            db.write(rows, per_transaction=1000)
        secret = secrets.token_bytes(32)
        config = Path(folder, "replicator.yaml")
        key = base64.urlsafe_b64encode(secret).decode().rstrip("=")
        config.write_text(
            json.dumps(
                {
                    "source": {"dsn": db.dsn, "publication": workload.PUBLICATION, "slot": name},
                    "rules": "rules.yaml",
                    "sync": {
                        "listen": "127.0.0.1:0",
                        "audience": "bench",
                        "max_connections": 10_000,
                        "keys": [{"kty": "oct", "kid": "bench", "alg": "HS256", "k": key}],
                    },
                }
            ),
            encoding="utf-8",
        )
        Path(folder, "rules.yaml").write_text(RULES, encoding="utf-8")
        _run("migrate", config)
        with _process("replicate", config) as replicating, _process("serve", config) as serve:
            said = _wait_for(serve, "serving")
            one = Serving(db, f"http://{said['address']}", secret, serve.pid)
            _wait_until_shown(one)
            yield one
            _ = replicating


def _run(verb: str, config: Path) -> None:
    command = [sys.executable, "-m", "replicator", verb, "--config", str(config)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


@contextmanager
def _process(part: str, config: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "replicator", "run", "--only", part, "--config", str(config)]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE if part == "serve" else subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_for(process: subprocess.Popen[bytes], event: str) -> dict[str, Any]:
    assert process.stderr is not None
    for line in process.stderr:
        said: dict[str, Any] = json.loads(line)
        if said.get("event") == event:
            return said
    raise RuntimeError(f"the server ended with code {process.wait()}")


def _wait_until_shown(one: Serving) -> None:
    with one.clients("wait", ["nobody"]) as clients:
        clients.hear()


def _user(number: int) -> str:
    """The id of one of the workload's users, as Postgres makes it."""
    from hashlib import md5
    from uuid import UUID

    return str(UUID(md5(f"user {number}".encode(), usedforsecurity=False).hexdigest()))


def latency(bench: Bench) -> Iterator[Result]:
    """From a commit until a client has a complete checkpoint with it, at 20 commits a second."""
    commits = bench.count(400, 60)
    middle, late = [], []
    with serving(bench, "bench_latency", 1000) as one:
        for _ in bench.each("latency"):
            with one.clients(
                "latency", [_user(1)], dsn=one.db.dsn, user=_user(1), commits=commits
            ) as clients:
                took = clients.hear()["ms"]
            cuts = quantiles(took, n=100)
            middle.append(cuts[49])
            late.append(cuts[98])
    yield Result("latency.p50", middle, "ms", GOAL, [8.0], at_most(1))
    yield Result("latency.p99", late, "ms", GOAL, [25.0], at_most(1))


def download(bench: Bench) -> Iterator[Result]:
    """A bucket of 100,000 ops for a client that has nothing, and 200 clients with 1,000 rows each at once."""
    ops = bench.count(100_000, 10_000)
    plain: list[float] = []
    pressed: list[float] = []
    crowd = []
    with serving(bench, "bench_download", 0) as one:
        one.db.session.execute(
            "INSERT INTO notices SELECT n, rpad('notice ' || n, 370, ' nothing new') "
            f"FROM generate_series(2, {ops}) n".encode()
        )
        with one.clients("rows", ["nobody"], rows=ops) as clients:
            clients.hear()
        for _ in bench.each("download"):
            for encoding, values in (("identity", plain), ("zstd", pressed)):
                with one.clients("download", ["nobody"], encoding=encoding) as clients:
                    values.append(ops / clients.hear()["seconds"])
    users = [_user(number) for number in range(bench.count(200, 20))]
    with serving(bench, "bench_crowd", 1000 * bench.count(1000, 100)) as one:
        for _ in bench.each("200 clients at once"):
            with one.clients("download", users, encoding="identity") as clients:
                crowd.append(clients.hear()["seconds"])
    yield Result("download.identity", plain, "ops/s", GOAL, [120_000.0], at_least(1))
    yield Result("download.zstd", pressed, "ops/s", GOAL, [60_000.0], at_least(1))
    yield Result("download.crowd", crowd, "s", GOAL, [3.0], at_most(1))


def fanout(bench: Bench) -> Iterator[Result]:
    """200 connected clients are told of one change that all of them share."""
    users = [_user(number) for number in range(bench.count(200, 20))]
    took = []
    with serving(bench, "bench_fanout", 1000) as one, one.clients("hear", users) as clients:
        clients.hear()
        # A commit is there for nobody before it is on disk; otherwise the server's own delay is measured.
        one.db.session.execute("SET synchronous_commit = on")
        for run in bench.each("fanout"):
            time.sleep(0.5)
            begun = time.time()
            one.db.session.execute("UPDATE notices SET text = %s WHERE id = 1", [f"news {run}"])
            took.append((clients.hear()["last"] - begun) * 1000)
    yield Result("fanout", took, "ms", GOAL, [100.0], at_most(1))


def idle(bench: Bench) -> Iterator[Result]:
    """What clients cost that wait: memory each, and processor time while others' rows change."""
    count = bench.count(2000, 200)
    users = [_user(number % 1000) + f"-{number}" for number in range(count)]
    memory, busy = [], []
    with serving(bench, "bench_idle", 1000) as one:
        before = one.memory_kb()
        with one.clients("hear", users) as clients:
            clients.hear()
            for _ in bench.each("idle"):
                memory.append((one.memory_kb() - before) / count)
                cpu, begun = one.cpu_s(), time.monotonic()
                time.sleep(bench.count(10, 3))
                busy.append((one.cpu_s() - cpu) / (time.monotonic() - begun) * 100)
    yield Result("idle.memory", memory, "KB a client", GOAL, [25.0], at_most(1))
    yield Result("idle.processor", busy, "% of a core", GOAL, [1.0], at_most(1))
