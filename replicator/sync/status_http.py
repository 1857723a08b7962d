"""GET /api/sync/status and /api/sync/patient/{id} → who asks, what they may know, and the answer.

With an admin token one may ask about everybody and anybody. With a user's own token one hears of one's own
rows, also from the first of the two, and of nobody else's.
"""

from __future__ import annotations

import time

from starlette.requests import Request as HttpRequest

from replicator.sync.admin_tokens import AdminTokens
from replicator.sync.auth import GENERIC, User
from replicator.sync.auth_keyring import Keyring
from replicator.sync.http import Refused
from replicator.sync.status import Status


class StatusRoutes:
    """Who may ask what of a Status."""

    def __init__(self, status: Status, keyring: Keyring, admins: AdminTokens) -> None:
        self._status, self._keyring, self._admins = status, keyring, admins

    async def status(self, http: HttpRequest) -> dict[str, object]:
        authorization = http.headers.get("authorization")
        if self._admins.admits(authorization):
            return await self._status.overall()
        return await self._status.of_user(await self._keyring.user(authorization, time.time()))

    async def patient(self, http: HttpRequest) -> dict[str, object]:
        authorization, wanted = http.headers.get("authorization"), http.path_params["id"]
        if self._admins.admits(authorization):
            # Nobody's token is here, so what other claims would grant is not in it.
            return await self._status.of_user(User(wanted, {"sub": wanted}, float("inf")))
        user = await self._keyring.user(authorization, time.time())
        if user.sub != wanted:
            what = "A token may ask about its own subject only"
            raise Refused(403, GENERIC, what, name="AuthorizationError")
        return await self._status.of_user(user)
