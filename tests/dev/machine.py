"""A folder of chosen tools, a fresh home and a checkout → `./dev` as a stranger's machine runs it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: All that ./dev may ask of a machine besides Python.
TOOLS = ("awk", "cksum", "df", "dirname", "grep", "ls", "mkdir", "mv", "rm", "sh", "tail", "tr")

#: What a checkout has and a clone has not.
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "dist", "build")

NOBODY = 65534

#: How ./dev begins to say that it is doing something that takes a while.
PROGRESS = ("dev: preparing ", "dev: rebuilding ", "dev: updating ")

#: A command for `./dev shell` that needs nothing installed.
NOTHING = ("sh", "-c", ":")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a command ended, and what it said."""

    code: int
    out: str
    lines: list[str]

    @property
    def refusal(self) -> str:
        """The one line a refusal consists of, after at most one line about what was going on."""
        lines = [line for line in self.lines if not line.startswith(PROGRESS)]
        assert len(lines) == 1 and self.out == "" and self.code in (1, 2), self
        assert lines[0].startswith("dev: "), self
        return lines[0]


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine with nothing on it but what a test gave it; without a network unless `online`."""

    place: Path
    #: A loopback port that is taken and does not listen: what it is asked for is refused at once.
    closed_port: int
    online: bool = False
    #: Who runs ./dev there, if not we; and the command it runs in, if any.
    user: int | None = None
    inside: tuple[str, ...] = ()
    #: Every ./dev it ever ran, each the head of a process group.
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def tools(self) -> Path:
        return self.place / "tools"

    @property
    def checkout(self) -> Path:
        return self.place / "a checkout"

    @property
    def venv(self) -> Path:
        return self.checkout / ".venv"

    def install_tools(self, *names: str) -> None:
        for name in names:
            found = shutil.which(name)
            assert found, f"{name} is not on PATH"
            (self.tools / name).symlink_to(found)

    def install_python(self, name: str = "python3", script: str | None = None) -> None:
        """A Python of the machine, behind a script as pyenv would put it; or whatever `script` does."""
        text = script or f'exec "{system_python()}" "$@"\n'
        (self.tools / name).write_text("#!/bin/sh\n" + text)
        (self.tools / name).chmod(0o755)

    def check_out(self) -> None:
        """A copy of this checkout, as a clone would have it."""
        shutil.copytree(ROOT, self.checkout, ignore=LEFT_OUT, symlinks=True)

    def check_out_tiny(self) -> None:
        """This ./dev in a project that installs without a network."""
        shutil.copytree(ROOT / "tests/dev/tiny", self.checkout, ignore=LEFT_OUT)
        shutil.copy(ROOT / "dev", self.checkout)

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        own = {"PATH": str(self.tools), "HOME": str(self.place / "home"), "TMPDIR": str(self.place / "tmp")}
        process = subprocess.Popen(
            [*self.inside, self.checkout / "dev", *words],
            cwd=self.checkout,
            env=own | self.index() | environment,
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else [],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def stop(self) -> None:
        """Ends what a failed test left running."""
        for process in self.started:
            with suppress(ProcessLookupError):
                kill_all(process)
            process.communicate()

    def index(self) -> dict[str, str]:
        if self.online:
            return {name: os.environ[name] for name in INDEX_NAMES if name in os.environ}
        nowhere = f"http://127.0.0.1:{self.closed_port}/simple"
        return {"PIP_INDEX_URL": nowhere, "PIP_RETRIES": "1", "PIP_CONFIG_FILE": os.devnull}

    def dev(self, *words: str, **environment: str) -> Ending:
        return ending(self.start(*words, **environment))

    def prepared(self, *words: str, **environment: str) -> list[str]:
        """Runs something that must go well in the virtualenv; what ./dev said on the way."""
        end = self.dev("shell", *(words or NOTHING), **environment)
        assert end.code == 0, (end, self.log())
        return end.lines

    def first_line(self, *words: str, **environment: str) -> str:
        """What ./dev says first; it is not waited for."""
        process = self.start(*words, **environment)
        assert process.stderr is not None
        line = process.stderr.readline()
        kill_all(process)
        process.communicate()
        return line

    def log(self) -> str:
        log = self.venv / "dev-log"
        return log.read_text() if log.exists() else ""

    def builds(self) -> int:
        """How often the tiny project was installed."""
        return len((self.checkout / "builds").read_text().splitlines())


#: How this machine reaches a package index; an online Machine inherits it, and nothing else.
INDEX_NAMES = (
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_CERT",
    "SSL_CERT_FILE",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)


def kill_all(process: subprocess.Popen[str]) -> None:
    """End a ./dev and all it has started, as a power cut would; they are one session, of several groups."""
    for pid in session(process):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def session(process: subprocess.Popen[str]) -> list[int]:
    """Who is left of a ./dev and of all it has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, leader = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(leader) == process.pid and state != "Z":
                found.append(int(entry.name))
    return found


def ending(process: subprocess.Popen[str]) -> Ending:
    out, err = process.communicate()
    return Ending(process.returncode, out, err.splitlines())


def system_python() -> Path:
    """The distribution's Python where it is new enough, as every user may run it; else ours."""
    probe = "import sys; sys.exit(sys.version_info < (3, 11))"
    debian = Path("/usr/bin/python3")
    if debian.exists() and subprocess.run([debian, "-c", probe], check=False).returncode == 0:
        return debian
    return Path(str(getattr(sys, "_base_executable", sys.executable)))


def pip_at_hand() -> bool:
    """Whether a virtualenv gets its pip without a network on this machine."""
    found = subprocess.run([system_python(), "-c", "import ensurepip"], capture_output=True, check=False)
    return found.returncode == 0 or any(Path("/usr/share/python-wheels").glob("pip-*.whl"))


@contextmanager
def read_only(tree: Path) -> Iterator[None]:
    """The tree as somebody else's: an ordinary user may look, not write."""
    tree.chmod(0o555)
    try:
        yield
    finally:
        tree.chmod(0o755)
