"""The SDK for browsers, in a browser, from another origin than the one that serves it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fixtures.node import Project
from tests.real_client.channels import Browser
from tests.real_client.clinic import ServedClinic
from tests.real_client.phones import Phones, watched

pytestmark = [pytest.mark.real_client, pytest.mark.migrated]

GIVEN = "REPLICATOR_TEST_BROWSER"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_HERE = Path(__file__).parent
_PAGE = _HERE / "browser"


@pytest.fixture(scope="session")
def browser() -> Path:
    """One that is made of Chromium."""
    names = [os.environ[GIVEN]] if GIVEN in os.environ else _NAMES
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is here; on Debian: apt-get install chromium")
    return Path(found)


@pytest.fixture
def phones(browser: Path, node_project: Callable[[Path], Project], tmp_path: Path) -> Iterator[Phones]:
    """Phones that are a page, bundled as an app would be."""
    project = node_project(_PAGE)
    folder = project.lay_out(tmp_path / "page", _HERE, _PAGE)
    (esbuild,) = project.modules.glob("@esbuild/*/bin/esbuild")
    bundle: list[str | Path] = [
        esbuild,
        "page.mjs",
        "--bundle",
        "--format=esm",
        "--outfile=page.js",
        "--log-level=error",
    ]
    subprocess.run(bundle, cwd=folder, check=True, timeout=240)
    workers = project.modules / "@powersync" / "web" / "dist" / "worker"
    pages = {"": folder, "/worker": workers, "/worker/assets": workers / "assets"}
    yield from watched(Phones(Browser(browser, pages, tmp_path / "profile")))


@pytest.mark.parametrize("transport", ["http", "websocket"], indirect=True)
async def test_a_page_syncs_hears_of_changes_and_sends_its_own(clinic: ServedClinic, transport: str) -> None:
    await clinic.build(patients=2)
    ann, _ = clinic.people()
    clinic.measure("at first", times=20)
    clinic.start()
    page = clinic.phone(ann)
    page.connect(transport)
    page.until_synced()
    clinic.assert_holds_record(page, ann)

    clinic.measure("later")
    page.until("SELECT count(*) FROM vital_signs WHERE notes = 'later'", [[1]])
    page.execute("UPDATE vital_signs SET heart_rate_bpm = 61 WHERE notes = 'later'")
    page.until("SELECT count(*) FROM ps_crud", [[0]])
    query = "SELECT heart_rate_bpm FROM vital_signs WHERE notes = 'later' AND patient_id = %s"
    assert clinic.database.execute(query, [ann]) == [(61,)]
    clinic.database.execute("DELETE FROM vital_signs WHERE notes = 'at first'")
    page.until("SELECT notes, heart_rate_bpm FROM vital_signs", [["later", 61]])
    clinic.become_equal_on(page)
