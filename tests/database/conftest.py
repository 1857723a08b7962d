"""A database → the clinic whose queue tests work off, and connections to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from replicator.database import Connect, pooled
from tests.database.queued import Clinic, prepared
from tests.fixtures.postgres import Database


@pytest.fixture
async def clinic(database: Database) -> Clinic:
    return await prepared(database)


@pytest.fixture
async def connect(database: Database, clinic: Clinic) -> AsyncIterator[Connect]:
    async with pooled(database.dsn, "test", schema="replicator") as connect:
        yield connect
