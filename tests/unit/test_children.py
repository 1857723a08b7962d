"""A process of its own is heard, stopped where one likes, and never left behind."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

from tests.fixtures.children import ROOT, StartChild

WALK, STAY, FALL = (f"tests.unit.steps:{name}" for name in ("walk", "stay", "fall"))


def test_marks_output_and_code_of_a_child_are_heard(children: StartChild) -> None:
    child = children("3", "4", target=WALK)
    assert child.wait_for("step", n=3) == {"number": 3}
    assert child.wait() == 4
    assert child.count("step") == 3
    assert (child.stdout, child.stderr) == ("walked 3\n", "no complaint\n")


def test_a_child_kills_itself_at_a_mark_and_passes_no_other(children: StartChild) -> None:
    child = children("5", "0", target=WALK, kill_at=("step", 2))
    assert child.wait() == -9
    assert child.count("step") == 2
    assert child.stdout == ""


def test_a_child_stands_at_a_mark_until_it_may_go_on(children: StartChild) -> None:
    child = children("5", "0", target=WALK, block_at=("step", 2))
    child.wait_for("step", number=2)
    assert (child.code, child.count("step")) == (None, 2)
    child.go_on()
    assert child.wait() == 0
    assert child.count("step") == 5


def test_a_child_that_ends_early_fails_the_wait_with_what_it_said(children: StartChild) -> None:
    child = children(target=FALL)
    with pytest.raises(AssertionError, match=r"ended with 1; stderr:\n(.|\n)*ValueError: fell"):
        child.wait_for("step")


def test_a_wait_ends_with_what_has_been_heard(children: StartChild) -> None:
    child = children(target=STAY)
    child.wait_for("there")
    with pytest.raises(TimeoutError, match=r"no mark 2 there (.|\n)*running(.|\n)*last marks:\n  there"):
        child.wait_for("there", n=2, timeout=0.01)


def test_a_child_may_be_asked_to_end(children: StartChild) -> None:
    child = children(target=STAY)
    child.wait_for("there")
    child.terminate()
    assert child.wait() == 15


def test_the_command_line_runs_in_a_child(children: StartChild) -> None:
    child = children("--version")
    assert child.wait() == 0, child.stderr
    assert child.stdout.startswith("replicator")


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="watches a process that is not its child")
def test_a_child_ends_with_its_killed_parent() -> None:
    script = (
        "import sys; from tests.fixtures.children import Child\n"
        f"child = Child([], {STAY!r}, {{}}, {{}}); child.wait_for('there')\n"
        "print(child.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        gone = select.select([child], [], [], 30)[0]
        os.close(child)
    assert gone, "the child outlived its parent"
