"""The text of a token × keys × now → the User it names, or an AuthError. No I/O.

Whatever a client sends ends in one of the two. A token is looked at in this order, so that nothing costly is
done for what is no token, and nothing a token says is believed before its signature holds: length, form,
header, key, signature, and only then who it is for, until when, and whose it is.

An AuthError tells the developer what to mend. It may repeat an audience, an issuer or a key's id, which are
no secrets; never a token, a subject, another claim or a part of a key.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from replicator.errors import ReplicatorError
from replicator.rules.compute.jsontext import parsed
from replicator.rules.compute.scalars import EvaluationError
from replicator.sync.keys import ALGORITHMS, Key, Terms

#: What a server takes as one header anyway, and several times what a token with many claims needs.
TOKEN_MOST = 16_384
HEADER = re.compile(r"(?:Token|Bearer) (\S+)")
TOKEN = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
#: How much of what a token says is repeated in a message.
SHOWN_MOST = 200
#: From here on, a real number is not told apart from the next whole one.
EXACT = 1 << 53

GENERIC, SIGNATURE, EXPIRED = "PSYNC_S2101", "PSYNC_S2102", "PSYNC_S2103"
TOO_LONG_LIVED, AUDIENCE, MISSING = "PSYNC_S2104", "PSYNC_S2105", "PSYNC_S2106"


class AuthError(ReplicatorError):
    """Nobody we know: the answer to a request is 401."""

    status = 401

    def __init__(self, code: str, description: str, details: str = "") -> None:
        super().__init__(description, details)
        self.code = code

    @property
    def description(self) -> str:
        return self.what

    @property
    def details(self) -> str:
        return self.hint

    def body(self) -> dict[str, object]:
        """What the response holds."""
        error = {
            "name": "AuthorizationError",
            "code": self.code,
            "status": self.status,
            "description": self.what,
        }
        return {"error": {**error, "details": self.hint} if self.hint else error}


class NoKey(AuthError):
    """The token's key is not among those at hand; it may have been published since."""


@dataclass(frozen=True, slots=True)
class User:
    """Whom a verified token names."""

    #: As text, also where the token has a number.
    sub: str = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)
    #: When the token ends, in seconds since 1970; what is sent by its leave ends then.
    expires_at: float


def token_of(authorization: str | None) -> str:
    """The token in a request's Authorization header."""
    if authorization is None or not authorization.strip():
        raise AuthError(
            MISSING, "Authentication required", "Send the header `Authorization: Token <the JSON Web Token>`."
        )
    found = HEADER.fullmatch(authorization)
    if found is None:
        raise AuthError(
            MISSING,
            "The authorization header has no token",
            "It must be the word Token or Bearer, spelt so, one space, and the token.",
        )
    return found[1]


def verify(token: str, keys: Iterable[Key], now: float) -> User:
    """Whom the token names, if one of the keys signed it and it says what that key's terms ask for."""
    if len(token) > TOKEN_MOST:
        raise AuthError(GENERIC, f"The token is longer than {TOKEN_MOST} characters")
    parts = TOKEN.fullmatch(token)
    if parts is None:
        raise AuthError(
            GENERIC,
            "The token is not a JSON Web Token",
            "A JSON Web Token is three texts in base64url, with a dot between them.",
        )
    header = _object(parts[1], "header")
    message, signature = f"{parts[1]}.{parts[2]}".encode(), _bytes(parts[3], "signature")
    key = _key(header, tuple(keys), message, signature)
    return _user(_object(parts[2], "payload"), key.terms, now)


def _key(header: Mapping[str, Any], keys: tuple[Key, ...], message: bytes, signature: bytes) -> Key:
    """The key that signed: the one the token names, else any that has no name and fits."""
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise AuthError(
            GENERIC,
            f"The token's algorithm is {_shown(algorithm)}, which is not accepted",
            f"Sign with one of {', '.join(sorted(ALGORITHMS))}.",
        )
    if kid is not None and not isinstance(kid, str):
        raise AuthError(GENERIC, "The token's kid is not text")
    if "crit" in header or "b64" in header:
        raise AuthError(GENERIC, "The token's header asks for an extension that is not known here")
    if named := [key for key in keys if key.kid is not None and key.kid == kid]:
        return _named(named, algorithm, message, signature)
    for key in keys:
        if key.kid is None and key.verifies(algorithm, message, signature):
            return key
    raise NoKey(GENERIC, "Could not find an appropriate key for the token", _why_no_key(kid, keys))


def _named(keys: list[Key], algorithm: str, message: bytes, signature: bytes) -> Key:
    fitting = [key for key in keys if algorithm in key.algorithms]
    if not fitting:
        known = sorted(set().union(*(key.algorithms for key in keys)))
        raise AuthError(
            GENERIC,
            f"The token's algorithm is {algorithm}, and the key it names is for {', '.join(known)}",
            "Sign with the algorithm of the key, or configure the key that is signed with.",
        )
    for key in fitting:
        if key.verifies(algorithm, message, signature):
            return key
    raise AuthError(
        SIGNATURE,
        "The token's signature does not hold",
        "The key of this kid here is not the one it was signed with: compare the two.",
    )


def _why_no_key(kid: str | None, keys: tuple[Key, ...]) -> str:
    if not keys:
        return "No key is configured or could be fetched: see sync.keys, sync.jwks_uri and sync.supabase."
    nameless = sum(key.kid is None for key in keys)
    asked = f"names the kid {_shown(kid)}" if kid else "names no kid"
    what = f"The token {asked}; {len(keys)} known, {nameless} of them without a kid"
    return f"{what} (these are tried whenever no kid fits, and none of them signed it)."


def _user(claims: Mapping[str, Any], terms: Terms, now: float) -> User:
    """The user of claims whose signature holds."""
    _check_audience(claims.get("aud"), terms.audience)
    if terms.issuer is not None and claims.get("iss") != terms.issuer:
        raise AuthError(GENERIC, f"The token's iss is {_shown(claims.get('iss'))}, not {terms.issuer}")
    expires_at = _check_times(claims, terms, now)
    subject = _subject(claims.get("sub"))
    if not isinstance(claims.get("parameters", {}), dict | None):
        raise AuthError(GENERIC, "The token's parameters must be an object")
    return User(subject, claims, expires_at)


def _check_audience(written: object, accepted: tuple[str, ...]) -> None:
    found = written if isinstance(written, list) else [written]
    if any(isinstance(one, str) and one in accepted for one in found):
        return
    what = "has no aud" if written is None else f"has the aud {_shown(written)}"
    if accepted:
        raise AuthError(AUDIENCE, f"The token {what}; expected is {' or '.join(accepted)}")
    raise AuthError(AUDIENCE, f"The token {what}, and none is accepted", "Write it under sync.audience.")


def _check_times(claims: Mapping[str, Any], terms: Terms, now: float) -> float:
    issued, expires = _time(claims, "iat"), _time(claims, "exp")
    if expires is None or issued is None:
        missing = "exp" if expires is None else "iat"
        raise AuthError(GENERIC, f"The token has no {missing}", "Both iat and exp are needed.")
    if expires <= now - terms.tolerance_s:
        raise AuthError(EXPIRED, "The token has expired")
    begins = _time(claims, "nbf")
    if begins is not None and begins > now + terms.tolerance_s:
        raise AuthError(GENERIC, "The token is not valid yet", "Compare the clocks: its nbf lies ahead.")
    # Else a token issued for the year 2100 would be one that lives until then.
    if issued > now + terms.tolerance_s:
        raise AuthError(GENERIC, "The token was issued later than now", "Compare the clocks: its iat.")
    if expires - issued > terms.max_age_s:
        most, lives = terms.max_age_s, int(expires - issued)
        raise AuthError(TOO_LONG_LIVED, f"The token lives for {lives} s; at most {most} s are accepted")
    return expires


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    found = claims.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise AuthError(GENERIC, f"The token's {name} is not a number of seconds")
    # What cannot be told apart from the next second is no time; it would not print either.
    if not abs(found) < EXACT:
        raise AuthError(GENERIC, f"The token's {name} is not a time")
    return found


def _subject(written: object) -> str:
    match written:
        case bool():
            pass
        case str() if written and "\0" not in written:
            return written
        case int():
            return str(written)
        # Of any other, several that a token may have are the same here.
        case float() if written.is_integer() and abs(written) < EXACT:
            return str(int(written))
    what = "has no sub" if written is None else "has a sub that is no text or whole number, or empty"
    raise AuthError(GENERIC, f"The token {what}", "The subject says whose token it is.")


def _object(text: str, part: str) -> Mapping[str, Any]:
    try:
        # Two whole numbers that differ in their last digit are two users.
        found = parsed(_bytes(text, part).decode())
    except (EvaluationError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        raise AuthError(GENERIC, f"The token's {part} is not a JSON object")
    return found


def _bytes(text: str, part: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise AuthError(GENERIC, f"The token's {part} is not base64url") from None


def _shown(value: object) -> str:
    """What a token says, in a form that fits into a message."""
    if value is None:
        return "missing"
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        return "no text"
    shown = orjson.dumps(value).decode()
    return shown if len(shown) <= SHOWN_MOST else f"{shown[:SHOWN_MOST]}…"
