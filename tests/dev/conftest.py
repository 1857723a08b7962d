"""Machines for ./dev to be tried on."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.dev.machine import TOOLS, Machine, pip_at_hand


@contextmanager
def new_machine(online: bool = False) -> Iterator[Machine]:
    with ExitStack() as stack:
        port = stack.enter_context(socket.socket())
        port.bind(("127.0.0.1", 0))
        # Not pytest's tmp_path: another user could not enter it.
        place = Path(tempfile.mkdtemp(prefix="replicator-dev-"))
        stack.callback(shutil.rmtree, place)
        place.chmod(0o755)
        machine = Machine(place, port.getsockname()[1], online)
        stack.callback(machine.stop)
        machine.tools.mkdir()
        (place / "home").mkdir()
        (place / "tmp").mkdir()
        (place / "tmp").chmod(0o1777)
        machine.install_tools(*TOOLS)
        yield machine


@pytest.fixture
def bare() -> Iterator[Machine]:
    """No Python yet, no checkout yet."""
    with new_machine() as machine:
        yield machine


@pytest.fixture
def tiny(bare: Machine) -> Machine:
    """Python, and ./dev in a project that installs without a network."""
    need_pip()
    bare.install_python()
    bare.check_out_tiny()
    return bare


@pytest.fixture(scope="session")
def settled() -> Iterator[Machine]:
    """A tiny checkout whose .venv is ready for the demo only. Tests share it and leave it usable."""
    need_pip()
    with new_machine() as machine:
        machine.install_python()
        machine.check_out_tiny()
        end = machine.dev("demo")
        assert end.code == 0, (end, machine.log())
        yield machine


@pytest.fixture
def online() -> Iterator[Machine]:
    """A machine that may reach the package index the way this one does."""
    with new_machine(online=True) as machine:
        machine.install_python()
        yield machine


def need_pip() -> None:
    if not pip_at_hand():
        pytest.skip("without a network this machine's Python has no pip to give (no ensurepip, no pip wheel)")
