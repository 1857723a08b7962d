"""What should run → orders to a guard, which outlives us just long enough to clean up."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from replicator.demo import guard
from replicator.demo.account import Account
from replicator.errors import Unavailable

#: An answer comes in milliseconds; a guard silent for so long is broken.
ANSWER_S = 60.0


class Guarded:
    """A folder, and at most one running process (with descendants) that works in it."""

    def __init__(self, folder: Path, account: Account, *, keep: bool, again: bool = False) -> None:
        self.folder = folder
        self.account = account
        self.keep = keep
        #: The process that runs now.
        self.pid: int | None = None
        #: How the last one ended: an exit code, or a signal's number below zero.
        self.code: int | None = None
        self._unread = b""
        wishes = {"folder": str(folder), "user": account.user, "group": account.group}
        wishes |= {"keep": keep, "again": again}
        # A session of its own: Ctrl-C at the terminal is for us to act on.
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, json.dumps(wishes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        try:
            self._answer()
        except BaseException:
            self._hang_up()
            raise

    @property
    def guard_pid(self) -> int:
        return self._guard.pid

    def run(self, argv: list[str], log: Path, env: Mapping[str, str]) -> int:
        """Start a process that writes its output to the end of `log`; its pid."""
        account = self.account
        order = {"run": argv, "log": str(log), "env": dict(env)}
        answer = self._ask({**order, "user": account.user, "group": account.group})
        pid = answer["pid"]
        assert isinstance(pid, int)
        self.pid = pid
        self.code = None
        return pid

    def signal(self, number: int) -> None:
        self._ask({"signal": number})

    def kill(self) -> None:
        """End the process and every descendant at once."""
        self._ask({"kill": True})

    def exited(self, within_s: float) -> int | None:
        """How it ended, if it and all its descendants end in time."""
        deadline = time.monotonic() + within_s
        while self.pid is not None:
            if self._receive(max(0.0, deadline - time.monotonic())) is None:
                return None
        return self.code

    def close(self) -> None:
        """End what runs, and remove the folder unless it is to be kept."""
        self._hang_up()
        self.pid = None
        if not self.keep and self.folder.exists():
            raise Unavailable(f"the folder {self.folder} could not be removed", "Remove it by hand.")

    def _hang_up(self) -> None:
        assert self._guard.stdin is not None and self._guard.stdout is not None
        self._guard.stdin.close()
        self._guard.wait()
        self._guard.stdout.close()

    def _ask(self, order: Mapping[str, object]) -> dict[str, object]:
        assert self._guard.stdin is not None
        try:
            self._guard.stdin.write(json.dumps(order).encode() + b"\n")
            self._guard.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._lost() from error
        return self._answer()

    def _answer(self) -> dict[str, object]:
        """The answer to the last order. The news of an exit may come before it."""
        deadline = time.monotonic() + ANSWER_S
        while True:
            answer = self._receive(max(0.0, deadline - time.monotonic()))
            if answer is None:
                raise self._lost()
            if "error" in answer:
                raise Unavailable(
                    f"Postgres could not be started in {self.folder}: {answer['error']}",
                    "Name a folder that can be written, with some space in it, in TMPDIR.",
                )
            if "exit" not in answer:
                return answer

    def _receive(self, within_s: float) -> dict[str, object] | None:
        """The next line the guard says, with its news of an exit already taken in."""
        assert self._guard.stdout is not None
        pipe = self._guard.stdout.fileno()
        while b"\n" not in self._unread:
            if not select.select([pipe], [], [], within_s)[0]:
                return None
            heard = os.read(pipe, 65536)
            if not heard:
                raise self._lost()
            self._unread += heard
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, object] = json.loads(line)
        if isinstance(code := answer.get("exit"), int):
            self.code, self.pid = code, None
        return answer

    def _lost(self) -> Unavailable:
        return Unavailable(
            f"the process that guards {self.folder} does not answer",
            f"Look for what is left of it: `ps -ef | grep {self.folder.name}`.",
        )
