"""An empty folder → the data of a new Postgres; settings → its configuration file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from replicator.demo.guarded import Guarded
from replicator.demo.kept import PASSWORD
from replicator.errors import Unavailable

Settings = Mapping[str, str | int | bool]

_ADVICE = {
    "No space left on device": "Free some space, or name a folder with some in TMPDIR.",
    "Address already in use": "Another server has this port: stop it, or name another port.",
    "could not create shared memory segment": "Shared memory is limited here: see kernel.shmmax.",
    "cannot be run as root": "Postgres refuses to run as root: run as an ordinary user.",
}


def make_data(guarded: Guarded, data: Path, log: Path, *, user: str, password: str, sync: bool) -> None:
    """Run initdb: a password for TCP, left in a file; none for the socket, which only its owner reaches."""
    secret = guarded.folder / PASSWORD
    secret.touch(0o600)
    secret.write_text(password)
    account = guarded.account
    if account.user is not None and account.group is not None:
        os.chown(secret, account.user, account.group)
    options = [f"--pgdata={data}", f"--username={user}", f"--pwfile={secret}", "--encoding=UTF8"]
    options += ["--auth-local=trust", "--auth-host=scram-sha-256", "--no-instructions"]
    if not sync:
        options.append("--no-sync")
    for locale in ("C.UTF-8", "C"):
        guarded.run(account.argv("initdb", *options, f"--locale={locale}"), log, environment())
        code = guarded.exited(within_s=120)
        # Not every system has the first locale.
        if code == 0 or "invalid locale" not in tail(log):
            break
    if code != 0:
        how = "did not end" if code is None else f"ended with code {code}"
        raise Unavailable(f"initdb {how}, making {data}", advice(log))


def write_settings(data: Path, settings: Settings) -> None:
    """All settings in a file, rather than as arguments: so ALTER SYSTEM and a reload still work."""
    lines = [f"{name} = {_quoted(value)}\n" for name, value in settings.items()]
    (data / "postgresql.conf").write_text("".join(lines))


def environment() -> dict[str, str]:
    """Nothing of ours reaches the server: PGDATA, PGPORT or TZ would change it."""
    wanted = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {"LC_ALL": "C", "TZ": "UTC"} | {name: os.environ[name] for name in wanted if name in os.environ}


def tail(log: Path, lines: int = 20) -> str:
    """The end of a log; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 400 * lines))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def advice(log: Path) -> str:
    """What to do, as far as the end of a log tells."""
    said = tail(log)
    known = [advice for sign, advice in _ADVICE.items() if sign in said]
    return "\n".join([*known, "Its log ends:", said])


def _quoted(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "'" + str(value).replace("\\", "\\\\").replace("'", "''") + "'"
