"""Options of a command line → who asks, and for what. No I/O.

Nothing here verifies a token: whoever may read the source may ask as anybody.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

from replicator.errors import ConfigError
from replicator.observe.rules.got import Subscription, User
from replicator.rules.compute import jsontext
from replicator.rules.compute.scalars import EvaluationError


def user_of(user_id: str | None, token: str | None, parameters: str | None, streams: Iterable[str]) -> User:
    """The user that the options describe."""
    claims = dict(_claims(token)) if token is not None else {}
    subject = user_id if user_id is not None else claims.get("sub")
    if not isinstance(subject, str):
        raise ConfigError(
            "the token has no subject", "Say who it is with --user, or add `sub` to the claims."
        )
    if not subject.isprintable():
        raise ConfigError("--user: this cannot be a subject", "It holds what is no character of a name.")
    return User(
        subject,
        {**claims, "sub": subject},
        {} if parameters is None else _object(parameters, "--parameters"),
        tuple(map(_subscription, streams)),
    )


def _claims(token: str) -> Mapping[str, Any]:
    """The payload of a token, or the claims themselves as JSON."""
    text = token.strip()
    if text.startswith("{") or text.count(".") != 2:
        return _object(text, "--jwt")
    payload = text.split(".")[1]
    try:
        decoded = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    except (binascii.Error, ValueError):
        raise ConfigError("--jwt: this is no token", "A token, or its claims as a JSON object.") from None
    return _object(decoded, "--jwt")


def _subscription(option: str) -> Subscription:
    name, _, parameters = option.partition("=")
    return Subscription(name, _object(parameters, f"--stream {name}") if parameters else {})


def _object(text: str | bytes, what: str) -> Mapping[str, Any]:
    try:
        found = jsontext.parsed(text if isinstance(text, str) else text.decode())
    except (EvaluationError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f"{what}: this is no JSON object", 'Such as {"project_id": "p1"}, in quotes.')
    return found
