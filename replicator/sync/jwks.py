"""An address where keys are published → the keys, kept fresh, and kept at all while it does not answer.

Nobody waits for a refresh that is only due: it happens beside whoever asked. One waits, and for a moment
only, when there are no keys yet, when they are very old, or when a token names a key that is not among them.
However many ask at once, there is one request; however often unknown keys are named, so many a minute.

While the address does not answer, what it said last counts, until no token can be left that was issued while
it still answered: for as long as a token may live.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson

from replicator.marks import mark
from replicator.sync.jwks_fetch import TIMEOUT_S, FetchError, Reach, fetch
from replicator.sync.keys import PARTS, Key, Terms, UnusableKey, key_of_jwk

#: From this age on, keys are fetched anew beside the work; from the other on, before it.
REFRESH_S, EXPIRY_S = 300.0, 3600.0
#: How long somebody waits for a request, which itself may take longer.
PATIENCE_S = 3.0
#: At most so many requests in so many seconds.
REQUESTS_MOST, WINDOW_S = 10, 60.0
KEYS_MOST = 100


class Published:
    """The keys of one address."""

    def __init__(
        self,
        url: str,
        terms: Terms,
        reach: Reach,
        *,
        clock: Callable[[], float] = time.monotonic,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.url = url
        self._terms, self._reach = terms, reach
        self._clock, self._timeout_s = clock, timeout_s
        self._keys: tuple[Key, ...] = ()
        self._fetched_at: float | None = None
        self._requests: deque[float] = deque(maxlen=REQUESTS_MOST)
        self._refreshing: asyncio.Task[None] | None = None
        #: Why the last request brought nothing; empty if it did.
        self.problem = ""

    async def keys(self) -> tuple[Key, ...]:
        """The keys as last published, or as far as they may still be believed."""
        age = self._age()
        if age is None or age >= REFRESH_S:
            refreshing = self._refresh()
            if refreshing is not None and (age is None or age >= EXPIRY_S):
                await asyncio.wait({refreshing}, timeout=PATIENCE_S)
        age = self._age()
        return () if age is None or age >= self._terms.max_age_s else self._keys

    async def look_again(self) -> bool:
        """Ask anew, if that may be; whether the keys are others now."""
        before, refreshing = self._keys, self._refresh()
        if refreshing is not None:
            await asyncio.wait({refreshing}, timeout=PATIENCE_S)
        return self._keys != before

    async def settle(self) -> None:
        """Wait for the request under way, if there is one."""
        if self._refreshing is not None:
            await asyncio.wait({self._refreshing})

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait({self._refreshing})

    def _age(self) -> float | None:
        return None if self._fetched_at is None else self._clock() - self._fetched_at

    def _refresh(self) -> asyncio.Task[None] | None:
        """The request under way, or a new one; None if there have been enough for now."""
        if self._refreshing is not None and not self._refreshing.done():
            return self._refreshing
        now = self._clock()
        if len(self._requests) == REQUESTS_MOST and now - self._requests[0] < WINDOW_S:
            return None
        self._requests.append(now)
        self._refreshing = asyncio.create_task(self._ask())
        return self._refreshing

    async def _ask(self) -> None:
        try:
            body = await fetch(self.url, self._reach, timeout_s=self._timeout_s)
            keys = keys_of_jwks(body, self._terms, shown(self.url))
        except FetchError as error:
            self.problem = str(error)
            kept, age = len(self._keys), round(self._age() or 0)
            mark(
                "keys not fetched",
                level=logging.WARNING,
                url=shown(self.url),
                why=self.problem,
                kept=kept,
                age_s=age,
            )
            return
        is_new = keys != self._keys
        self._keys, self._fetched_at, self.problem = keys, self._clock(), ""
        mark(
            "keys fetched",
            level=logging.INFO if is_new else logging.DEBUG,
            url=shown(self.url),
            keys=len(keys),
        )


def keys_of_jwks(body: bytes, terms: Terms, where: str) -> tuple[Key, ...]:
    """The public keys of a JSON Web Key Set that can be used; FetchError if there is none."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise FetchError("answers with what is not JSON") from None
    written = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(written, list):
        raise FetchError("answers with what is not a JSON Web Key Set: an object with a list of keys")
    if len(written) > KEYS_MOST:
        raise FetchError(f"answers with more than {KEYS_MOST} keys")
    keys = tuple(key for jwk in written if (key := _key(jwk, terms, where)) is not None)
    if not keys:
        raise FetchError(f"answers with {len(written)} keys, and none of them can be used")
    return keys


def _key(jwk: Any, terms: Terms, where: str) -> Key | None:
    try:
        return key_of_jwk(_public(jwk, where), terms)
    except UnusableKey as error:
        mark("key not used", url=where, why=str(error))
        return None


def _public(jwk: Any, where: str) -> Mapping[str, Any]:
    """A secret that is published is none, and would let anybody sign."""
    if not isinstance(jwk, dict):
        raise UnusableKey("it is no object")
    if str(jwk.get("kty")) not in PARTS:
        raise UnusableKey("its kty is none of RSA, EC and OKP")
    if "d" in jwk:
        mark("private key published", level=logging.ERROR, url=where)
        raise UnusableKey("its private part is published, so anybody can sign with it")
    return jwk


def shown(url: str) -> str:
    """An address as a log may have it: what stands behind ? can be a secret."""
    return urlsplit(url)._replace(query="", fragment="").geturl()
