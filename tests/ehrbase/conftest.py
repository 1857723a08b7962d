"""Record systems to talk to: `place` is each in turn, `client` a client of it, `someone` an EHR there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from replicator.ehr.client import Anonymous, Basic, Client
from replicator.ehr.sandbox import Sandbox
from tests.ehrbase.records import Patient, Place, patient
from tests.fixtures.ehrbase import ehrbase
from tests.fixtures.postgres import Database

__all__ = ["ehrbase"]


@pytest.fixture
async def sandbox(database: Database) -> AsyncIterator[Sandbox]:
    async with Sandbox(database.owner_dsn) as sandbox:
        yield sandbox


#: The first of these tests waits until the server is fetched and runs.
REAL = pytest.param("ehrbase", marks=[pytest.mark.ehrbase, pytest.mark.timeout(600)])


@pytest.fixture(params=["sandbox", REAL])
def place(request: pytest.FixtureRequest, sandbox: Sandbox) -> Place:
    if request.param == "sandbox":
        return Place("sandbox", sandbox.url)
    found: Place = request.getfixturevalue("ehrbase")
    return found


@pytest.fixture
async def client(place: Place) -> AsyncIterator[Client]:
    auth = Basic(place.user, place.password) if place.user else Anonymous()
    async with Client(place.url, auth=auth) as client:
        yield client


@pytest.fixture
async def someone(client: Client) -> Patient:
    return await patient(client, str(uuid4()))
