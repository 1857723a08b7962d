"""Ctrl-C ends the program in silence, however early it comes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

_INTERRUPTED = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

import replicator.__main__
sys.meta_path.insert(0, Interrupting())
sys.argv = ["replicator", "--version"]
replicator.__main__.main()
"""


@pytest.mark.parametrize("module", ["replicator.cli", "click", "pydantic"])
def test_while_it_is_being_loaded(module: str) -> None:
    code = _INTERRUPTED.format(module=module)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")
