"""Binaries, and who we are → the account under which they run. Postgres refuses to run as root.

An ordinary user runs them as himself. Root, as in most containers, has three ways, tried in this order:

1. start them as `postgres` or `nobody`, if that account can reach both the binaries and the data;
2. a user namespace in which root carries an ordinary number: nothing has to be readable by anybody
   else, but some containers forbid it;
3. copy the binaries to where anybody may read them, and do as in 1.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from replicator.demo.binaries import Binaries
from replicator.errors import ConfigError

NAMES = ("postgres", "nobody")
#: Survives a reboot, is not under anybody's home, and is there on every Unix.
CACHE = Path("/var/tmp")


@dataclass(frozen=True, slots=True)
class Account:
    """As whom the programs of `binaries` are started, and through which command."""

    binaries: Binaries
    user: int | None = None
    group: int | None = None
    through: tuple[str, ...] = ()

    def argv(self, program: str, *args: str) -> list[str]:
        return [*self.through, str(self.binaries.bin / program), *args]


def account_for(binaries: Binaries, place: Path) -> Account:
    """The first way that works for data kept in `place`."""
    if os.geteuid() != 0:
        return Account(binaries)
    ways: tuple[Callable[[Binaries, Path], Account | None], ...] = (dropped, mapped, copied)
    for way in ways:
        if account := way(binaries, place):
            return account
    raise ConfigError(
        f"Postgres refuses to run as root, and no other account can run {binaries.bin} with data in {place}",
        "Run as an ordinary user; or make both readable to the accounts postgres or nobody; "
        "or allow user namespaces (unshare --map-user).",
    )


def dropped(binaries: Binaries, place: Path) -> Account | None:
    """As an account without privileges."""
    for entry in _unprivileged():
        account = Account(binaries, entry.pw_uid, entry.pw_gid)
        if _works(account, place):
            return account
    return None


def mapped(binaries: Binaries, place: Path) -> Account | None:
    """As ourselves, under another number; one that has a name, because initdb asks for it."""
    unshare = shutil.which("unshare")
    for entry in _unprivileged() if unshare else ():
        numbers = (f"--map-user={entry.pw_uid}", f"--map-group={entry.pw_gid}")
        account = Account(binaries, through=(str(unshare), *numbers, "--"))
        if _works(account, place):
            return account
    return None


def copied(binaries: Binaries, place: Path, cache: Path = CACHE) -> Account | None:
    """As in `dropped`, with a copy of the binaries."""
    return dropped(replace(binaries, bin=_copy(binaries, cache)), place)


def _unprivileged() -> Iterator[pwd.struct_passwd]:
    for name in NAMES:
        try:
            yield pwd.getpwnam(name)
        except KeyError:
            continue


def _works(account: Account, place: Path) -> bool:
    """Whether the account can enter `place` and start the programs: tried, not deduced from modes."""
    script = 'cd "$1" && "$2" --version && exec "$3" --version'
    programs = [str(account.binaries.bin / name) for name in ("initdb", "postgres")]
    try:
        tried = subprocess.run(
            [*account.through, "/bin/sh", "-c", script, "sh", str(place), *programs],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            user=account.user,
            group=account.group,
            extra_groups=None if account.user is None else [],
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0


def _copy(binaries: Binaries, cache: Path) -> Path:
    """A readable copy of the tree around `bin`, made once per source and kept."""
    tree = binaries.bin.parent
    stamp = f"{tree}:{(binaries.bin / 'postgres').stat().st_mtime_ns}"
    name = f"replicator-postgres-{binaries.release}-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    home = cache / name
    if not home.exists():
        _fill(home, tree)
    owner = home.lstat()
    if owner.st_uid != os.geteuid() or owner.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"{home} should be our copy of {tree}, but somebody else may write to it",
            "Remove that folder and try again.",
        )
    return home / tree.parent.name / tree.name / binaries.bin.name


def _fill(home: Path, tree: Path) -> None:
    fresh = Path(tempfile.mkdtemp(prefix=f"{home.name}.", dir=home.parent))
    try:
        shutil.copytree(tree, fresh / tree.parent.name / tree.name, symlinks=True)
        # A wheel keeps its shared libraries beside the package, where the binaries look for them.
        libraries = tree.parent.with_name(f"{tree.parent.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        _open_to_all(fresh)
        os.rename(fresh, home)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        # Somebody may have been quicker, which is as good.
        if not home.exists():
            raise


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if runs else 0o644)
