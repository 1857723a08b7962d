"""A user of a running server → what a client of theirs is sent, on a terminal.

It connects as clients do, keeps what they keep, and computes the sums they compute; so what it says of a
server is what a phone would meet. It goes on until interrupted, and connects again as clients do: at once
when its token is about to end, and after some seconds when the connection ended or was refused for now.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import aiohttp
import orjson

from replicator.config import Config
from replicator.errors import ConfigError, ProtocolError, ReplicatorError
from replicator.observe.tail_mirror import Expires, Mirror, Told, Verdict, lines_in
from replicator.observe.tail_shown import Begun, Ended, Shown
from replicator.sync.tokens import KEYGEN
from replicator.sync.upstream import issue_for, issuing

#: As clients do, and not all at once.
RETRY_S = 5.0
_JITTER = 0.1
#: A server says something every 20 s or so.
_SILENCE_S = 90.0
#: A token that ends within so long is exchanged for a new one.
_RENEW_S = 30
#: Of the body of an answer that is no stream.
_ERROR_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Door:
    """Where to connect, and with which token."""

    url: str
    #: A token, each time a new one where we can make them.
    token: Callable[[], str]
    is_renewable: bool


class Mismatch(ReplicatorError):
    """What was sent does not come to what was told."""


class _Refused(ReplicatorError):
    """The server does not let this client in now; perhaps later."""


def door(
    config: Config | None, environ: Mapping[str, str], user: str | None, server: str | None, token: str | None
) -> Door:
    """The way in; ConfigError if there is none."""
    url = (server or _url(config)).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"--server: must be an address such as http://127.0.0.1:8080, not {url!r:.80}")
    if token is not None:
        _check_whose(token, user)
        return Door(url, lambda: token, False)
    assert config is not None and user is not None, "who issues a token has a key, and says for whom"
    if not user or not user.isprintable():
        raise ConfigError("--user: this cannot be a subject", "It is empty, or holds control characters.")
    ours = issuing(config.sync, environ)
    if isinstance(ours.key, ConfigError):
        raise ours.key
    if (key := ours.key) is None:
        raise ConfigError("no key to sign a token with is configured: see sync.token.key_file", KEYGEN)
    return Door(url, lambda: issue_for(user, {}, ours, key, time.time()).token, True)


def _check_whose(token: str, user: str | None) -> None:
    """A token that is sent must be that of the user who is named beside it."""
    try:
        payload = token.split(".")[1]
        subject = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"]
    except (IndexError, ValueError, KeyError, TypeError):
        raise ConfigError("--token: this is no token", "A JSON Web Token has three parts.") from None
    if user is not None and str(subject) != user:
        raise ConfigError("--token: it is not this user's", "Leave --user out, or give the user's own.")


def _url(config: Config | None) -> str:
    assert config is not None, "without a configuration, the server is given"
    if config.sync.token.url:
        return config.sync.token.url
    if not config.sync.port:
        raise ConfigError("sync.listen has no port of its own", "Say where the server is, with --server.")
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    host = anywhere.get(config.sync.host, config.sync.host)
    scheme = "http" if config.sync.tls_cert_file is None else "https"
    return (
        f"{scheme}://[{host}]:{config.sync.port}" if ":" in host else f"{scheme}://{host}:{config.sync.port}"
    )


async def tail_user(
    door: Door, shown: Shown, limit: int | None, client_id: str | None = None, retry_s: float = RETRY_S
) -> None:
    """Show what is sent, until so many checkpoints have been complete or for ever.

    Raises Mismatch where a sum does not hold.
    """
    mirror, client_id, left = Mirror(), client_id or str(uuid.uuid4()), limit
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_SILENCE_S)
    with shown:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                is_renewing = False
                try:
                    async with _stream(session, door, mirror.request(client_id), shown) as lines:
                        async for line in lines:
                            told = _take(mirror, line, shown)
                            if isinstance(told, Verdict) and told.priority is None and left is not None:
                                left -= 1
                            if left == 0:
                                return
                            if is_renewing := _is_to_renew(told, door):
                                break
                    shown.tell(Ended("the token is renewed" if is_renewing else "the server ended it"))
                except aiohttp.InvalidURL:
                    raise ConfigError(
                        "--server: this cannot be an address", "Such as http://a:8080."
                    ) from None
                except (_Refused, aiohttp.ClientError, TimeoutError) as error:
                    unheard = f"no connection to {door.url} ({type(error).__name__}); trying again"
                    shown.tell(Ended(error.what if isinstance(error, _Refused) else unheard))
                if not is_renewing:
                    await asyncio.sleep(retry_s * random.uniform(1 - _JITTER, 1 + _JITTER))


def _take(mirror: Mirror, line: bytes, shown: Shown) -> Told:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise ProtocolError("the server sent a line that is not JSON") from None
    told = mirror.take(value)
    shown.tell(told, value)
    if isinstance(told, Verdict) and told.wrong:
        listed = "\n".join(
            f"{one.bucket}: told {one.told}, and what was sent comes to {one.found}" for one in told.wrong
        )
        raise Mismatch(f"sums do not hold at checkpoint {told.op_id}", listed)
    return told


def _is_to_renew(told: Told, door: Door) -> bool:
    if not isinstance(told, Expires):
        return False
    if told.seconds <= 0 and not door.is_renewable:
        raise ReplicatorError("the token has ended", "Give another one, or a configuration that has the key.")
    return door.is_renewable and told.seconds <= _RENEW_S


@asynccontextmanager
async def _stream(
    session: aiohttp.ClientSession, door: Door, request: dict[str, object], shown: Shown
) -> AsyncIterator[AsyncIterator[bytes]]:
    """The lines of one connection."""
    url, headers = f"{door.url}/sync/stream", {"accept": "application/x-ndjson"}
    headers["authorization"] = f"Token {door.token()}"
    async with session.post(url, json=request, headers=headers) as response:
        if response.status != 200:
            said = _said(response.status, await response.content.read(_ERROR_MOST))
            # Others may let it in a moment later; nobody will believe this token, or this address.
            is_final = response.status in (400, 401, 403, 404, 405)
            raise ReplicatorError(*said) if is_final else _Refused(*said)
        shown.tell(Begun(url, response.headers.get("content-encoding", "")))
        async with aclosing(_lines(response)) as lines:
            yield lines


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    rest = bytearray()
    async for chunk in response.content.iter_any():
        for line in lines_in([chunk], rest):
            yield line
    if rest.strip():
        yield bytes(rest)


def _said(status: int, body: bytes) -> tuple[str, str]:
    """What the server says of a refusal, and its advice."""
    try:
        error = orjson.loads(body)["error"]
        what, hint = f"{error['code']} {error['description']}", str(error.get("details", ""))
    except (orjson.JSONDecodeError, KeyError, TypeError):
        what, hint = "no more is said", "Is this the address of a replicator that serves?"
    return f"the server answers {status}: {what}", hint
