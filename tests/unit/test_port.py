"""A port stays ours while nobody listens there."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from replicator.demo.port import LOOPBACK, Port
from replicator.errors import ConfigError

LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a port is given up for its server")


def take(number: int) -> None:
    with socket.socket() as other:
        other.bind((LOOPBACK, number))


@LINUX_ONLY
def test_a_server_may_listen_there_and_nobody_gets_it_when_the_server_is_down() -> None:
    port = Port(0)
    port.hand_over()
    for _ in range(2):
        with pytest.raises(OSError, match="in use"):
            take(port.number)
        with socket.create_server((LOOPBACK, port.number)) as server:  # as Postgres does, with SO_REUSEADDR
            with socket.create_connection(server.getsockname()):
                pass
    port.release()


def test_a_released_port_is_anybodys() -> None:
    port = Port(0)
    port.release()
    take(port.number)


def test_another_port_is_another_one() -> None:
    port = Port(0)
    first = port.number
    port.change()
    assert port.number != first
    take(first)
    port.release()


def test_a_port_where_somebody_listens_cannot_be_had() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        taken = server.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {taken} "):
            Port(taken)


@pytest.mark.parametrize("number", [-1, 65536])
def test_a_number_that_is_no_port_is_refused(number: int) -> None:
    with pytest.raises(ConfigError, match=f"port {number} "):
        Port(number)


@LINUX_ONLY
def test_a_machine_without_a_loopback_is_told_so_at_once() -> None:
    code = "from replicator.demo.port import Port; Port(0)"
    alone = ["unshare", "--map-root-user", "--net", sys.executable, "-c", code]
    if subprocess.run([*alone[:3], "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("networks of one's own are not allowed here")
    ended = subprocess.run(alone, capture_output=True, text=True, check=False)
    assert "ConfigError: port" in ended.stderr and "unreachable" in ended.stderr
