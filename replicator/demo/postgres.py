"""A folder of Postgres binaries → a running server that ends with its parent.

    with Server(for_the_demo(os.environ)) as server:
        psycopg.connect(server.dsn())

The data is made new and, unless it is to be kept, thrown away at the end: when the server is closed, or when
this process ends in any other way, be it by SIGKILL (`guard.py` sees to that). What was kept is gone on with.
Everything a server has is in one folder: `data`, `server.log`, and its socket.

While a server is stopped its port stays ours, so that connection strings outlive a restart.
"""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote, urlencode

import psycopg

from replicator.demo import initdb, kept
from replicator.demo.account import Account, account_for
from replicator.demo.binaries import Binaries, find_binaries, for_the_demo
from replicator.demo.guarded import Guarded
from replicator.demo.port import LOOPBACK, Port
from replicator.errors import Unavailable

__all__ = ["Binaries", "Server", "find_binaries", "for_the_demo"]

Mode = Literal["smart", "fast", "immediate"]
_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

#: What the kernel allows for a socket's path is 107; some systems allow less.
_SOCKET_PATH_MAX = 100

_SETTINGS: initdb.Settings = {
    "listen_addresses": LOOPBACK,
    "wal_level": "logical",
    "max_wal_senders": 64,
    "max_replication_slots": 64,
    "max_connections": 200,
    # In the folder, so that it goes with the folder; shared memory would outlive a killed server.
    "dynamic_shared_memory_type": "mmap",
    "log_destination": "stderr",
    "logging_collector": False,
    "log_line_prefix": "%m [%p] %d ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class Server:
    """One Postgres of our own. Not for several threads at once."""

    def __init__(
        self,
        binaries: Binaries,
        *,
        directory: Path | None = None,
        settings: initdb.Settings | None = None,
        fsync: bool = False,
        keep: bool = False,
        port: int = 0,
        account: Account | None = None,
    ) -> None:
        name = f"replicator-pg{binaries.version}-{secrets.token_hex(4)}"
        self.binaries = binaries
        self.directory = (directory or Path(tempfile.gettempdir()) / name).absolute()
        self.data = self.directory / "data"
        self.log = self.directory / "server.log"
        #: In force from the next start on.
        self.settings: dict[str, str | int | bool] = {**_SETTINGS, "fsync": fsync, **(settings or {})}
        self.keep = keep
        self.user = "postgres"
        self.password = secrets.token_urlsafe(24)
        self._wanted_port = port
        self._port: Port | None = None
        self._account = account
        self._guarded: Guarded | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ── Where it is ──────────────────────────────────────────────────────────────────────────────

    @property
    def version(self) -> int:
        return self.binaries.version

    @property
    def port(self) -> int:
        if self._port is None:
            raise Unavailable(f"the server in {self.directory} has not been started")
        return self._port.number

    @property
    def socket_host(self) -> str:
        """The `host` of a connection without TCP and password; TCP's, where the folder's name is too long."""
        path = self.directory / f".s.PGSQL.{self.port}.lock"
        return str(self.directory) if len(os.fsencode(path)) <= _SOCKET_PATH_MAX else LOOPBACK

    def dsn(self, database: str = "postgres", *, user: str | None = None, **params: str | int) -> str:
        """A connection string in URI form; `params` are libpq's, and override."""
        password = self.password if user in (None, self.user) else ""
        parts = {"password": password, "host": LOOPBACK, "port": str(self.port), "sslmode": "disable"}
        parts |= {name: str(value) for name, value in params.items()}
        secret = parts.pop("password")
        who = quote(user or self.user, safe="") + (f":{quote(secret, safe='')}" if secret else "")
        where = f"{quote(parts.pop('host'), safe='')}:{parts.pop('port')}"
        return f"postgresql://{who}@{where}/{quote(database, safe='')}?{urlencode(parts, quote_via=quote)}"

    def log_tail(self, lines: int = 20) -> str:
        return initdb.tail(self.log, lines)

    # ── Whether it runs ──────────────────────────────────────────────────────────────────────────

    @property
    def pid(self) -> int:
        """The postmaster's; raises if it does not run."""
        if not self.running or self._guarded is None or self._guarded.pid is None:
            raise Unavailable(f"the server in {self.directory} does not run", self.log_tail())
        return self._guarded.pid

    @property
    def running(self) -> bool:
        """Whether the postmaster or anything it started is still there."""
        guarded = self._guarded
        return guarded is not None and guarded.pid is not None and guarded.exited(0) is None

    def start(self, *, within_s: float = 60) -> None:
        """Run, and accept connections when this returns. The first time, make the data, too."""
        if self.running:
            return
        port = self._port = self._port or Port(self._wanted_port)
        try:
            guarded = self._guarded = self._guarded or self._make()
            for _ in range(5):
                if self._try_start(guarded, port, within_s):
                    return
                port.change()
        except OSError as error:
            raise Unavailable(
                f"the server in {self.directory} cannot be made: {error}",
                "Name a folder that can be written, with some space in it, in TMPDIR.",
            ) from error
        raise Unavailable(f"no port was left free for the server in {self.directory}", self.log_tail())

    def stop(self, mode: Mode = "fast", *, within_s: float = 60) -> None:
        """Stop as `pg_ctl stop -m` does, and wait until every process of it is gone."""
        if self.running and self._guarded is not None:
            self._guarded.signal(_SIGNALS[mode])
            self._await_end(self._guarded, within_s, f"stop ({mode})")

    def restart(self, mode: Mode = "fast") -> None:
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """SIGKILL for all its processes, as in a power cut; start() recovers what was on disk."""
        if self.running and self._guarded is not None:
            self._kill(self._guarded)

    def close(self) -> None:
        """Stop, and leave nothing behind but what is to be kept."""
        try:
            if self._guarded is not None:
                self._guarded.close()
        finally:
            self._guarded = None
            if self._port is not None:
                self._port.release()
            self._port = None

    # ── How ──────────────────────────────────────────────────────────────────────────────────────

    def _make(self) -> Guarded:
        """The folder, and a cluster in it: an empty one, or that of before."""
        before = kept.password_of(self.directory, self.binaries, keep=self.keep)
        place = next(folder for folder in self.directory.parents if folder.is_dir())
        account = self._account or account_for(self.binaries, place)
        guarded = Guarded(self.directory, account, keep=self.keep, again=before is not None)
        if before is not None:
            self.password = before
            return guarded
        try:
            sync = bool(self.settings["fsync"])
            initdb.make_data(guarded, self.data, self.log, user=self.user, password=self.password, sync=sync)
            if not self.keep:
                (self.directory / kept.PASSWORD).unlink()
        except BaseException:
            guarded.close()
            raise
        return guarded

    def _try_start(self, guarded: Guarded, port: Port, within_s: float) -> bool:
        """Whether it runs; no, if somebody else has the port."""
        folder = self.socket_host if self.socket_host != LOOPBACK else ""
        place: initdb.Settings = {"port": port.number, "unix_socket_directories": folder}
        initdb.write_settings(self.data, {**self.settings, **place})
        logged = self.log.stat().st_size
        port.hand_over()
        guarded.run(guarded.account.argv("postgres", "-D", str(self.data)), self.log, initdb.environment())
        code, reason = self._await_ready(guarded, within_s)
        if reason is None:
            return True
        if code is None:
            self._kill(guarded)
            what = f"did not accept connections within {within_s:g} s: {reason}"
        elif not port.fixed and b"Address already in use" in self.log.read_bytes()[logged:]:
            return False
        else:
            what = f"ended with code {code} as it started"
        raise Unavailable(f"Postgres {self.binaries.release} {what}", initdb.advice(self.log))

    def _await_ready(self, guarded: Guarded, within_s: float) -> tuple[int | None, str | None]:
        """How it ended, if it did; and why it cannot be reached, if so."""
        deadline = time.monotonic() + within_s
        reason = "no answer"
        while time.monotonic() < deadline:
            code = guarded.exited(within_s=0.01)
            if code is not None:
                return code, "it ended"
            try:
                psycopg.connect(self.dsn(), connect_timeout=5).close()
                return None, None
            except psycopg.OperationalError as error:
                reason = str(error)
        return None, reason

    def _kill(self, guarded: Guarded) -> None:
        guarded.kill()
        self._await_end(guarded, 60, "end when killed")

    def _await_end(self, guarded: Guarded, within_s: float, what: str) -> None:
        if guarded.exited(within_s) is None:
            raise Unavailable(
                f"the server in {self.directory} did not {what} within {within_s:g} s", self.log_tail()
            )
