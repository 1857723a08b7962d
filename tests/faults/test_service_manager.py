"""A service manager starts `run` and listens: it is told what is so, when it is."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.clinic import Clinic
from tests.faults.weather import wait_until
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.fixtures.tokens import AUDIENCE, KEY

pytestmark = [pytest.mark.faults, pytest.mark.migrated]


class Manager:
    """The end of systemd: a datagram socket, and what came to it."""

    def __init__(self, path: Path) -> None:
        self.path, self.heard = str(path), list[str]()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while said := self._socket.recv(65536):
            self.heard += said.decode().splitlines()

    def wait_for(self, line: str, n: int = 1) -> None:
        wait_until(lambda: self.heard.count(line) >= n, lambda: self.heard)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", self.path)
        self._thread.join()
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


async def test_it_is_ready_when_it_replicates_and_serves(
    database: Database, tmp_path: Path, children: StartChild, manager: Manager
) -> None:
    clinic = Clinic(database, tmp_path, children)
    await clinic.build()
    keys = json.loads(clinic.path.read_text())
    keys["sync"] = {"listen": "127.0.0.1:0", "audience": [AUDIENCE], "keys": [KEY]}
    clinic.path.write_text(json.dumps(keys))
    running = children(
        "run", "--config", clinic.path, env={"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "180000000"}
    )
    manager.wait_for("READY=1")
    # It says so after all of that, and may be read later than what the manager was told.
    running.wait_for("ready")
    assert running.count("part ready", part="replicate") == running.count("part ready", part="serve") == 1
    # An idle source, and nobody who asks: both loops go round all the same.
    manager.wait_for("WATCHDOG=1", n=3)
    running.terminate()
    assert running.wait() == 0
    manager.wait_for("STOPPING=1")
    address = str(running.wait_for("part ready", part="serve")["doing"])
    assert f"STATUS=replicate: replicating; serve: {address}" in manager.heard


async def test_it_is_not_ready_before_it_replicates(
    database: Database, tmp_path: Path, children: StartChild, manager: Manager
) -> None:
    clinic = Clinic(database, tmp_path, children)
    await clinic.build()
    running = children(
        "run", "--config", clinic.path, env={"NOTIFY_SOCKET": manager.path}, block_at=("streaming", 1)
    )
    running.wait_for("streaming")
    assert "READY=1" not in manager.heard
    running.go_on()
    manager.wait_for("READY=1")


async def test_one_that_stands_by_is_ready_and_says_so(
    database: Database, tmp_path: Path, children: StartChild, manager: Manager
) -> None:
    clinic = Clinic(database, tmp_path, children)
    await clinic.build()
    clinic.run()
    clinic.catch_up()
    children("run", "--config", clinic.path, env={"NOTIFY_SOCKET": manager.path})
    manager.wait_for("READY=1")
    manager.wait_for("WATCHDOG=1", n=3)
    assert [line for line in manager.heard if line.startswith("STATUS=")][-1].startswith(
        "STATUS=replicate: standing by"
    )


async def test_it_says_whom_it_waits_for(
    database: Database, tmp_path: Path, children: StartChild, manager: Manager
) -> None:
    clinic = Clinic(database, tmp_path, children, dsn="postgresql://nobody@127.0.0.1:1/nothing")
    running = children("run", "--config", clinic.path, env={"NOTIFY_SOCKET": manager.path})
    # Each attempt is a round: a service manager that ended it would bring nobody back.
    manager.wait_for("WATCHDOG=1", n=3)
    assert any("cannot connect to nothing at 127.0.0.1:1" in line for line in manager.heard)
    assert "READY=1" not in manager.heard and running.code is None
