"""A database of the test's own → a clinic that is served, and phones to sync it to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.children import StartChild
from tests.fixtures.node import NODE, Project, node_project
from tests.fixtures.postgres import Database
from tests.real_client.channels import NodeProcess
from tests.real_client.clinic import ServedClinic
from tests.real_client.phones import Phones, watched
from tests.real_client.slow import SlowLine

__all__ = ["node_project"]

HERE = Path(__file__).parent
TRANSPORTS = ("http", "ndjson", "websocket")


@pytest.fixture
def phones(node_project: Callable[[Path], Project], tmp_path: Path) -> Iterator[Phones]:
    """Phones, none of which may have seen a wrong checksum when the test is done."""
    project = node_project(HERE)
    if project.node is None:
        pytest.skip(f"this machine has no Node {NODE} or newer, and no package brings one for it")
    folder = project.lay_out(tmp_path / "phones", HERE)
    yield from watched(Phones(NodeProcess(project.node, folder / "phone.mjs"), folder))


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """The way lines come: BSON over HTTP, which SDKs ask for; JSON over HTTP; or a WebSocket."""
    return str(request.param)


@pytest.fixture
def make_clinic(
    database: Database, tmp_path: Path, children: StartChild, phones: Phones
) -> Callable[..., ServedClinic]:
    """Clinics, on this test's database, with rules and keys of `sync` as wanted."""

    def make(**options: Any) -> ServedClinic:
        return ServedClinic(database, tmp_path, children, phones, **options)

    return make


@pytest.fixture
def clinic(make_clinic: Callable[..., ServedClinic]) -> ServedClinic:
    """The demo's clinic, by the rules that come with it."""
    return make_clinic()


@pytest.fixture
def line() -> Iterator[Callable[[ServedClinic], SlowLine]]:
    """Puts a line before a clinic that is served, over which its phones then connect."""
    with ExitStack() as stack:

        def put(clinic: ServedClinic) -> SlowLine:
            slow = SlowLine(clinic.port)
            stack.callback(slow.close)
            clinic.endpoint = f"http://{slow.address}"
            return slow

        yield put
