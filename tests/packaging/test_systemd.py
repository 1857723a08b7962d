"""The unit for systemd is one that systemd takes, and closes what it can; and what it names is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from replicator.cli import main
from replicator.config import load
from replicator.queries import house

UNIT = house("config") / "systemd" / "replicator.service"
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="needs systemd-analyze (apt install systemd)")
#: Of 10, which is what a service has that closes nothing.
EXPOSURE_MOST = 1.5


def keys() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        name, is_key, value = line.partition("=")
        if is_key and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a command that is there."""
    command = Path(sys.executable).with_name("replicator")
    assert command.exists(), "the package is installed beside the interpreter"
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/replicator/bin/replicator", str(command)))
    return path


def analyzed(*words: str | Path) -> str:
    assert ANALYZE is not None
    environ = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run([ANALYZE, *words], capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_systemd
def test_systemd_takes_the_unit_as_it_is(unit: Path) -> None:
    said = analyzed("verify", "--man=no", unit)
    assert not [line for line in said.splitlines() if unit.name in line], said


@needs_systemd
def test_little_is_left_open(unit: Path) -> None:
    said = analyzed("security", "--offline=true", "--no-pager", unit)
    (line,) = [line for line in said.splitlines() if "Overall exposure level" in line]
    assert float(line.partition(unit.name + ": ")[2].split()[0]) <= EXPOSURE_MOST


def test_the_command_is_one_of_ours_and_the_secrets_can_be_named() -> None:
    (command,) = keys()["ExecStart"]
    program, verb, option, config = command.split()
    assert program.endswith("/replicator") and option == "--config" and config.startswith("/etc/replicator/")
    assert isinstance(main.commands[verb], click.Command)


def test_secrets_come_as_the_configuration_expects_them(tmp_path: Path) -> None:
    (credential,) = keys()["LoadCredential"]
    name, _, _ = credential.partition(":")
    (tmp_path / name).write_text("host=clinic dbname=records\n")
    config = tmp_path / "replicator.yaml"
    config.write_text("source: {dsn_file: credential:source-dsn}\n")
    loaded = load(config, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert loaded.source_dsn == "host=clinic dbname=records"


def test_what_cannot_be_meant_is_not_started_again_and_the_rest_is() -> None:
    found = keys()
    assert found["Restart"] == ["always"] and found["RestartPreventExitStatus"] == ["2"]
    assert found["Type"] == ["notify"] and found["NotifyAccess"] == ["main"]


def test_systemd_is_more_patient_than_we_are() -> None:
    defaults = load(house("config") / "replicator.yaml", {"SOURCE_DSN": "host=h"})
    assert int(keys()["TimeoutStopSec"][0]) > defaults.run.stop_timeout_s
