"""The whole installation on a machine with a Python and nothing else, then once more without a network."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.dev.machine import NOBODY, Machine, system_python


def test_one_command_installs_everything_and_the_next_needs_no_network(online: Machine) -> None:
    online.check_out()
    first = online.dev("shell", "python", "-c", "import replicator, pytest; print(replicator.__file__)")
    if first.code == 1 and "index does not answer" in first.lines[-1]:
        pytest.skip(first.lines[-1])
    assert first.code == 0, (first, online.log())
    assert first.out.strip() == str(online.checkout / "replicator" / "__init__.py")
    assert [line.split()[1] for line in first.lines] == ["preparing"]

    nowhere = f"http://127.0.0.1:{online.closed_port}/simple"
    second = online.dev("shell", "replicator", "--help", PIP_INDEX_URL=nowhere, https_proxy=nowhere)
    assert (second.code, second.lines) == (0, []), second


def test_a_python_without_pip_gets_one_from_the_distribution_without_root(online: Machine) -> None:
    online.check_out_tiny()
    online.install_tools("apt-get", "dpkg-deb", "tar")
    his = online.place / "his"
    his.mkdir()
    machine = replace(online, inside=without_pip(online))
    os.chown(his, NOBODY, NOBODY)
    there = {"HOME": str(his), "REPLICATOR_VENV": str(his / "venv")}
    first = machine.dev("demo", "once", **there)
    if first.code == 1 and "has no pip and none could be fetched" in first.lines[-1]:
        log = (his / "venv" / "dev-log").read_text()
        assert "+ wheel_from_apt" in log
        pytest.skip(f"apt reaches no archive: {log.splitlines()[-1]}")
    assert (first.code, first.out) == (0, "tiny demo once\n"), first
    assert machine.dev("demo", **there).lines == []


def without_pip(machine: Machine) -> tuple[str, ...]:
    """A command that runs another as an ordinary user where Python finds no pip, as Debian ships it."""
    tools = {name: shutil.which(name) for name in ("apt-get", "dpkg-deb", "mount", "setpriv", "unshare")}
    lacking = [name for name, path in tools.items() if path is None]
    if lacking or os.geteuid() != 0 or system_python() != Path("/usr/bin/python3"):
        pytest.skip(f"hiding pip takes root, Debian's Python and its tools {lacking or ''}")
    nothing = machine.place / "nothing"
    nothing.mkdir()
    pips = [Path("/usr/share/python-wheels"), Path("/usr/lib/python3/dist-packages")]
    pips += Path("/usr/lib").glob("python3.*/ensurepip")
    hide = [f"{tools['mount']} --bind {nothing} {pip}" for pip in pips if pip.is_dir()]
    as_nobody = f"{tools['setpriv']} --reuid={NOBODY} --regid={NOBODY} --clear-groups"
    script = "\n".join([*hide, f'exec {as_nobody} "$@"'])
    return (str(tools["unshare"]), "--mount", "/bin/sh", "-ec", script, "sh")
