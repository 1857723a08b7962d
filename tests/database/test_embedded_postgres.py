"""A Postgres of our own starts under any account, survives what it should, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from replicator.demo import account
from replicator.demo.account import Account, account_for
from replicator.demo.binaries import WHEEL, Binaries, find_binaries, for_the_demo
from replicator.demo.postgres import Server
from replicator.errors import ConfigError, Unavailable
from tests.fixtures.children import ROOT
from tests.fixtures.servers import Found, new_server

LINUX = sys.platform == "linux"
WATCHES_STRANGERS = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="watches processes that are not its children"
)
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run Postgres as somebody else")
#: Every way in which a server can be started by who runs these tests. A copy is started like the original.
WAYS: list[Callable[[Binaries, Path], Account | None]] = [account_for]
if os.geteuid() == 0:
    WAYS = [account.dropped, account.mapped]


@pytest.fixture(scope="module")
def binaries(pg: Found) -> Binaries:
    if pg.binaries is None:
        pytest.skip("the tests run on a server that was given")
    return pg.binaries


@pytest.fixture(scope="module")
def shared(binaries: Binaries) -> Iterator[Server]:
    with new_server(binaries, {}) as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Server:
    """Running, whatever an earlier test did to it."""
    shared.start()
    return shared


def query(dsn: str, text: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(text.encode())
        row = cursor.fetchone() if cursor.description else None
    return row and row[0]


def shared_memory() -> set[str]:
    """The segments there are, by their ids, and the files of dynamic ones."""
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:] if LINUX else []
    files = Path("/dev/shm").glob("PostgreSQL.*") if LINUX else []
    return {line.split()[1] for line in lines} | {file.name for file in files}


def segment(server: Server) -> str:
    """The shared memory of a running server, by its id."""
    return (server.data / "postmaster.pid").read_text().splitlines()[6].split()[1]


def alive(pid: int) -> bool:
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


# ── Its life ─────────────────────────────────────────────────────────────────────────────────────


def test_it_runs_with_logical_decoding_and_leaves_nothing_behind(binaries: Binaries) -> None:
    with new_server(binaries, {}) as server:
        assert query(server.dsn(), "SHOW wal_level") == "logical"
        assert query(server.dsn(), "SHOW server_encoding") == "UTF8"
        assert query(server.dsn(), "SHOW timezone") == "UTC"
        assert query(server.dsn(), "SHOW fsync") == "off"
        version = query(server.dsn(), "SHOW server_version_num")
        assert str(version).startswith(str(binaries.version))
        pid, used = server.pid, segment(server)
        assert used in shared_memory() or not LINUX
    assert not server.directory.exists()
    assert not alive(pid)
    assert used not in shared_memory()


def test_settings_reach_the_server_and_alter_system_still_works(binaries: Binaries) -> None:
    given = {"wal_level": "replica", "wal_sender_timeout": "7s", "application_name": "it's \\ me"}
    with new_server(binaries, given) as server:
        assert query(server.dsn(), "SHOW wal_level") == "replica"
        assert query(server.dsn(), "SHOW wal_sender_timeout") == "7s"
        query(server.dsn(), "ALTER SYSTEM SET wal_level = logical")
        server.restart()
        assert query(server.dsn(), "SHOW wal_level") == "logical"
        server.settings["wal_sender_timeout"] = "9s"
        server.restart()
        assert query(server.dsn(), "SHOW wal_sender_timeout") == "9s"


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_a_restart_keeps_data_and_address(server: Server, mode: str) -> None:
    dsn = server.dsn()
    query(dsn, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 1 AS n")
    query(dsn, "CHECKPOINT")
    server.stop(mode)  # type: ignore[arg-type]  # the parameter is one of the modes
    assert not server.running
    with pytest.raises(Unavailable, match="does not run"):
        print(server.pid)
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(dsn)
    server.start()
    assert query(dsn, "SELECT n FROM kept") == 1


@WATCHES_STRANGERS
def test_kill_ends_even_busy_backends_and_what_was_committed_survives(server: Server) -> None:
    dsn = server.dsn()
    query(dsn, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 1 AS n")
    connection = psycopg.connect(dsn, autocommit=True)
    backend, postmaster = os.pidfd_open(connection.info.backend_pid), server.pid

    def work() -> None:
        with pytest.raises(psycopg.OperationalError):
            connection.execute("DO 'BEGIN LOOP END LOOP; END'")

    worker = threading.Thread(target=work)
    worker.start()
    busy = f"SELECT 1 FROM pg_stat_activity WHERE pid = {connection.info.backend_pid} AND state = 'active'"
    while query(dsn, busy) is None:
        pass
    server.kill()
    assert (alive(postmaster), server.running) == (False, False)
    assert select.select([backend], [], [], 30)[0], "left alone, this backend would work for ever"
    os.close(backend)
    worker.join()
    connection.close()
    server.start()
    assert query(dsn, "SELECT n FROM kept") == 1


def test_a_killed_server_leaves_no_memory_behind(binaries: Binaries) -> None:
    with new_server(binaries, {}) as server:
        used = segment(server)
        server.kill()
    assert used not in shared_memory()
    assert not server.directory.exists()


def test_it_notices_that_its_postmaster_was_killed_by_somebody(server: Server) -> None:
    with psycopg.connect(server.dsn()) as connection:
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            while True:  # the backend notices, too, but may answer once more
                connection.execute("SELECT 1")
    server.stop("fast")
    assert not server.running
    server.start()
    assert query(server.dsn(), "SELECT 1") == 1


def test_a_smart_stop_waits_for_clients_and_says_so(server: Server) -> None:
    with psycopg.connect(server.dsn()):
        with pytest.raises(Unavailable, match=r"did not stop \(smart\) within 0.1 s"):
            server.stop("smart", within_s=0.1)
        assert server.running
    server.stop("fast")


def test_what_is_kept_was_stopped_properly(binaries: Binaries, place: Path) -> None:
    with Server(binaries, directory=place / "kept", keep=True) as server:
        query(server.dsn(), "SELECT 1")
    assert "received fast shutdown request" in server.log.read_text()
    assert (server.data / "PG_VERSION").read_text().strip() == str(binaries.version)
    assert not (server.data / "postmaster.pid").exists()
    assert (server.directory / "password").stat().st_mode & 0o077 == 0


def test_what_is_kept_is_gone_on_with_and_never_thrown_away(binaries: Binaries, place: Path) -> None:
    folder = place / "kept"

    def refused(why: str, *, keep: bool) -> None:
        with pytest.raises(ConfigError, match=why), Server(binaries, directory=folder, keep=keep):
            pass

    with Server(binaries, directory=folder, keep=True) as server:
        query(server.dsn(), "CREATE TABLE kept AS SELECT 1 AS n")
        refused(f"runs in {folder} already", keep=True)
        assert query(server.dsn(), "SELECT n FROM kept") == 1
    with Server(binaries, directory=folder, keep=True) as server:
        assert query(server.dsn(), "SELECT n FROM kept") == 1
    refused("is not empty", keep=False)
    (folder / "data" / "PG_VERSION").write_text("9\n")
    refused("was made by Postgres 9", keep=True)
    assert (folder / "data" / "base").is_dir()


def test_two_servers_run_side_by_side(server: Server, binaries: Binaries) -> None:
    with new_server(binaries, {}) as other:
        query(other.dsn(), "CREATE DATABASE only_here")
        there = "SELECT count(*) FROM pg_database WHERE datname = 'only_here'"
        assert (query(server.dsn(), there), query(other.dsn(), there)) == (0, 1)
        system = "SELECT system_identifier FROM pg_control_system()"
        assert query(server.dsn(), system) != query(other.dsn(), system)


# ── Where it is ──────────────────────────────────────────────────────────────────────────────────


def test_tcp_asks_for_the_password_and_the_socket_does_not(server: Server) -> None:
    assert query(server.dsn(host=server.socket_host, password=""), "SELECT 1") == 1
    for wrong in ("", "wrong"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.dsn(password=wrong))


def test_a_dsn_can_name_any_database_and_user(server: Server) -> None:
    query(server.dsn(), "CREATE ROLE \"o'hara @ home\" LOGIN PASSWORD 'p/w:%'")
    query(server.dsn(), 'CREATE DATABASE "my / clinic?"')
    dsn = server.dsn("my / clinic?", user="o'hara @ home", password="p/w:%", application_name="a b")
    asked = "SELECT concat_ws('|', current_database(), current_user, current_setting('application_name'))"
    assert query(dsn, asked) == "my / clinic?|o'hara @ home|a b"
    assert conninfo_to_dict(dsn)["host"] == "127.0.0.1"


def test_a_folder_with_a_long_name_means_tcp_only(binaries: Binaries, place: Path) -> None:
    with Server(binaries, directory=place / ("long" * 30)) as server:
        assert server.socket_host == "127.0.0.1"
        assert query(server.dsn(host=server.socket_host), "SELECT 1") == 1


# ── What can go wrong ────────────────────────────────────────────────────────────────────────────


def test_a_server_that_ends_as_it_starts_is_an_error_with_its_log(binaries: Binaries) -> None:
    with pytest.raises(Unavailable, match="ended with code 1 as it started") as caught:
        with new_server(binaries, {"wal_level": "much"}) as server:
            pass
    assert 'invalid value for parameter "wal_level": "much"' in caught.value.hint
    server = new_server(binaries, {"wal_level": "much"})
    with pytest.raises(Unavailable):
        server.start()
    server.settings["wal_level"] = "logical"
    server.start()
    server.close()
    assert not server.directory.exists()


def test_a_failed_initdb_is_an_error_with_its_log(binaries: Binaries) -> None:
    server = new_server(binaries, {})
    server.user = "pg_reserved"
    with pytest.raises(Unavailable, match="initdb ended with code 1") as caught:
        server.start()
    assert 'superuser name "pg_reserved" is disallowed' in caught.value.hint
    server.close()
    assert not server.directory.exists()


def test_a_taken_port_is_named(binaries: Binaries) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} .*in use") as caught:
            Server(binaries, port=port).start()
    assert "another port" in caught.value.hint


def test_a_folder_with_something_in_it_is_left_alone(binaries: Binaries, place: Path) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "letter").write_text("dear")
    server = Server(binaries, directory=place / "mine")
    with pytest.raises(ConfigError, match="is not empty"):
        server.start()
    server.close()
    assert (place / "mine" / "letter").read_text() == "dear"


# ── Under whose account ──────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Binaries:
    """The wheel where nobody but root can read it, as under /root."""
    found = [one for one in find_binaries(os.environ) if one.origin == WHEEL]
    package = found[0].bin.parents[1]
    hidden = tmp_path_factory.mktemp("site-packages")
    hidden.chmod(0o700)
    shutil.copytree(found[0].bin.parent, hidden / package.name / found[0].bin.parent.name, symlinks=True)
    libraries = f"{package.name}.libs"
    shutil.copytree(package.with_name(libraries), hidden / libraries, symlinks=True)
    folder = hidden / found[0].bin.relative_to(package.parent)
    return Binaries(folder, found[0].version, found[0].release, WHEEL)


@ROOT_ONLY
def test_root_becomes_somebody_else_where_that_can_read_everything(place: Path) -> None:
    readable = for_the_demo(os.environ)
    found = account_for(readable, place)
    if account.dropped(readable, place) is None:
        pytest.skip("this checkout's own binaries cannot be read by anybody else")
    assert found.user
    assert found.through == ()


@ROOT_ONLY
def test_root_carries_another_number_where_only_root_can_read(private: Binaries, place: Path) -> None:
    assert account.dropped(private, place) is None
    if account.mapped(private, place) is None:
        pytest.skip("user namespaces are forbidden here")
    assert account_for(private, place).through[0].endswith("unshare")
    with Server(private, directory=place / "server") as server:
        assert query(server.dsn(), "SELECT 1") == 1
        server.restart()
        server.kill()
        server.start()
        assert server.data.stat().st_uid == 0
    assert not server.directory.exists()


@ROOT_ONLY
def test_root_copies_binaries_that_only_root_can_read(private: Binaries, place: Path) -> None:
    place.chmod(0o755)
    found = account.copied(private, place, place)
    assert found is not None and found.user
    again = account.copied(private, place, place)
    assert again == found
    assert len(list(place.iterdir())) == 1
    with tempfile.TemporaryDirectory() as other:
        Path(other).chmod(0o755)
        with Server(private, directory=Path(other) / "server", account=found) as server:
            assert query(server.dsn(), "SELECT 1") == 1
            assert server.data.stat().st_uid == found.user


@ROOT_ONLY
def test_a_copy_that_others_may_change_is_refused(private: Binaries, place: Path) -> None:
    assert account.copied(private, place, place)
    copy = next(place.iterdir())
    copy.chmod(0o777)
    with pytest.raises(ConfigError, match="somebody else may write to it"):
        account.copied(private, place, place)


@ROOT_ONLY
def test_data_that_nobody_else_can_reach_is_kept_by_root_itself(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(0o700)
    readable = for_the_demo(os.environ)
    assert account.dropped(readable, hidden) is None
    if account.mapped(readable, hidden) is None:
        pytest.skip("user namespaces are forbidden here")
    with Server(readable, directory=hidden / "server") as server:
        assert query(server.dsn(), "SELECT 1") == 1


# ── With its parent ──────────────────────────────────────────────────────────────────────────────


class Parent:
    """Another process with a Postgres of its own."""

    def __init__(
        self, account: Account, directory: Path, *, keep: bool = False, in_initdb: bool = False
    ) -> None:
        binaries = account.binaries
        named = [str(binaries.bin), binaries.version, binaries.release, binaries.origin]
        orders = {"binaries": named, "directory": str(directory), "keep": keep, "in_initdb": in_initdb}
        orders |= {"user": account.user, "group": account.group, "through": account.through}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.database.kept", json.dumps(orders)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.pids: list[int] = json.loads(self.process.stdout.readline())
        self._watched = [os.pidfd_open(pid) for pid in self.pids]

    def kill(self) -> None:
        """Kill it, and wait until guard and postmaster have ended, each by itself."""
        self.process.kill()
        with self.process:
            pass
        for watched in self._watched:
            ended = select.select([watched], [], [], 90)[0]
            os.close(watched)
            assert ended, "a process outlived its killed parent"


@WATCHES_STRANGERS
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_killed_parent_takes_its_server_along(
    binaries: Binaries, place: Path, way: Callable[[Binaries, Path], Account | None]
) -> None:
    found = way(binaries, place)
    if found is None:
        pytest.skip(f"accounts cannot be {way.__name__} here")
    parent = Parent(found, place / "server")
    lock = (place / "server" / "data" / "postmaster.pid").read_text().splitlines()
    assert int(lock[0]) == parent.pids[1]
    parent.kill()
    assert not (place / "server").exists()
    assert lock[6].split()[1] not in shared_memory()


@WATCHES_STRANGERS
def test_a_killed_parent_takes_its_initdb_along(binaries: Binaries, place: Path) -> None:
    parent = Parent(account_for(binaries, place), place / "server", in_initdb=True)
    parent.kill()
    assert not (place / "server").exists()


@WATCHES_STRANGERS
def test_a_killed_parent_leaves_what_is_to_be_kept_properly_stopped(binaries: Binaries, place: Path) -> None:
    parent = Parent(account_for(binaries, place), place / "server", keep=True)
    parent.kill()
    assert "received fast shutdown request" in (place / "server" / "server.log").read_text()
    assert not (place / "server" / "data" / "postmaster.pid").exists()


@WATCHES_STRANGERS
def test_a_server_stopped_by_hand_does_not_stop_its_guard(binaries: Binaries, place: Path) -> None:
    parent = Parent(account_for(binaries, place), place / "server")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(parent.pids[0], number)
    os.kill(parent.pids[1], signal.SIGKILL)
    parent.kill()
    assert not (place / "server").exists()
