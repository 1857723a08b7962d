"""The service manager is told that all is well only when every part has really gone round."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.notify import Notifier
from replicator.pulse import Pulse
from replicator.together import Watch


class Manager:
    """The end of systemd: a real datagram socket."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """What has come since the last time, line by line: what is sent to such a socket is there at once."""
        lines: list[str] = []
        while True:
            try:
                lines += self._socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return lines

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def manager(path: str) -> Iterator[Manager]:
    manager = Manager(path)
    yield manager
    manager.close()


def test_it_is_ready_when_all_parts_are(path: str, manager: Manager) -> None:
    watch = Watch(["replicate", "serve"], Notifier({"NOTIFY_SOCKET": path}))
    watch.hear("replicate", Pulse(1, False, "waiting: no\nanswer"))
    assert manager.heard() == ["STATUS=replicate: waiting: no answer; serve: starting"]
    watch.hear("replicate", Pulse(2, True, "replicating"))
    assert "READY=1" not in manager.heard()
    watch.hear("serve", Pulse(1, True, "serving at [::1]:8080"))
    heard = manager.heard()
    assert "READY=1" in heard and "STATUS=replicate: replicating; serve: serving at [::1]:8080" in heard
    watch.hear("serve", Pulse(2, True, "serving at [::1]:8080"))
    assert "READY=1" not in manager.heard()


def test_the_watchdog_is_answered_once_every_part_has_gone_round(path: str, manager: Manager) -> None:
    watch = Watch(["replicate", "serve"], Notifier({"NOTIFY_SOCKET": path}))
    for rounds in range(1, 100):
        watch.hear("replicate", Pulse(rounds))
    assert "WATCHDOG=1" not in manager.heard()
    watch.hear("serve", Pulse(1))
    assert manager.heard().count("WATCHDOG=1") == 1
    # What was heard before does not count again.
    watch.hear("serve", Pulse(2))
    watch.hear("serve", Pulse(3))
    assert manager.heard() == []
    watch.hear("replicate", Pulse(100))
    assert manager.heard() == ["WATCHDOG=1"]


def test_who_says_something_new_without_going_round_does_not_live(path: str, manager: Manager) -> None:
    watch = Watch(["replicate"], Notifier({"NOTIFY_SOCKET": path}))
    watch.hear("replicate", Pulse(1))
    assert manager.heard()[-1] == "WATCHDOG=1"
    watch.hear("replicate", Pulse(1, True, "replicating"))
    assert "WATCHDOG=1" not in manager.heard()


def test_a_part_that_has_ended_does_not_live(path: str, manager: Manager) -> None:
    watch = Watch(["replicate", "serve"], Notifier({"NOTIFY_SOCKET": path}))
    for name in ("replicate", "serve"):
        watch.hear(name, Pulse(7, True, "at work"))
    watch.hear("serve", Pulse(8, True, "at work"))
    watch.lose("serve")
    manager.heard()
    watch.hear("replicate", Pulse(8, True, "at work"))
    assert manager.heard() == []
    watch.hear("serve", Pulse(8, True, "at work again"))
    assert "WATCHDOG=1" in manager.heard()
    watch.stop()
    assert manager.heard() == ["STOPPING=1", "STATUS=stopping"]


def test_an_abstract_name_is_understood(path: str) -> None:
    name = f"replicator-test-{path}"
    manager = Manager("\0" + name)
    Notifier({"NOTIFY_SOCKET": "@" + name}).tell(READY=1)
    assert manager.heard() == ["READY=1"]
    manager.close()


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_nobody_has_to_listen(environ: dict[str, str]) -> None:
    Notifier(environ).tell(READY=1)


def test_one_that_does_not_read_holds_nobody_up(path: str, manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": path})
    for _ in range(2000):  # more than its queue takes
        notifier.tell(STATUS="x" * 1000)
    assert manager.heard()
