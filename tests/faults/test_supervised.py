"""Parts of `run` are killed, stopped, told to end and to read their files again; the others go on."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.clinic import Clinic, rules_over
from tests.faults.weather import wait_until
from tests.fixtures.children import Child, StartChild
from tests.fixtures.postgres import Database
from tests.fixtures.tokens import AUDIENCE, KEY, token

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

TABLES = """
CREATE TABLE visits (id integer PRIMARY KEY, patient text, doctor text);
ALTER TABLE visits REPLICA IDENTITY FULL;
INSERT INTO visits SELECT i, 'p' || i % 3, 'd' || i % 4 FROM generate_series(1, 30) AS i;
CREATE PUBLICATION powersync FOR ALL TABLES;
"""
SETS = "SELECT state FROM replicator.rule_sets ORDER BY id"


class Story:
    """A clinic that is replicated and served, by processes of one `run`."""

    def __init__(self, database: Database, folder: Path, children: StartChild) -> None:
        self.database = database
        self.clinic = Clinic(database, folder, children, rules=rules_over(visits="patient"))
        self.configure()

    def configure(self, **run: Any) -> None:
        keys = json.loads(self.clinic.path.read_text())
        keys["sync"] = {"listen": "127.0.0.1:0", "audience": [AUDIENCE], "keys": [KEY]}
        keys["run"] = run
        self.clinic.path.write_text(json.dumps(keys))

    async def begin(self) -> Child:
        await self.clinic.build(tables=TABLES)
        return self.start()

    def start(self) -> Child:
        running = self.clinic.run()
        running.wait_for("ready")
        return running

    def current(self, running: Child, nth: int = 1) -> None:
        """Wait until a change that is made now has been sent to a client of the nth server."""
        doing = str(running.wait_for("part ready", part="serve", n=nth)["doing"])
        number = self.database.execute("INSERT INTO visits SELECT max(id) + 1, 'p1' FROM visits RETURNING id")
        wanted = f'"object_id":"{number[0][0]}"'
        wait_until(lambda: wanted in _told(doing.rpartition(" ")[2], wanted))


def _told(address: str, wanted: str) -> str:
    """What a client of p1 is told, up to the end of its first checkpoint."""
    headers = {"authorization": f"Token {token('p1')}", "content-type": "application/json"}
    request = urllib.request.Request(f"http://{address}/sync/stream", b'{"raw_data": true}', headers)
    lines: list[str] = []
    try:
        with urllib.request.urlopen(request, timeout=10) as got:
            for line in got:
                lines.append(line.decode().replace(" ", ""))
                if "checkpoint_complete" in lines[-1]:
                    break
    except (urllib.error.URLError, OSError):
        pass  # not there, or not ready
    return "".join(lines)


@pytest.fixture
def story(database: Database, tmp_path: Path, children: StartChild) -> Story:
    return Story(database, tmp_path, children)


@contextmanager
def measured(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.2f} s")


def pid_of(running: Child, part: str, nth: int = 1) -> int:
    return int(str(running.wait_for("part started", part=part, n=nth)["pid"]))


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_a_part_that_is_killed_is_started_again(story: Story) -> None:
    running = await story.begin()
    story.current(running)
    for part in ("serve", "replicate"):
        os.kill(pid_of(running, part), signal.SIGKILL)
        with measured(f"{part} killed, until a client is current"):
            running.wait_for("part ended", part=part, code=-signal.SIGKILL)
            running.wait_for("part ready", part=part, n=2)
            story.current(running, nth=2)
    running.terminate()
    assert running.wait() == 0, running.stderr
    story.clinic.assert_equal()


async def test_parts_end_with_the_process_that_started_them(story: Story) -> None:
    running = await story.begin()
    pids = [pid_of(running, part) for part in ("serve", "replicate")]
    running.kill()
    with measured("all killed, until it replicates again"):
        again = story.start()
        story.current(again)
    wait_until(lambda: not any(map(is_there, pids)))


async def test_a_standby_takes_over(story: Story) -> None:
    first = await story.begin()
    second = story.clinic.run()
    second.wait_for("part ready", part="replicate", doing=lambda doing: "standing by" in doing)
    first.kill()
    with measured("the first killed, until the standby serves what is new"):
        second.wait_for("ready")
        story.current(second)


async def test_the_only_one_is_killed_and_started_again(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Clinic(database, tmp_path, children)
    await clinic.build()
    running = clinic.run()
    clinic.catch_up()
    for _ in range(3):
        running.kill()
        clinic.measure("while nobody is there")
        with measured("killed, until it has caught up"):
            running = clinic.run()
            clinic.catch_up()
    clinic.assert_equal()


async def test_what_does_not_end_is_not_waited_for_any_longer(story: Story) -> None:
    # Long enough for the others, on a machine that has more to do.
    story.configure(stop_timeout="5s")
    running = await story.begin()
    pid = pid_of(running, "replicate")
    os.kill(pid, signal.SIGSTOP)
    running.terminate()
    with measured("told to stop with a part that cannot"):
        assert running.wait() == 0
    assert running.count("cut short", parts="replicate") == 1
    assert not is_there(pid)


async def test_what_does_not_heal_ends_everything(story: Story) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        keys = json.loads(story.clinic.path.read_text())
        keys["sync"]["listen"] = f"127.0.0.1:{taken.getsockname()[1]}"
        story.clinic.path.write_text(json.dumps(keys))
        await story.clinic.build(tables=TABLES)
        running = story.clinic.run()
        assert running.wait() == 2
    assert "sync.listen: cannot listen" in running.stderr
    wait_until(lambda: not is_there(pid_of(running, "replicate")))


async def test_files_are_read_again(story: Story) -> None:
    running = await story.begin()
    story.current(running)
    story.clinic.rules.write_text(rules_over(visits="doctor"))
    os.kill(running.pid, signal.SIGHUP)
    running.wait_for("reloaded", changed=True)
    with measured("reloaded, until the new rules are in force"):
        story.clinic.catch_up()
    story.clinic.assert_equal()
    assert story.database.execute(SETS) == [("retired",), ("active",)]
    # No process was started again for it.
    assert running.count("part started") == 2 and running.code is None


async def test_a_file_that_is_wrong_changes_nothing(story: Story) -> None:
    running = await story.begin()
    was = story.clinic.rules.read_text()
    story.clinic.rules.write_text("bucket_definitions: [")
    os.kill(running.pid, signal.SIGHUP)
    running.wait_for("reload refused", why=lambda why: "rules.yaml" in why)
    story.current(running)
    # What can only be taken up by a restart is named, and the level of the log is taken up.
    story.clinic.rules.write_text(was)
    keys = json.loads(story.clinic.path.read_text())
    keys["run"] = {"log_level": "debug"}
    keys["replicate"] = {"batch_rows": 17}
    story.clinic.path.write_text(json.dumps(keys))
    assert "part ready" not in running.stderr
    os.kill(running.pid, signal.SIGHUP)
    running.wait_for("reloaded", changed=False, needs_restart="replicate.batch_rows")
    os.kill(pid_of(running, "serve"), signal.SIGKILL)
    running.wait_for("part ready", part="serve", n=2)
    wait_until(lambda: "part ready" in running.stderr)
    assert story.database.execute(SETS) == [("active",)]
