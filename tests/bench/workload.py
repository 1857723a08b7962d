"""How many rows → the one workload of all measurements, written into a source database.

1,000 users and their vital signs: nine columns, about 335 bytes as JSON; every row belongs to one bucket,
that of its user.
"""

from __future__ import annotations

from typing import Literal

import psycopg

PUBLICATION = "bench"
TABLE = "vital_signs"
USERS = 1000
RULES = """\
bucket_definitions:
  user_data:
    parameters: SELECT request.user_id() AS user_id
    data:
      - SELECT * FROM vital_signs WHERE patient_id = bucket.user_id
"""

Identity = Literal["full", "default"]

CREATE_TABLE = """
CREATE TABLE vital_signs (
    id                        uuid PRIMARY KEY,
    patient_id                uuid NOT NULL,
    temperature_celsius       numeric(4, 1),
    blood_pressure_systolic   integer,
    blood_pressure_diastolic  integer,
    heart_rate_bpm            integer,
    notes                     text,
    recorded_at               timestamptz NOT NULL,
    created_at                timestamptz NOT NULL
)"""
#: A row's id says which row it is, so that one can ask whether the last one has arrived.
_ROW_ID = "md5('row ' || {number})::uuid"
#: Each row of another user than the one before, and each user as often as any.
_ROWS = f"""
INSERT INTO vital_signs
SELECT {_ROW_ID.format(number="n")}, md5('user ' || n::bigint * 48271 % {{users}})::uuid,
       36 + n % 30 / 10.0, 100 + n % 50,
       60 + n % 30, 55 + n % 60, rpad('measured at rest, number ' || n || ' ', 60, 'sitting '),
       timestamptz '2026-01-01' + n * interval '1 s', timestamptz '2026-01-01' + n * interval '1.000123 s'
FROM generate_series(at + 1, at + {{step}}) AS n"""


def prepare(source: psycopg.Connection, identity: Identity) -> None:
    """An empty table, published."""
    source.execute(CREATE_TABLE.encode())
    source.execute(f"ALTER TABLE {TABLE} REPLICA IDENTITY {identity}".encode())
    source.execute(f"CREATE PUBLICATION {PUBLICATION} FOR TABLE {TABLE}".encode())


def write(source: psycopg.Connection, rows: int, *, per_transaction: int, users: int = USERS) -> None:
    """So many rows, so many in each transaction; the log is on disk when this returns."""
    # The server writes by itself, and does not wait for the disk after each transaction.
    source.execute("SET synchronous_commit = off")
    source.execute(
        f"""
        DO $$
        DECLARE at integer;
        BEGIN
            FOR at IN SELECT * FROM generate_series(0, {rows - per_transaction}, {per_transaction}) LOOP
                {_ROWS.format(step=per_transaction, users=users)};
                COMMIT;
            END LOOP;
        END $$""".encode()
    )
    source.execute("CHECKPOINT")


def has_row(connection: psycopg.Connection, number: int) -> bool:
    """Whether the row of this number is there."""
    query = f"SELECT EXISTS (SELECT FROM {TABLE} WHERE id = {_ROW_ID.format(number=number)})"
    found = connection.execute(query.encode()).fetchone()
    return found is not None and bool(found[0])
