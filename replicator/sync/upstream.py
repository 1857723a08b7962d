"""The token of the app's own login → a token of ours for the same person: what POST /token answers.

Who somebody is comes from the verified token of the login and from nowhere else: no body and no query is
looked at. The texts of the errors are those that existing apps and their guides know.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, TypeAlias

from replicator.errors import ConfigError, ReplicatorError
from replicator.marks import mark
from replicator.settings.keys import SyncKeys
from replicator.sync.auth import AuthError, User
from replicator.sync.auth_keyring import Keyring
from replicator.sync.keys_configured import own_audience, own_key
from replicator.sync.tokens import OURS, SigningKey, issue

#: The login's subject → the subject of our token; None if the source knows nobody of that name.
Lookup: TypeAlias = Callable[[str], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Issuing:
    """How tokens of ours are made."""

    #: Where apps reach the server; None: not configured.
    url: str | None
    audience: str
    lifetime_s: int
    #: The login's claims that ours repeats.
    claims: tuple[str, ...]
    #: None: not configured; an error: configured, and of no use.
    key: SigningKey | ConfigError | None


class Answer(NamedTuple):
    status: int
    body: Mapping[str, str]


class Issued(NamedTuple):
    """A token, and until when it is good."""

    token: str
    expires_at: str


def issuing(sync: SyncKeys, environ: Mapping[str, str]) -> Issuing:
    """The configuration's way of making tokens; reads the key."""
    token = sync.token
    key = own_key(sync, environ)
    return Issuing(token.url, own_audience(sync), token.lifetime_s, token.claims, key)


async def exchange(
    authorization: str | None,
    issuing: Issuing,
    login: Keyring | None,
    now: float,
    lookup: Lookup | None = None,
) -> Answer:
    """Status and body for one request with this Authorization header."""
    if authorization is None or not authorization.strip():
        return _refused(401, "No authorization header")
    if login is None or issuing.url is None or issuing.key is None:
        return _refused(500, "PowerSync not configured")
    try:
        user = await login.user(authorization, now)
    except AuthError as error:
        mark("token refused", level=logging.INFO, code=error.code)
        return _refused(401, "Unauthorized")
    if isinstance(issuing.key, ConfigError):
        return _refused(500, "Failed to import private key")
    try:
        subject = user.sub if lookup is None else await lookup(user.sub)
    except ReplicatorError as error:
        mark("token subject not read", level=logging.ERROR, why=error.what, hint=error.hint)
        return _refused(503, "Service unavailable")
    if subject is None:
        mark("token refused", level=logging.INFO, code="unknown subject")
        return _refused(401, "Unauthorized")
    issued = issue_for(subject, _repeated(user, issuing.claims), issuing, issuing.key, now)
    return Answer(200, {**issued._asdict(), "powersync_url": issuing.url, "user_id": subject})


def issue_for(
    subject: str,
    claims: Mapping[str, object],
    issuing: Issuing,
    key: SigningKey,
    now: float,
    lifetime_s: int | None = None,
) -> Issued:
    """A token of ours, and its end as apps read it."""
    lifetime_s = issuing.lifetime_s if lifetime_s is None else lifetime_s
    token = issue(subject, claims, key, now, lifetime_s, audience=issuing.audience, issuer=issuing.url)
    ends = datetime.fromtimestamp(int(now) + lifetime_s, UTC)
    return Issued(token, ends.isoformat(timespec="milliseconds").replace("+00:00", "Z"))


def _repeated(user: User, names: tuple[str, ...]) -> dict[str, object]:
    return {name: user.claims[name] for name in names if name in user.claims and name not in OURS}


def _refused(status: int, error: str) -> Answer:
    return Answer(status, {"error": error})
