"""./dev where it cannot go on: one line about what is wrong and what to do, and nothing broken."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import pytest

from tests.dev.machine import NOBODY, NOTHING, Machine, read_only


def test_no_python(bare: Machine) -> None:
    bare.check_out_tiny()
    refusal = bare.dev("demo").refusal
    assert "no Python 3.11 or newer" in refusal and "install" in refusal
    assert not bare.venv.exists()


def test_only_an_old_python(bare: Machine) -> None:
    bare.check_out_tiny()
    bare.install_python("python3", "echo 3 9 /usr/bin/python3.9\n")
    refusal = bare.dev("test").refusal
    assert "no Python 3.11 or newer" in refusal and "python3 is 3.9" in refusal
    assert not bare.venv.exists()


def test_no_network_for_the_first_preparation(bare: Machine) -> None:
    bare.install_python()
    bare.check_out()
    refusal = bare.dev("shell", *NOTHING).refusal
    assert "index does not answer" in refusal and "PIP_INDEX_URL" in refusal
    assert str(bare.venv / "dev-log") in refusal and "+ " in bare.log()
    # It is neither taken for ready nor for broken the next time.
    assert "preparing" in bare.first_line("shell", *NOTHING)


def test_an_unknown_failure_shows_what_the_log_calls_errors(settled: Machine) -> None:
    backend = settled.checkout / "backend.py"
    pyproject = settled.checkout / "pyproject.toml"
    good = backend.read_text(), pyproject.read_text()
    backend.write_text("raise RuntimeError('the backend is broken')\n")
    pyproject.write_text(good[1].replace("dependencies", "description = 'changed'\ndependencies"))
    try:
        end = settled.dev("demo")
    finally:
        backend.write_text(good[0])
        pyproject.write_text(good[1])
    assert end.code == 1 and len(end.lines) <= 10
    assert "RuntimeError: the backend is broken" in "".join(end.lines)
    assert str(settled.venv / "dev-log") in end.lines[-1]


def test_what_is_not_a_virtualenv_is_not_touched(tiny: Machine) -> None:
    letters = tiny.place / "letters"
    letters.mkdir()
    (letters / "lib").mkdir()
    (letters / "lib" / "dear friend").write_text("hello")
    refusal = tiny.dev("shell", *NOTHING, REPLICATOR_VENV=str(letters)).refusal
    assert "is not a virtualenv" in refusal and "REPLICATOR_VENV" in refusal
    assert [path.name for path in letters.rglob("*")] == ["lib", "dear friend"]
    file = str(letters / "lib" / "dear friend")
    assert "is not a virtualenv" in tiny.dev("shell", *NOTHING, REPLICATOR_VENV=file).refusal


def ordinary_user() -> int | None:
    """Who tries to write where only the owner may: somebody else if we are root, else ourselves."""
    return NOBODY if os.geteuid() == 0 else None


def test_a_checkout_that_cannot_be_written(tiny: Machine) -> None:
    his = replace(tiny, user=ordinary_user())
    home = tiny.place / "his"
    home.mkdir()
    if his.user is not None:
        os.chown(home, his.user, his.user)
    with read_only(tiny.checkout):
        refusal = his.dev("demo").refusal
        assert "cannot write" in refusal and "REPLICATOR_VENV=" in refusal
        there = {"HOME": str(home), "REPLICATOR_VENV": str(home / "venv")}
        first = his.dev("demo", "once", **there | {"REPLICATOR_VENV": "../his/../his/venv"})
        second = his.dev("demo", "twice", **there)
    assert (first.code, first.out) == (0, "tiny demo once\n"), first
    assert (second.out, second.lines) == ("tiny demo twice\n", [])


def test_a_prepared_checkout_serves_who_may_only_read_it(settled: Machine) -> None:
    settled.prepared()
    with read_only(settled.checkout):
        end = replace(settled, user=ordinary_user()).dev("demo")
    assert (end.code, end.out, end.lines) == (0, "tiny demo\n", [])


@pytest.mark.parametrize("megabytes", [0, 6])
def test_a_disk_too_small(tiny: Machine, megabytes: int) -> None:
    small = tiny.place / "small"
    small.mkdir()
    mount = [
        "mount",
        "-t",
        "tmpfs",
        "-o",
        f"size={megabytes or '4k'}{'m' * bool(megabytes)}",
        "none",
        str(small),
    ]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        if not megabytes:
            (small / "filler").write_bytes(b"x" * 4096)
        refusal = tiny.dev("shell", *NOTHING, REPLICATOR_VENV=str(small / "venv")).refusal
        assert "no space left" in refusal and "REPLICATOR_VENV" in refusal
        assert not (small / "venv" / "lib").exists()
    finally:
        subprocess.run(["umount", small], check=True)
