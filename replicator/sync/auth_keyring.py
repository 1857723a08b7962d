"""An Authorization header × the keys configured and published → the User, or an AuthError."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from replicator.sync.auth import AuthError, NoKey, User, token_of, verify
from replicator.sync.jwks import Published
from replicator.sync.keys import Key

FETCH = "PSYNC_S2204"


class Keyring:
    """Every key somebody's token may be signed with. Close it when the server ends."""

    def __init__(self, keys: Iterable[Key], published: Iterable[Published] = ()) -> None:
        self._keys = tuple(keys)
        self._published = tuple(published)

    @property
    def is_empty(self) -> bool:
        return not (self._keys or self._published)

    async def user(self, authorization: str | None, now: float) -> User:
        """Whom the header's token names."""
        token = token_of(authorization)
        keys = await self._all()
        try:
            return verify(token, keys, now)
        except NoKey as error:
            # It may have been published a moment ago.
            if not any(await asyncio.gather(*(one.look_again() for one in self._published))):
                raise self._unfetched() or error from None
        return verify(token, await self._all(), now)

    async def fetch(self) -> None:
        """Fetch what is published, so that the first client need not wait for it."""
        await self._all()

    async def close(self) -> None:
        for one in self._published:
            await one.close()

    async def _all(self) -> tuple[Key, ...]:
        if not self._published:
            return self._keys
        published = await asyncio.gather(*(one.keys() for one in self._published))
        return self._keys + tuple(key for keys in published for key in keys)

    def _unfetched(self) -> AuthError | None:
        """What a client is told while keys are missing that should be here; where they are is for the log."""
        if not any(one.problem for one in self._published):
            return None
        return AuthError(
            FETCH,
            "No key at hand fits the token, and the keys of its issuer cannot be fetched now",
            "The server's log says why: keys not fetched.",
        )
