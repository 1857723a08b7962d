"""The process is killed inside a transaction of half a million rows: stored once, in little memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.weather import Weather, wait_until
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = [pytest.mark.faults, pytest.mark.migrated]

_ROWS = 500_000
_MEMORY_MB = 200


async def test_half_a_million_rows_are_stored_once_and_in_little_memory(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Weather(database, tmp_path, children)
    await clinic.build()
    killed = clinic.run(is_fresh=True)
    clinic.catch_up()
    database.execute(
        "INSERT INTO vital_signs (patient_id, heart_rate_bpm, notes) "
        "SELECT (array(SELECT id FROM users))[1 + n %% 3], 50 + n %% 100, 'measured at rest' "
        "FROM generate_series(1, %s) AS n",
        [_ROWS],
    )
    # Its size says what is not yet committed, too.
    wait_until(lambda: database.execute("SELECT pg_relation_size('replicator.ops') > 30000000") == [(True,)])
    assert killed.peak_mb < _MEMORY_MB
    assert killed.kill() == -9
    assert killed.count("stored", rows=lambda rows: rows >= _ROWS) == 0
    stored = "SELECT count(*) FROM replicator.ops WHERE object_type = 'vital_signs'"
    assert database.execute(stored) == [(0,)]
    clinic.assert_not_ahead()

    again = clinic.run(is_fresh=True)
    clinic.catch_up()
    assert again.peak_mb < _MEMORY_MB
    clinic.assert_stored_once()
    clinic.assert_not_ahead()
    differing = (
        "SELECT count(*) FROM replicator.history FULL JOIN vital_signs AS v ON object_id = v.id::text "
        "WHERE object_type IS DISTINCT FROM 'users' AND (data::jsonb ->> 'heart_rate_bpm')::integer IS "
        "DISTINCT FROM heart_rate_bpm AND bucket IS DISTINCT FROM '1#user_data[\"' || patient_id || '\"]'"
    )
    assert database.execute(differing) == [(0,)]


async def test_large_rows_of_one_transaction_are_stored_in_little_memory(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    clinic = Weather(database, tmp_path, children)
    await clinic.build()
    running = clinic.run(is_fresh=True)
    clinic.catch_up()
    database.execute(
        "INSERT INTO vital_signs (patient_id, notes) "
        "SELECT (array(SELECT id FROM users))[1 + n % 3], repeat('a note ', 150000) "
        "FROM generate_series(1, 300) AS n"
    )
    clinic.catch_up()
    assert running.peak_mb < _MEMORY_MB
    clinic.assert_stored_once()
