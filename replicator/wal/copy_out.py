"""A COPY … TO STDOUT → the lines it brings, taken as they lie in the driver's hands.

The driver gives out one line for each turn of the event loop, which costs more than everything else that is
done with a row that is copied. Here a turn takes whatever has arrived.
"""

from __future__ import annotations

from collections.abc import Callable

from psycopg import pq, sql
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.waiting import Wait

from replicator.database import Connection

#: After so much, others have their turn.
_TURN_BYTES = 1 << 20


async def copy_out(connection: Connection, query: sql.Composed, take: Callable[[bytes], object]) -> None:
    """Have each line taken, without waiting in between."""
    said = query.as_bytes(connection)
    async with connection.lock:
        await connection.wait(_lines(connection.pgconn, said, take))


def _lines(pgconn: pq.abc.PGconn, query: bytes, take: Callable[[bytes], object]) -> PQGen[None]:
    pgconn.send_query(query)
    while pgconn.flush():
        yield Wait.W
    failed: pq.abc.PGresult | None = None
    while (result := (yield from _result(pgconn))) is not None:
        if result.status == pq.ExecStatus.COPY_OUT:
            yield from _drain(pgconn, take)
        elif result.status != pq.ExecStatus.COMMAND_OK:
            failed = failed or result
    if failed is not None:
        raise error_from_result(failed)


def _result(pgconn: pq.abc.PGconn) -> PQGen[pq.abc.PGresult | None]:
    while pgconn.is_busy():
        yield Wait.R
        pgconn.consume_input()
    return pgconn.get_result()


def _drain(pgconn: pq.abc.PGconn, take: Callable[[bytes], object]) -> PQGen[None]:
    size, get = 0, pgconn.get_copy_data
    while True:
        length, data = get(1)
        if length > 0:
            take(bytes(data))
            size += length
        elif length == 0:
            yield Wait.R
            pgconn.consume_input()
        else:
            return
        if size >= _TURN_BYTES:
            size = 0
            yield Wait.W  # at once, but others come first
