"""A folder in which a server was kept → its password, or why nothing can be started there."""

from __future__ import annotations

import os
from pathlib import Path

from replicator.demo.binaries import Binaries
from replicator.errors import ConfigError

#: Beside the data, for its owner alone.
PASSWORD = "password"


def password_of(folder: Path, binaries: Binaries, *, keep: bool) -> str | None:
    """None where nothing is yet, or not even a folder. What would not be kept is not gone on with."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    version, password = folder / "data" / "PG_VERSION", folder / PASSWORD
    if not keep or not version.is_file() or not password.is_file():
        raise ConfigError(f"{folder} is not empty", "Name a folder that does not exist yet, or is empty.")
    _require_ours(folder, version.read_text().strip(), binaries)
    return password.read_text().strip()


def _require_ours(folder: Path, version: str, binaries: Binaries) -> None:
    if version != str(binaries.version):
        raise ConfigError(
            f"{folder} was made by Postgres {version}, and this is {binaries.version}",
            "Remove that folder, name another, or name the binaries of that version in REPLICATOR_PG_BIN.",
        )
    if (pid := _postmaster(folder)) is not None:
        lock = folder / "data" / "postmaster.pid"
        raise ConfigError(
            f"a server runs in {folder} already, as process {pid}",
            f"End it, or name another folder. If that process is no Postgres, remove {lock}.",
        )


def _postmaster(folder: Path) -> int | None:
    """Who runs there now. What a power cut has left says a number of somebody who has gone."""
    try:
        pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 0)
    except (FileNotFoundError, IndexError, ValueError, ProcessLookupError):
        return None
    except PermissionError:
        pass  # it is there, as somebody else
    return pid
