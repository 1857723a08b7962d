"""Credentials → the Authorization header of the next request.

Secrets stay out of every repr, error and log.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote

import aiohttp
import orjson

from replicator.ehr.client.faults import Unreached, fault_of
from replicator.errors import ConfigError

#: A token is not used in its last moments: the request that carries it takes time, too.
_MARGIN_S = 30.0
#: A server that gives no lifetime means a short one.
_LIFETIME_S = 300.0
_TOKEN_MAX = 64 * 1024


class Auth(Protocol):
    """What the client asks before each request."""

    async def header(self, session: aiohttp.ClientSession, now: float) -> str | None:
        """The header's value; `now` in seconds of a clock that never goes back."""

    def refused(self) -> bool:
        """The last header got a 401: whether the next one would be another."""


@dataclass(frozen=True, slots=True)
class Anonymous:
    """A server that asks for nothing."""

    async def header(self, session: aiohttp.ClientSession, now: float) -> str | None:
        return None

    def refused(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Basic:
    """A name and a password."""

    user: str
    password: str = field(repr=False)

    async def header(self, session: aiohttp.ClientSession, now: float) -> str | None:
        return "Basic " + b64encode(f"{self.user}:{self.password}".encode()).decode()

    def refused(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token that somebody else renews."""

    token: str = field(repr=False)

    async def header(self, session: aiohttp.ClientSession, now: float) -> str | None:
        return f"Bearer {self.token}"

    def refused(self) -> bool:
        return False


class ClientCredentials:
    """OAuth 2 client credentials: a token is fetched when there is none, it ends soon, or it was refused."""

    def __init__(self, token_url: str, client_id: str, secret: str, *, scope: str = "") -> None:
        self._url = token_url
        self._basic = Basic(quote(client_id, safe=""), quote(secret, safe=""))
        self._form = {"grant_type": "client_credentials", **({"scope": scope} if scope else {})}
        self._token: str | None = None
        self._ends = 0.0
        self._lock = asyncio.Lock()

    async def header(self, session: aiohttp.ClientSession, now: float) -> str | None:
        async with self._lock:
            if self._token is None or now >= self._ends:
                self._token, lifetime_s = await self._fetch(session)
                self._ends = now + max(0.0, lifetime_s - _MARGIN_S)
            return f"Bearer {self._token}"

    def refused(self) -> bool:
        self._token = None
        return True

    async def _fetch(self, session: aiohttp.ClientSession) -> tuple[str, float]:
        basic = await self._basic.header(session, 0)
        assert basic is not None
        headers = {"Authorization": basic, "Accept": "application/json"}
        try:
            async with session.post(
                self._url, data=self._form, headers=headers, allow_redirects=False
            ) as response:
                status, content = response.status, await response.content.read(_TOKEN_MAX)
        except (aiohttp.ClientError, TimeoutError) as error:
            # Nothing of ours was asked of the record system yet, whatever became of this.
            raise Unreached(fault_of(error, sent=False), "the token's server cannot be asked") from error
        if status >= 500 or status == 429:
            raise Unreached(fault_of(OSError(), sent=False), f"the token's server answers {status}")
        token, lifetime_s = _token_in(content)
        if status != 200 or token is None:
            raise ConfigError(
                f"the token's server gives no token: {status}",
                "Check the token URL, the client's id, its secret and the scope under ehr.auth.",
            )
        return token, lifetime_s


def _token_in(content: bytes) -> tuple[str | None, float]:
    try:
        said = orjson.loads(content)
        token, lifetime_s = said["access_token"], float(said.get("expires_in", _LIFETIME_S))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None, 0.0
    return (token, lifetime_s) if isinstance(token, str) and token.isprintable() else (None, 0.0)


def auth_from(given: Mapping[str, str]) -> Auth:
    """How to log in, by the names that the configuration has for it."""
    match dict(given):
        case {"user": user, "password": password, **rest} if not rest:
            return Basic(user, password)
        case {"token": token, **rest} if not rest:
            return Bearer(token)
        case {"token_url": url, "client_id": client_id, "client_secret": secret, **rest} if set(rest) <= {
            "scope"
        }:
            return ClientCredentials(url, client_id, secret, scope=rest.get("scope", ""))
        case {**rest} if not rest:
            return Anonymous()
    raise ConfigError(
        f"ehr.auth: cannot log in with {', '.join(sorted(given))}",
        "Give user and password; or token; or token_url, client_id, client_secret and perhaps scope.",
    )
