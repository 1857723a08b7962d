"""Keys published at an address of this machine: fetched, kept fresh, kept at all, and doubted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web

from replicator import marks
from replicator.sync.auth import AuthError
from replicator.sync.auth_keyring import Keyring
from replicator.sync.jwks import REQUESTS_MOST, Published, keys_of_jwks, shown
from replicator.sync.jwks_fetch import LIMIT_BYTES, FetchError, Reach, fetch, refusal
from replicator.sync.keys import Terms
from tests.unit.sync.signers import NOW, encoded, jwk_of, one_rsa, sign

TERMS = Terms(("app",))
#: Nothing listens there: a port that only an administrator could open, on this machine.
NOBODY = "http://127.0.0.1:1/keys"
HERE = Reach()

Seen = list[tuple[str, dict[str, object]]]


class Issuer:
    """A server on this machine that publishes keys, and counts who asks."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.asked = 0
        #: What it does instead of publishing.
        self.instead: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        #: Answers are held back until it is set.
        self.open = asyncio.Event()
        self.open.set()
        self.came = asyncio.Event()
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        self.came.set()
        await self.open.wait()
        if self.instead is not None:
            return await self.instead(request)
        return web.json_response({"keys": self.keys})

    def says(self, body: bytes = b"", status: int = 200, **headers: str) -> None:
        async def answer(_: web.Request) -> web.Response:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return web.Response(body=body, status=status, headers=named)

        self.instead = answer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    made = Issuer()
    app = web.Application()
    app.router.add_get("/{path:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    made.url = f"http://127.0.0.1:{port}/keys"
    yield made
    made.open.set()
    await runner.cleanup()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def published(issuer: Issuer, clock: Clock) -> AsyncIterator[Published]:
    made = Published(issuer.url, TERMS, HERE, clock=clock)
    yield made
    await made.close()


@pytest.fixture
def ring(published: Published) -> Keyring:
    return Keyring([], [published])


@contextmanager
def heard() -> Iterator[Seen]:
    seen: Seen = []

    def hear(name: str, fields: dict[str, object]) -> None:
        seen.append((name, fields))

    marks.listeners.append(hear)
    try:
        yield seen
    finally:
        marks.listeners.remove(hear)


async def accepts(ring: Keyring, token: str) -> bool:
    try:
        return (await ring.user(f"Bearer {token}", NOW)).sub == "ann"
    except AuthError:
        return False


# Fresh keys.


async def test_published_keys_are_fetched_once_and_verify(issuer: Issuer, ring: Keyring) -> None:
    issuer.keys = [jwk_of("RS256", kid="1", alg="RS256"), jwk_of("ES256", kid="2"), jwk_of("EdDSA", kid="3")]
    for kid, name in (("1", "RS256"), ("2", "ES256"), ("3", "EdDSA")):
        assert await accepts(ring, sign(name, kid=kid))
    assert issuer.asked == 1


async def test_many_who_come_at_once_cause_one_request(issuer: Issuer, ring: Keyring) -> None:
    issuer.keys = [jwk_of("ES256", kid="1")]
    came = await asyncio.gather(*(accepts(ring, sign("ES256", kid="1")) for _ in range(50)))
    assert all(came)
    assert issuer.asked == 1


async def test_a_key_published_a_moment_ago_is_found(issuer: Issuer, ring: Keyring) -> None:
    issuer.keys = [jwk_of("RS256", kid="1")]
    assert await accepts(ring, sign("RS256", kid="1"))
    issuer.keys = [jwk_of("RS256/b", kid="2")]
    assert await accepts(ring, sign("RS256/b", kid="2"))
    assert not await accepts(ring, sign("RS256", kid="1")), "the old one was withdrawn"


async def test_a_key_without_a_kid_is_replaced_too(issuer: Issuer, ring: Keyring) -> None:
    issuer.keys = [jwk_of("RS256")]
    assert await accepts(ring, sign("RS256"))
    issuer.keys = [jwk_of("RS256/b")]
    assert await accepts(ring, sign("RS256/b", kid="new"))


async def test_unknown_keys_cause_so_many_requests_a_minute(
    issuer: Issuer, ring: Keyring, clock: Clock
) -> None:
    issuer.keys = [jwk_of("ES256", kid="1")]
    for n in range(30):
        assert not await accepts(ring, sign("ES256", kid=f"unknown {n}"))
    assert issuer.asked == REQUESTS_MOST
    assert await accepts(ring, sign("ES256", kid="1"))
    clock.now += 60
    assert not await accepts(ring, sign("ES256", kid="unknown"))
    assert issuer.asked == REQUESTS_MOST + 1


async def test_a_known_key_that_did_not_sign_causes_no_request(issuer: Issuer, ring: Keyring) -> None:
    issuer.keys = [jwk_of("ES256", kid="1")]
    for _ in range(3):
        assert not await accepts(ring, sign("ES256/b", kid="1"))
    assert issuer.asked == 1


async def test_a_refresh_that_is_due_keeps_nobody_waiting(
    issuer: Issuer, published: Published, ring: Keyring, clock: Clock
) -> None:
    issuer.keys = [jwk_of("RS256", kid="1")]
    assert await accepts(ring, sign("RS256", kid="1"))
    clock.now += 299
    assert await accepts(ring, sign("RS256", kid="1"))
    assert issuer.asked == 1
    issuer.open.clear()
    issuer.keys = [jwk_of("RS256/b", kid="1")]
    clock.now += 1
    assert await accepts(ring, sign("RS256", kid="1")), "by the key as it was"
    issuer.open.set()
    await published.settle()
    assert not await accepts(ring, sign("RS256", kid="1"))
    assert await accepts(ring, sign("RS256/b", kid="1"))
    assert issuer.asked == 2


async def test_very_old_keys_are_waited_for(issuer: Issuer, ring: Keyring, clock: Clock) -> None:
    issuer.keys = [jwk_of("RS256", kid="1")]
    assert await accepts(ring, sign("RS256", kid="1"))
    issuer.keys = [jwk_of("RS256/b", kid="1")]
    clock.now += 3600
    assert await accepts(ring, sign("RS256/b", kid="1"))


async def test_keys_here_and_at_several_addresses_serve_together(issuer: Issuer, clock: Clock) -> None:
    issuer.keys = [jwk_of("RS256", kid="1")]
    other = Published(issuer.url, Terms(("other",)), HERE, clock=clock)
    absent = Published(NOBODY, TERMS, HERE, clock=clock)
    ring = Keyring([], [absent, other])
    assert (await ring.user(f"Token {sign('RS256', {'aud': 'other'}, kid='1')}", NOW)).sub == "ann"
    await ring.close()


async def test_closing_ends_a_request_under_way(issuer: Issuer, published: Published) -> None:
    issuer.open.clear()
    asking = asyncio.create_task(published.look_again())
    await issuer.came.wait()
    await published.close()
    assert await asking is False


# An address that does not answer, or not as it should.


async def test_keys_are_kept_while_their_address_does_not_answer(
    issuer: Issuer, published: Published, ring: Keyring, clock: Clock
) -> None:
    issuer.keys = [jwk_of("RS256", kid="1")]
    assert await accepts(ring, sign("RS256", kid="1"))
    issuer.says(status=503)
    for after in (300, 3600, 70_000):
        clock.now += after
        with heard() as seen:
            assert await accepts(ring, sign("RS256", kid="1"))
            await published.settle()
        assert [name for name, _ in seen] == ["keys not fetched"]
        assert seen[0][1]["why"] == "answers with status 503"
        assert seen[0][1]["kept"] == 1
    issuer.instead, issuer.keys = None, [jwk_of("RS256", kid="1"), jwk_of("RS256/b", kid="2")]
    with heard() as seen:
        assert await accepts(ring, sign("RS256/b", kid="2"))
    assert ("keys fetched", {"url": issuer.url, "keys": 2}) in seen


async def test_keys_are_no_longer_believed_when_every_token_of_theirs_has_ended(
    issuer: Issuer, ring: Keyring, clock: Clock
) -> None:
    issuer.keys = [jwk_of("RS256", kid="1")]
    assert await accepts(ring, sign("RS256", kid="1"))
    issuer.says(status=503)
    clock.now += TERMS.max_age_s - 1
    assert await accepts(ring, sign("RS256", kid="1"))
    clock.now += 1
    assert not await accepts(ring, sign("RS256", kid="1"))


async def test_an_address_that_was_down_from_the_start_is_asked_again(issuer: Issuer, ring: Keyring) -> None:
    issuer.says(status=500)
    with pytest.raises(AuthError) as raised:
        await ring.user(f"Token {sign('RS256', kid='1')}", NOW)
    assert (raised.value.code, raised.value.status) == ("PSYNC_S2204", 401)
    assert "127.0.0.1" not in raised.value.what + raised.value.hint
    issuer.instead, issuer.keys = None, [jwk_of("RS256", kid="1")]
    assert await accepts(ring, sign("RS256", kid="1"))


async def test_a_server_that_is_gone_is_unreachable() -> None:
    with pytest.raises(FetchError, match=r"cannot be reached: .*[Rr]efused"):
        await fetch(NOBODY, HERE)


async def test_a_slow_answer_is_given_up(issuer: Issuer) -> None:
    issuer.open.clear()
    with pytest.raises(FetchError, match=r"no answer within 0\.05 s"):
        await fetch(issuer.url, HERE, timeout_s=0.05)


async def test_an_answer_that_comes_in_drops_is_given_up(issuer: Issuer) -> None:
    never = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{")
        await never.wait()
        return response

    issuer.instead = drip
    with pytest.raises(FetchError, match=r"no answer within 0\.05 s"):
        await fetch(issuer.url, HERE, timeout_s=0.05)
    never.set()


async def test_an_answer_is_read_so_far_and_no_further(issuer: Issuer) -> None:
    issuer.says(b" " * LIMIT_BYTES)
    assert len(await fetch(issuer.url, HERE)) == LIMIT_BYTES
    issuer.says(b" " * (LIMIT_BYTES + 1))
    with pytest.raises(FetchError, match="more than 256 KiB"):
        await fetch(issuer.url, HERE)


async def test_nothing_is_decompressed(issuer: Issuer) -> None:
    issuer.says(b"\x1f\x8b" + b"\0" * 20, Content_Encoding="gzip")
    assert (await fetch(issuer.url, HERE))[:2] == b"\x1f\x8b"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "what is not JSON"),
        (b"<html>", "what is not JSON"),
        (b"\xff\xfe", "what is not JSON"),
        (b"[" * 100_000, "what is not JSON"),
        (b"[]", "what is not a JSON Web Key Set"),
        (b"{}", "what is not a JSON Web Key Set"),
        (b'{"keys": {}}', "what is not a JSON Web Key Set"),
        (b'{"keys": []}', "with 0 keys, and none of them can be used"),
        (b'{"keys": [null, 1, "a", [], {}, {"kty": ["RSA"]}]}', "with 6 keys, and none of them can be used"),
        (json.dumps({"keys": [{}] * 101}).encode(), "with more than 100 keys"),
    ],
)
async def test_an_answer_that_is_no_set_of_keys_changes_nothing(
    issuer: Issuer, published: Published, ring: Keyring, clock: Clock, body: bytes, why: str
) -> None:
    issuer.keys = [jwk_of("RS256", kid="1")]
    assert await accepts(ring, sign("RS256", kid="1"))
    issuer.says(body)
    clock.now += 3600
    assert await accepts(ring, sign("RS256", kid="1"))
    assert why in published.problem


def test_of_a_set_only_what_is_public_and_signs_is_used() -> None:
    good = jwk_of("RS256", kid="good", use="sig", key_ops=["verify"])
    short = one_rsa(1024).public_key().public_numbers().n
    odd = [
        jwk_of("HS256", kid="secret"),
        jwk_of("ES256", kid="private", secret=True),
        jwk_of("ES256", kid="for encryption", use="enc"),
        jwk_of("ES256", kid="for signing", key_ops=["sign"]),
        jwk_of("ES256", kid="of another kind", alg="RS256"),
        {
            "kty": "RSA",
            "kid": "short",
            "n": encoded(short.to_bytes(128)),
            "e": "AQAB",
        },
        {"kty": "OKP", "kid": "unknown", "crv": "X25519", "x": "A" * 43},
        {"kty": "EC", "kid": "unknown", "crv": "secp256k1", "x": "A" * 43, "y": "A" * 43},
    ]
    with heard() as seen:
        found = keys_of_jwks(json.dumps({"keys": [*odd, good]}).encode(), TERMS, "there")
    assert [key.kid for key in found] == ["good"]
    assert [name for name, _ in seen].count("key not used") == len(odd)
    assert [name for name, _ in seen].count("private key published") == 1


# Where keys may come from.


async def test_redirects_are_followed_some_way(issuer: Issuer) -> None:
    async def redirect(request: web.Request) -> web.Response:
        left = int(request.query.get("left", "0"))
        if left == 0:
            return web.Response(body=b"here")
        raise web.HTTPFound(f"/keys?left={left - 1}")

    issuer.instead = redirect
    assert await fetch(f"{issuer.url}?left=3", HERE) == b"here"
    with pytest.raises(FetchError, match="redirects without end"):
        await fetch(f"{issuer.url}?left=4", HERE)


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ("https://127.0.0.1:1/keys", "redirects to another scheme"),
        ("file:///etc/passwd", "is no address of http or https"),
        ("ftp://127.0.0.1/keys", "is no address of http or https"),
        ("http://keys.example/keys", "is not https"),
        ("http://u:p@127.0.0.1:1/", "holds a user or a password"),
        ("http://[::1/", "cannot be asked: ValueError"),
        ("", "answers with status 302"),
    ],
)
async def test_a_redirect_is_looked_at_like_an_address(issuer: Issuer, there: str, why: str) -> None:
    issuer.says(status=302, Location=there)
    with pytest.raises(FetchError, match=why):
        await fetch(issuer.url, HERE)


@pytest.mark.parametrize(
    "url",
    [
        "https://keys.example/a",
        "https://10.0.0.1/a",
        "http://localhost:8/a",
        "http://127.9.9.9/a",
        "http://[::1]/a",
    ],
)
def test_addresses_that_are_asked(url: str) -> None:
    assert refusal(url, HERE) is None


@pytest.mark.parametrize(
    "url",
    ["http://keys.example/a", "http://10.0.0.1/a", "http://localhost.example/", "http://127.1/", "http://0/"],
)
def test_without_tls_only_this_machine_is_asked(url: str) -> None:
    assert "is not https" in str(refusal(url, HERE))
    assert refusal(url, Reach(plain_http=True)) is None


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "172.16.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "[::1]",
        "[fd00::1]",
        "[fe80::1]",
        "[::ffff:10.0.0.1]",
    ],
)
def test_private_addresses_can_be_shut_out(host: str) -> None:
    assert "private address" in str(refusal(f"https://{host}/", Reach(private=False)))
    for public in ("93.184.215.14", "[::ffff:93.184.215.14]", "[2606:4700::1111]"):
        assert refusal(f"https://{public}/", Reach(private=False)) is None


async def test_a_name_that_leads_to_a_private_address_is_shut_out_too(issuer: Issuer) -> None:
    issuer.keys = [jwk_of("ES256")]
    url = issuer.url.replace("127.0.0.1", "localhost")
    assert await fetch(url, HERE)
    with pytest.raises(FetchError, match="is a private address"):
        await fetch(url, Reach(private=False))
    assert issuer.asked == 1


def test_a_log_has_no_secret_of_an_address() -> None:
    assert shown("https://a/keys?apikey=s3cret#s3cret") == "https://a/keys"
