"""Orders from a parent → Postgres processes and a folder that go when the parent goes.

    parent ──orders──▶ guard ──▶ postmaster ──▶ backends
      ▲                 │ ▲           │            │
      └────answers──────┘ └──lifeline─┴────────────┘

The guard sees its parent's end as the end of the pipe the orders come through, whatever ended it. It then
stops what it started, frees what that left in memory, and removes the folder. It sees the end of *all* it
started in the same way: every descendant inherits the write end of the lifeline.

A parent-death signal would be shorter, but Linux clears it when a process changes its account or its user
namespace, which are the ways to run Postgres for root. So the guard stays who its parent is, and only what it
starts becomes somebody else.

This file runs by itself, as a script with the standard library alone: it must start in a few milliseconds.
`guarded.py` is the parent's end of the conversation: one line of JSON per order, and one per answer.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

#: How long an orderly end may take before it becomes a disorderly one.
PATIENCE_S = 10.0
PATIENCE_KEPT_S = 60.0


class Ward:
    """A process and all its descendants, known by the pipe they inherited."""

    def __init__(self, order: dict[str, Any]) -> None:
        user = order["user"]
        self.lifeline, held = os.pipe()
        try:
            with open(order["log"], "ab") as log:
                self.process = subprocess.Popen(
                    order["run"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=order["env"],
                    cwd="/",
                    pass_fds=[held],
                    user=user,
                    group=order["group"],
                    extra_groups=None if user is None else [],
                )
        except BaseException:
            os.close(self.lifeline)
            raise
        finally:
            os.close(held)

    def gone(self, within_s: float) -> bool:
        return bool(select.select([self.lifeline], [], [], within_s)[0])

    def reap(self) -> int:
        os.close(self.lifeline)
        return self.process.wait()

    def kill(self) -> None:
        """End all of them at once, as a power cut would."""
        self.process.kill()
        while True:
            for pid in self._holders():
                _signal(pid, signal.SIGKILL)
            if self.gone(0.02):
                return

    def _holders(self) -> list[int]:
        """Who holds the lifeline. Without /proc nobody is named: backends then end by themselves."""
        lifeline = f"pipe:[{os.fstat(self.lifeline).st_ino}]"
        pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
        return [pid for pid in pids if pid != os.getpid() and lifeline in _open_files(pid)]


def _open_files(pid: int) -> set[str]:
    found = set()
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            found.add(os.readlink(entry.path))
    except OSError:
        pass  # It has just ended, or is somebody else's.
    return found


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _release_shared_memory(data: Path) -> None:
    """Free the segment that a killed postmaster left: `postmaster.pid` says which, on its seventh line."""
    try:
        lock = (data / "postmaster.pid").read_text().splitlines()
        segment = int(lock[6].split()[1])
    except (OSError, IndexError, ValueError):
        return
    remove = 0
    ctypes.CDLL(None).shmctl(segment, remove, None)


def _say(**answer: object) -> None:
    try:
        os.write(1, json.dumps(answer).encode() + b"\n")
    except OSError:
        pass  # Nobody listens any more; the orders will end, too.


def _make(folder: Path, user: int | None, group: int | None, again: bool) -> None:
    """An empty folder of our own, or that of before; raises if there is another with something in it."""
    if not again and (not folder.is_dir() or any(folder.iterdir())):
        folder.mkdir(parents=True)
    folder.chmod(0o700)
    if user is not None and group is not None:
        os.chown(folder, user, group)


def _obey(order: dict[str, Any], ward: Ward | None) -> Ward | None:
    if "run" in order:
        assert ward is None, "one at a time"
        ward = Ward(order)
        _say(pid=ward.process.pid)
    elif ward is None:
        _say(late=True)
    elif "signal" in order:
        ward.process.send_signal(order["signal"])
        _say(sent=True)
    else:
        ward.kill()
        _say(sent=True)
    return ward


def _serve() -> Ward | None:
    """Carry out orders until there are no more; what still runs then."""
    ward = None
    while True:
        sources = [0] if ward is None else [0, ward.lifeline]
        ready = select.select(sources, [], [])[0]
        if ward is not None and ward.lifeline in ready:
            _say(exit=ward.reap())
            ward = None
        if 0 not in ready:
            continue
        # The parent awaits an answer before its next order, so one line is all there is to read.
        line = sys.stdin.buffer.readline()
        if not line:
            return ward
        try:
            ward = _obey(json.loads(line), ward)
        except OSError as error:
            _say(error=str(error))


def _end(ward: Ward, keep: bool) -> None:
    ward.process.send_signal(signal.SIGINT if keep else signal.SIGQUIT)
    if not ward.gone(PATIENCE_KEPT_S if keep else PATIENCE_S):
        ward.kill()
    ward.reap()


def main() -> None:
    # The parent decides when it ends, not the terminal. Handlers, since "ignored" would be inherited.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    wishes = json.loads(sys.argv[1])
    folder = Path(wishes["folder"])
    try:
        _make(folder, wishes["user"], wishes["group"], wishes["again"])
    except OSError as error:
        _say(error=str(error))
        return
    _say(made=True)
    try:
        ward = _serve()
        if ward is not None:
            _end(ward, wishes["keep"])
    finally:
        _release_shared_memory(folder / "data")
        if not wishes["keep"]:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
