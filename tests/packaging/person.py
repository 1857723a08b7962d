"""What a page says → typed into a shell, by somebody whose `/` is a folder."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.fixtures.children import Child, StartChild
from tests.packaging.readme import ROOT, commands, statements

#: What a machine is asked for, and no test may ask of this one.
OF_THE_MACHINE = {"apt", "git", "journalctl", "npm", "systemctl"}
#: What goes on until it is ended.
GOES_ON = {"run", "tail"}
_SOURCE, _OPT, _ETC = "/usr/local/src/replicator", "/opt/replicator", "/etc/"


class Person:
    """Types, answers what is asked, and remembers what was exported and where they are."""

    def __init__(self, folder: Path, children: StartChild, path: str, says: Mapping[str, str]) -> None:
        self.folder, self._children = folder, children
        # It is no part of the package, and not on every machine.
        self.leaves_out = OF_THE_MACHINE if shutil.which("curl", path=path) else OF_THE_MACHINE | {"curl"}
        #: What the page says, and what is meant here.
        self.says = {_ETC: f"{folder}/etc/", _OPT: f"{folder}/opt/replicator", _SOURCE: str(ROOT), **says}
        self.at = folder
        # As bare as a login: what a test has in its environment is not what makes it work.
        self.env = {"PATH": path, "HOME": str(folder), "LC_ALL": "C.UTF-8"}
        for place in ("opt/replicator/bin", "etc/systemd/system"):
            (folder / place).mkdir(parents=True)
        program = shutil.which("replicator", path=str(Path(sys.executable).parent))
        assert program is not None, "the package is installed beside the interpreter"
        (folder / "opt/replicator/bin/replicator").symlink_to(program)

    def means(self, text: str) -> str:
        for said, meant in self.says.items():
            text = text.replace(said, meant)
        return text

    def place(self, path: str) -> str:
        """Where a file is that was named by the page, or by what they typed."""
        return path if path.startswith(str(self.folder)) else self.means(path)

    async def types(self, text: str, answers: Mapping[str, str] | None = None) -> dict[str, str]:
        """Each statement, and what it printed; what goes on until it is ended is left to `starts`."""
        printed = {}
        for statement in statements(text):
            first = next(commands(statement))
            if first[0] in self.leaves_out or (first[0] == "replicator" and first[1] in GOES_ON):
                continue
            answer = next((said for name, said in (answers or {}).items() if name in statement), "")
            printed[statement] = await asyncio.to_thread(self._type, self.means(statement), answer)
        return printed

    def starts(self, *argv: str) -> Child:
        """What goes on, with what was exported."""
        return self._children(*argv, env={name: self.env[name] for name in self.env if name != "PATH"})

    def _type(self, statement: str, answer: str) -> str:
        # psql forgets what a terminal was sent before it asks, and takes a pipe as well; ours ask only there.
        keyboard, terminal = os.openpty()
        told = self.folder / "told"
        asks = statement.startswith("replicator ")
        try:
            os.write(keyboard, answer.encode() if asks else b"")
            done = subprocess.run(
                ["sh", "-euc", f"{statement}\n{{ env -0; pwd; }} > {told}"],
                **({"stdin": terminal} if asks else {"input": answer}),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.at,
                # Or the password would be asked of the terminal of whoever runs the test.
                start_new_session=True,
                timeout=120,
                text=True,
            )
        finally:
            os.close(keyboard)
            os.close(terminal)
        assert done.returncode == 0, f"{statement}\nended with {done.returncode}:\n{done.stdout}"
        *exported, where = told.read_text().split("\0")
        self.env = dict(one.split("=", 1) for one in exported)
        self.at = Path(where.strip())
        return done.stdout


def unit_keys(folder: Path) -> dict[str, list[str]]:
    """What systemd reads of the unit and of what was laid beside it."""
    unit = folder / "etc/systemd/system/replicator.service"
    found: dict[str, list[str]] = {}
    for file in (unit, *sorted(unit.with_name(f"{unit.name}.d").glob("*.conf"))):
        for line in file.read_text().splitlines():
            name, is_key, value = line.partition("=")
            if is_key and not line.startswith("#"):
                found.setdefault(name, []).append(value)
    return found


def service(person: Person, children: StartChild) -> Child:
    """The unit, started as systemd would: with its credentials and variables, and nothing of the person's."""
    keys = unit_keys(person.folder)
    credentials = person.folder / "credentials"
    shutil.rmtree(credentials, ignore_errors=True)
    credentials.mkdir(mode=0o700)
    for one in keys["LoadCredential"]:
        name, _, path = one.partition(":")
        shutil.copy(person.place(path), credentials / name)
    env = {"CREDENTIALS_DIRECTORY": str(credentials)}
    for path in keys.get("EnvironmentFile", []):
        env |= dict(line.split("=", 1) for line in Path(person.place(path)).read_text().splitlines())
    (command,) = keys["ExecStart"]
    program, *argv = person.means(command).split()
    assert Path(program).exists()
    return children(*argv, env=env)
