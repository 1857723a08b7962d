"""When ./dev makes its virtualenv, and when it leaves it alone. Every path here has a space in it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.dev.machine import NOTHING, Machine, ending, kill_all, session, system_python


def test_what_is_ready_is_used_in_silence(settled: Machine) -> None:
    settled.prepared()
    before = (settled.builds(), (settled.venv / "dev-log").stat().st_mtime_ns)
    assert settled.prepared() == []
    assert settled.prepared("python", "-c", "import tiny") == []
    assert (settled.builds(), (settled.venv / "dev-log").stat().st_mtime_ns) == before


def test_a_wider_verb_extends_what_a_narrower_made(settled: Machine) -> None:
    (settled.venv / "dev-state").write_text(
        "".join([*(settled.venv / "dev-state").read_text().splitlines(True)[:2], "demo\n"])
    )
    assert settled.prepared() == [], "a shell takes what there is"
    line = settled.dev("lint").lines[0]
    assert "updating" in line and "only what the demo needs" in line
    assert settled.dev("demo").lines == [] and settled.prepared() == []


def test_a_new_linter_rule_installs_nothing_and_a_new_dependency_does(settled: Machine) -> None:
    settled.prepared()
    pyproject = settled.checkout / "pyproject.toml"
    pyproject.write_text(pyproject.read_text() + "\n[tool.ruff]\nline-length = 80\n")
    assert settled.prepared() == []
    pyproject.write_text(pyproject.read_text().replace('version = "1"', 'version = "1" # same'))
    [line] = settled.prepared()
    assert "updating" in line and "pyproject.toml" in line
    assert settled.prepared() == []


def test_a_failed_update_leaves_what_worked_before(settled: Machine) -> None:
    settled.prepared()
    pyproject = settled.checkout / "pyproject.toml"
    good = pyproject.read_text()
    pyproject.write_text(good.replace("requires = []", 'requires = ["something"]'))
    assert "index does not answer" in settled.dev("shell", *NOTHING).refusal
    pyproject.write_text(good)
    assert settled.prepared("python", "-c", "import tiny") == []


def test_the_users_other_pythons_and_an_unwritable_home_do_not_matter(tiny: Machine) -> None:
    (tiny.place / "tiny.py").write_text("raise SystemExit('the wrong one')\n")
    strange = {"PIP_USER": "1", "PIP_REQUIRE_VIRTUALENV": "1", "PIP_TARGET": str(tiny.place / "elsewhere")}
    tiny.prepared(HOME="/nonexistent", PYTHONPATH=str(tiny.place), **strange)
    assert tiny.prepared("python", "-c", "import tiny", HOME="") == []
    assert not (tiny.place / "elsewhere").exists()


def by_hand(machine: Machine) -> None:
    """A virtualenv, and nothing in it."""
    subprocess.run([system_python(), "-m", "venv", "--without-pip", machine.venv], check=True)


def test_a_virtualenv_made_by_hand_is_used_and_kept(tiny: Machine) -> None:
    by_hand(tiny)
    keepsake = tiny.venv / "bin" / "keepsake"
    keepsake.write_text("")
    [line] = tiny.prepared("python", "-c", "import tiny")
    assert "not made by ./dev" in line and keepsake.exists()
    assert tiny.prepared() == []


def test_a_python_that_went_away_is_noticed(tiny: Machine) -> None:
    by_hand(tiny)
    link = tiny.venv / "bin" / "python"
    link.unlink()
    link.symlink_to("/usr/bin/python-of-last-year")
    [line] = tiny.prepared("python", "-c", "import tiny")
    assert line.startswith("dev: rebuilding") and "does not run" in line
    assert tiny.prepared() == []


@pytest.mark.parametrize("was", ["/old/place/.venv {version}", "{venv} 3.10"])
def test_a_moved_checkout_and_an_upgraded_python_are_noticed(tiny: Machine, was: str) -> None:
    by_hand(tiny)
    [library] = (tiny.venv / "lib").iterdir()
    made = was.format(version=library.name.removeprefix("python"), venv=tiny.venv)
    (tiny.venv / "dev-state").write_text(f"{made}\n{tiny.checkout} 0 0\ntest\n")
    line = tiny.first_line("shell", *NOTHING)
    assert line.startswith("dev: rebuilding")
    place, _, version = made.rpartition(" ")
    assert f"it was Python {version} in {place};" in line


@contextmanager
def building(machine: Machine, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A ./dev in the middle of its installation; it goes on at the end of the block."""
    pipes = [machine.checkout / "reached", machine.checkout / "go on"]
    with ExitStack() as stack:
        for pipe in pipes:
            os.mkfifo(pipe)
            stack.callback(pipe.unlink)
        reached, go_on = (os.open(pipe, os.O_RDWR) for pipe in pipes)
        stack.callback(os.close, reached)
        stack.callback(os.close, go_on)
        process = machine.start("shell", *words)
        assert os.read(reached, 1)
        yield process


def test_an_interrupted_preparation_is_made_again(tiny: Machine) -> None:
    with building(tiny, *NOTHING) as process:
        kill_all(process)
        process.communicate()
    [line] = tiny.prepared("python", "-c", "import tiny")
    assert line.startswith("dev: rebuilding") and "did not finish" in line
    assert tiny.prepared() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_told_to_end_it_ends_what_it_has_started_and_leaves_nothing(
    tiny: Machine, number: signal.Signals
) -> None:
    with building(tiny, *NOTHING) as process:
        process.send_signal(number)
        end = ending(process)
        deadline = time.monotonic() + 60
        while left := session(process):
            assert time.monotonic() < deadline, left
    assert end.code == 128 + number and "interrupted" in end.lines[-1]
    assert list((tiny.place / "tmp").iterdir()) == []
    assert not (tiny.venv / "dev-state").exists() and not (tiny.venv / "lib").exists()
    [line] = tiny.prepared("python", "-c", "import tiny")
    assert line.startswith("dev: preparing")


def test_a_package_that_went_away_is_noticed(tiny: Machine) -> None:
    tiny.prepared()
    [gone] = (tiny.venv / "lib").glob("python*/site-packages/tiny.pth")
    gone.unlink()
    [line] = tiny.prepared("python", "-c", "import tiny")
    assert line.startswith("dev: rebuilding") and "tiny.pth is missing" in line
    assert tiny.prepared() == []


def test_two_at_a_time_install_once(tiny: Machine) -> None:
    with building(tiny, "python", "-c", "import tiny") as first:
        second = tiny.start("shell", "python", "-c", "import tiny")
        assert second.stderr is not None
        assert "waiting for another ./dev" in second.stderr.readline()
    assert [ending(first).code, ending(second).code] == [0, 0]
    assert tiny.builds() == 1


def test_a_python_that_does_not_answer_is_passed_over(bare: Machine) -> None:
    bare.check_out_tiny()
    bare.install_python("python3", "echo 'pyenv: python3: command not found' >&2; exit 127\n")
    bare.install_python("python3.13", "exit 0\n")
    bare.install_python("python3.12", "echo 3 6\n")
    bare.install_python("python3.11")
    assert "preparing" in bare.first_line("shell", *NOTHING)
