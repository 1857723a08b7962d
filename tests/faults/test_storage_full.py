"""Storage has no space left: it waits, the source keeps its log, and with space it goes on by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.weather import Weather
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database, MakeDatabase, Server

pytestmark = pytest.mark.faults


@pytest.fixture
def small_disk(own_server: Callable[..., Server]) -> Iterator[tuple[Server, Path]]:
    """A server, and a disk of its own with room for little, which its user may write to."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs to mount a small file system, which only root may")
    server = own_server()
    place = server.directory / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m,mode=0777", "small", place], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    try:
        yield server, place
    finally:
        server.stop("immediate")
        subprocess.run(["umount", place], check=True)


async def test_it_waits_for_space_and_goes_on_by_itself(
    database: Database,
    make_database: MakeDatabase,
    small_disk: tuple[Server, Path],
    tmp_path: Path,
    children: StartChild,
) -> None:
    server, place = small_disk
    storage = make_database(on=server)
    storage.execute(f"CREATE TABLESPACE small LOCATION '{tablespace(server, place)}'")
    clinic = Weather(database, tmp_path, children, storage=storage)
    await clinic.build()
    storage.execute("ALTER TABLE replicator.ops SET TABLESPACE small")
    running = clinic.run()
    clinic.catch_up()
    filler = place / "filler"
    fill(filler)
    op_id = clinic.checkpoint()[0][0]
    database.execute(
        "INSERT INTO vital_signs (patient_id, notes) "
        "SELECT (SELECT id FROM users LIMIT 1), repeat('x', 500) FROM generate_series(1, 5000)"
    )
    committed = database.execute("SELECT pg_current_wal_lsn()")[0][0]
    for n in (1, 3):
        waiting = running.wait_for("waiting", n=n, why=lambda why: "No space left on device" in why)
        assert f":{server.port}" in str(waiting["why"])
        clinic.assert_not_ahead()
    is_before = "SELECT op_id = %s AND lsn < %s::pg_lsn FROM replicator.checkpoints"
    assert storage.execute(is_before, [op_id, committed]) == [(True,)] and running.code is None
    filler.unlink()
    clinic.catch_up()
    clinic.assert_equal()
    clinic.assert_stored_once()


def tablespace(server: Server, place: Path) -> Path:
    """A folder on the small disk that belongs to whom the server runs as."""
    folder = place / "tablespace"
    folder.mkdir(mode=0o700)
    owner = server.data.stat()
    os.chown(folder, owner.st_uid, owner.st_gid)
    return folder


def fill(file: Path) -> None:
    """Write until there is no space left."""
    with file.open("wb", buffering=0) as out:
        try:
            while out.write(bytes(1 << 16)):
                pass
        except OSError:
            return
