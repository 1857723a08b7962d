"""An address → the bytes published there, or why they could not be had.

An address of keys decides who may read health records, so it is asked with care: over TLS, unless it is this
machine or the configuration allows otherwise; through no redirect to another scheme; for so long and so much,
and no more. Where private addresses are shut out, every address a name resolves to is looked at.
"""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

LIMIT_BYTES = 256 * 1024
TIMEOUT_S = 30.0
REDIRECTS_MOST = 3
REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Reach:
    """Where keys may be fetched from."""

    #: Also over http from other machines than this one.
    plain_http: bool = False
    #: Also from addresses that are not of the public internet.
    private: bool = True


class FetchError(Exception):
    """Why there are no bytes; fit for a log."""


async def fetch(url: str, reach: Reach, *, timeout_s: float = TIMEOUT_S) -> bytes:
    """What is published at that address."""
    connector = aiohttp.TCPConnector(resolver=_Resolver(reach), force_close=True)
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            asyncio.timeout(timeout_s),  # over all redirects together
            aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session,
        ):
            return await _follow(session, url, reach)
    except TimeoutError:
        raise FetchError(f"no answer within {timeout_s:g} s") from None
    except aiohttp.ClientConnectorCertificateError:
        raise FetchError("its certificate does not hold") from None
    except aiohttp.ClientConnectorError as error:
        raise FetchError(f"cannot be reached: {_why(error.os_error)}") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise FetchError(f"cannot be asked: {type(error).__name__}") from None


def _why(error: OSError) -> str:
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or type(error).__name__


async def _follow(session: aiohttp.ClientSession, url: str, reach: Reach) -> bytes:
    scheme = urlsplit(url).scheme
    for _ in range(REDIRECTS_MOST + 1):
        if (why := refusal(url, reach)) is not None:
            raise FetchError(why)
        if urlsplit(url).scheme != scheme:
            raise FetchError("redirects to another scheme")
        # What is not compressed cannot grow while it is read.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            if response.status == 200:
                return await _read(response)
            there = response.headers.get("Location")
            if response.status not in REDIRECTS or not there:
                raise FetchError(f"answers with status {response.status}")
            url = urljoin(url, there)
    raise FetchError("redirects without end")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(16 * 1024):
        body += chunk
        if len(body) > LIMIT_BYTES:
            raise FetchError(f"answers with more than {LIMIT_BYTES >> 10} KiB")
    return bytes(body)


def refusal(url: str, reach: Reach) -> str | None:
    """Why an address is not asked at all; None if it is."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return "is no address"
    if not host or parts.scheme not in ("http", "https"):
        return "is no address of http or https"
    if parts.username is not None:
        return "holds a user or a password"
    literal = _literal(host)
    is_here = host == "localhost" or (literal is not None and literal.is_loopback)
    if parts.scheme == "http" and not (is_here or reach.plain_http):
        return "is not https; for another machine without TLS, set sync.jwks_plain_http"
    if literal is not None and not reach.private and not _is_public(literal):
        return "is a private address, and sync.jwks_private is false"
    return None


class _Resolver(AbstractResolver):
    """Names as the system resolves them, without the addresses that are out of reach."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._inner = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        allowed = [one for one in found if self._reach.private or _is_public(ip_address(one["host"]))]
        if not allowed:
            raise OSError(0, "is a private address, and sync.jwks_private is false")
        return allowed

    async def close(self) -> None:
        await self._inner.close()


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (inner or address).is_global
