"""The bad network is exactly as bad as it was told to be, before a real server."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

import psycopg
import pytest
from psycopg import generators, waiting

from tests.fixtures.postgres import Cluster, Connection, Server
from tests.fixtures.proxy import MakeProxy, Proxy

NOW = 0.0
SOON = 0.05


def connect(proxy: Proxy) -> Connection:
    return psycopg.connect(proxy.dsn(), autocommit=True, connect_timeout=10)


def send(connection: Connection, query: bytes) -> None:
    """Send a query, and do not wait for the answer."""
    connection.pgconn.send_query(query)
    assert connection.pgconn.flush() == 0


def answer(connection: Connection) -> bytes | None:
    """The first value of the answer. libpq's own waiting would keep the proxy's thread waiting, too."""
    results = waiting.wait(generators.fetch_many(connection.pgconn), connection.pgconn.socket)
    return results[0].get_value(0, 0) if results[0].ntuples else None


def hears(connection: Connection, within_s: float) -> bool:
    return bool(select.select([connection], [], [], within_s)[0])


def backends(server: Cluster, name: str) -> int:
    with psycopg.connect(server.dsn("postgres")) as admin:
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        row = admin.execute(count, [name]).fetchone()
    assert row is not None
    return int(row[0])


def test_everything_passes_both_ways_and_is_counted(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        before = proxy.to_server, proxy.to_client
        text = "x" * 3_000_000
        row = connection.execute("SELECT repeat(%s, 2)", [text]).fetchone()
        assert row == (text + text,)
        assert proxy.to_server - before[0] >= 3_000_000
        assert proxy.to_client - before[1] >= 6_000_000
        assert (proxy.accepted, proxy.connections) == (1, 1)
    proxy.wait_until(lambda proxy: proxy.connections == 0)


def test_several_connections_have_several_answers(proxy: Proxy) -> None:
    connections = [connect(proxy) for _ in range(20)]
    for number, connection in enumerate(connections):
        send(connection, f"SELECT {number}, repeat('x', 100000)".encode())
    for number, connection in enumerate(connections):
        assert answer(connection) == str(number).encode()
        connection.close()
    assert proxy.accepted == 20


def test_cut_resets_every_connection_and_lets_new_ones_in(proxy: Proxy) -> None:
    connections = [connect(proxy), connect(proxy)]
    proxy.cut()
    assert proxy.connections == 0
    for connection in connections:
        with pytest.raises(psycopg.OperationalError, match=r"reset by peer|closed the connection"):
            connection.execute("SELECT 1")
        connection.close()
    with connect(proxy) as connection:
        connection.execute("SELECT 1")


def test_cut_ends_the_servers_side_too(proxy: Proxy, server: Cluster) -> None:
    connection = psycopg.connect(proxy.dsn(application_name="to be cut"), autocommit=True)
    assert backends(server, "to be cut") == 1
    proxy.cut()
    while backends(server, "to be cut"):
        pass
    connection.close()


@pytest.mark.parametrize("count", [1, 1000, 200_000])
def test_cut_after_lets_exactly_so_much_pass(proxy: Proxy, count: int) -> None:
    connection = connect(proxy)
    start = proxy.to_client
    proxy.cut_after("to_client", count)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT repeat('x', 1000000)")
    assert proxy.to_client == start + count
    connection.close()
    with connect(proxy) as connection:  # once only
        connection.execute("SELECT repeat('x', 1000000)")


def test_refuse_lets_nobody_new_in_and_allow_does(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        proxy.refuse()
        proxy.refuse()
        with pytest.raises(psycopg.OperationalError, match="refused"):
            connect(proxy)
        connection.execute("SELECT 1")
        proxy.allow()
        proxy.allow()
        connect(proxy).close()


def test_a_stalled_answer_comes_when_resumed(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        passed = proxy.to_server, proxy.to_client
        proxy.stall()
        send(connection, b"SELECT 7")
        assert not hears(connection, SOON)
        assert passed == (proxy.to_server, proxy.to_client)
        proxy.resume()
        assert answer(connection) == b"7"


def test_a_stall_takes_what_is_sent_and_keeps_it_in_order(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        connection.execute("CREATE TEMP TABLE t (n int)")
        proxy.stall()
        send(connection, b";".join(b"INSERT INTO t VALUES (%d)" % n for n in range(1000)))
        proxy.resume()
        assert answer(connection) is None
        assert connection.execute("SELECT count(*), max(n) FROM t").fetchone() == (1000, 999)


def test_a_stall_hides_that_the_server_hung_up(proxy: Proxy, server: Cluster) -> None:
    connection = connect(proxy)
    proxy.stall()
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 10000)", [connection.info.backend_pid])
    assert not hears(connection, SOON)
    proxy.resume()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()


def test_who_connects_to_a_stalled_proxy_waits(proxy: Proxy) -> None:
    proxy.stall()
    connecting = psycopg.pq.PGconn.connect_start(proxy.dsn().encode())
    assert not select.select([connecting.socket], [], [], SOON)[0]
    assert proxy.accepted == 0
    proxy.resume()
    connecting.finish()
    with connect(proxy) as connection:
        connection.execute("SELECT 1")


def test_a_stall_can_be_cut(proxy: Proxy) -> None:
    connection = connect(proxy)
    proxy.stall()
    send(connection, b"SELECT 1")
    proxy.cut()
    assert hears(connection, 10)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()


def test_half_open_ends_the_servers_side_and_the_client_hears_nothing(proxy: Proxy, server: Cluster) -> None:
    connection = psycopg.connect(proxy.dsn(application_name="half open"), autocommit=True)
    proxy.half_open()
    while backends(server, "half open"):
        pass
    assert not hears(connection, NOW)
    send(connection, b"SELECT 1")
    assert not hears(connection, SOON)
    with connect(proxy) as another:  # the network is well again
        another.execute("SELECT 1")
    proxy.cut()
    assert hears(connection, 10)
    connection.close()


def test_a_throttle_lets_pass_only_what_has_been_allowed(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        start = proxy.to_client
        proxy.throttle(200)
        send(connection, b"SELECT repeat('x', 1000000)")
        proxy.wait_until(lambda proxy: proxy.to_client > start)
        assert proxy.to_client - start < 50_000
        proxy.throttle(None)
        assert answer(connection) == b"x" * 1_000_000


def test_a_throttled_connection_loses_nothing(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        proxy.throttle(2_000_000)
        assert connection.execute("SELECT repeat('x', 300000)").fetchone() == ("x" * 300_000,)


def test_a_wait_that_is_not_answered_tells_the_numbers(proxy: Proxy) -> None:
    with pytest.raises(TimeoutError, match="0 bytes to the server, 0 to clients, 0 connections of 0"):
        proxy.wait_until(lambda proxy: proxy.connections > 0, timeout=0.01)


async def test_an_async_test_waits_without_stopping_its_loop(proxy: Proxy) -> None:
    waiting = asyncio.create_task(proxy.until(lambda proxy: proxy.connections == 1))
    async with await psycopg.AsyncConnection.connect(proxy.dsn()):
        await waiting


def test_a_server_that_is_down_resets_who_comes_and_a_restart_is_seen(
    own_server: Callable[..., Server], proxies: MakeProxy
) -> None:
    server = own_server()
    proxy = proxies(server)
    connection = connect(proxy)
    server.stop("immediate")
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()
    with pytest.raises(psycopg.OperationalError):
        connect(proxy)
    server.start()
    with connect(proxy) as connection:
        connection.execute("SELECT 1")
