"""A token of ours: made by our key, accepted by what we publish of it, and exchanged for a login's."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519

from replicator.errors import ConfigError, Unavailable
from replicator.sync.auth import verify
from replicator.sync.auth_keyring import Keyring
from replicator.sync.keys import Terms, key_of_jwk
from replicator.sync.tokens import OURS, SigningKey, issue, jwks, key_of_configured, key_of_pem, public_jwk
from replicator.sync.upstream import Answer, Issuing, Lookup, exchange
from tests.unit.sync.signers import NOW, SECRET, encoded, jwk_of, one_rsa, private, sign

TERMS = Terms(("app",))
URL = "https://sync.clinic.example"
NAMES = ["RS256", "ES256", "ES384", "ES512", "EdDSA"]


def pem_of(key: Any, *, password: bytes | None = None, old: bool = False) -> bytes:
    form = serialization.PrivateFormat.TraditionalOpenSSL if old else serialization.PrivateFormat.PKCS8
    hidden: Any = serialization.NoEncryption()
    if password is not None:
        hidden = serialization.BestAvailableEncryption(password)
    pem: bytes = key.private_bytes(serialization.Encoding.PEM, form, hidden)
    return pem


def key_of(name: str) -> SigningKey:
    return key_of_pem(pem_of(private(name)), name)


# Signing.


@pytest.mark.parametrize("name", NAMES)
def test_what_is_published_accepts_what_is_signed(name: str) -> None:
    key = key_of(name)
    token = issue("ann", {"role": "nurse"}, key, NOW + 0.9, 3600, audience="app", issuer=URL)
    (published,) = jwks([key])["keys"]
    for known in (key_of_jwk(published, TERMS), key.verifier(TERMS)):
        assert known.kid == key.kid
        user = verify(token, [known], NOW)
        assert user.claims == {
            "role": "nurse",
            "sub": "ann",
            "aud": "app",
            "iat": NOW,
            "exp": NOW + 3600,
            "iss": URL,
        }
    assert key.algorithm == name


@pytest.mark.parametrize("name", NAMES)
def test_what_is_published_holds_nothing_private(name: str) -> None:
    published = public_jwk(key_of(name))
    assert set(published) <= {"kty", "n", "e", "crv", "x", "y", "use", "alg", "kid"}
    assert published["use"] == "sig"
    assert "material" not in repr(key_of(name))


def test_a_secret_is_never_published() -> None:
    assert jwks([SigningKey("1", "HS256", SECRET)]) == {"keys": []}


def test_the_id_of_a_key_is_its_thumbprint() -> None:
    """The example of RFC 7638, section 3.1."""
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCi"
        "FV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgn"
        "Yb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqb"
        "w0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    from replicator.sync.tokens import _thumbprint

    thumbprint = _thumbprint({"n": n, "e": "AQAB", "kty": "RSA"})
    assert thumbprint == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert key_of("RS256").kid == key_of_pem(pem_of(private("RS256"), old=True), "again").kid
    assert key_of("RS256").kid != key_of("RS256/b").kid


@pytest.mark.parametrize("name", sorted(OURS))
def test_no_claim_takes_the_place_of_ours(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: these claims are ours"):
        issue("ann", {name: "x"}, key_of("ES256"), NOW, 60, audience="app")


@pytest.mark.parametrize(
    ("pem", "what"),
    [
        (b"", "holds no private key in PEM form"),
        (b"s3cret", "holds no private key in PEM form"),
        (
            b"-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----",
            "holds no private key in PEM form",
        ),
        (b"\x00\xff", "holds no private key in PEM form"),
        (pem_of(private("ES256"))[:-40], "holds no private key in PEM form"),
        (pem_of(private("ES256"), password=b"s3cret"), "the private key is encrypted"),
        (pem_of(one_rsa(1024)), "the RSA key has 1024 bits"),
        (pem_of(ec.generate_private_key(ec.SECP256K1())), "its curve is none of P-256, P-384 and P-521"),
        (pem_of(x25519.X25519PrivateKey.generate()), "is no key that signs tokens"),
    ],
)
def test_a_file_that_is_no_key_to_sign_with_says_why(pem: bytes, what: str) -> None:
    with pytest.raises(ConfigError) as raised:
        key_of_pem(pem, "key.pem")
    assert raised.value.what.startswith(f"key.pem: {what}")
    assert "s3cret" not in raised.value.what + raised.value.hint


def test_a_public_key_is_no_key_to_sign_with() -> None:
    public = private("RS256").public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ConfigError, match="holds no private key"):
        key_of_pem(pem, "key.pem")


@pytest.mark.parametrize("name", ["HS256", "RS256", "ES256", "EdDSA"])
def test_a_configured_key_that_can_sign_does(name: str) -> None:
    jwk = jwk_of(name, secret=True, kid="mine")
    key = key_of_configured(jwk, "sync.keys[0]")
    assert key is not None
    token = issue("ann", {}, key, NOW, 60, audience="app")
    assert verify(token, [key_of_jwk(jwk, TERMS)], NOW).sub == "ann"


def test_a_configured_public_key_cannot_sign() -> None:
    assert key_of_configured(jwk_of("RS256"), "sync.keys[0]") is None
    with pytest.raises(ConfigError, match=r"sync\.keys\[0\]: its private part cannot be used"):
        key_of_configured({**jwk_of("RS256"), "d": "AQAB", "p": "AQAB"}, "sync.keys[0]")


# Exchanging.

LOGIN = Keyring([key_of_jwk(jwk_of("RS256", kid="login"), Terms(("clinic",), "https://login"))])
THEIRS = {"sub": "firebase|ann", "aud": "clinic", "iss": "https://login", "role": "nurse", "email": "a@b"}


def making(**more: Any) -> Issuing:
    usual: dict[str, Any] = {
        "url": URL,
        "audience": "app",
        "lifetime_s": 28_800,
        "claims": (),
        "key": key_of("ES256"),
    }
    return Issuing(**{**usual, **more})


def found(subject: str | None) -> Lookup:
    async def look_up(_: str) -> str | None:
        return subject

    return look_up


async def ask(
    claims: dict[str, Any] | None = None,
    ours: Issuing | None = None,
    lookup: Lookup | None = None,
    *,
    header: str | None = None,
    login: Keyring | None = LOGIN,
) -> Answer:
    theirs = header or f"Bearer {sign('RS256', {**THEIRS, **(claims or {})}, kid='login')}"
    return await exchange(theirs, ours or making(), login, NOW, lookup)


async def test_a_login_is_exchanged_for_a_token_of_ours() -> None:
    status, body = await ask()
    assert status == 200
    assert body == {
        "token": body["token"],
        "powersync_url": URL,
        "expires_at": "2027-01-15T16:00:00.000Z",
        "user_id": "firebase|ann",
    }
    user = verify(body["token"], [key_of("ES256").verifier(TERMS)], NOW)
    assert (user.sub, user.expires_at) == ("firebase|ann", NOW + 28_800)
    assert datetime.fromisoformat(body["expires_at"]).timestamp() == user.expires_at
    assert not {"role", "email"} & user.claims.keys()
    orjson.dumps(body)


async def test_the_source_may_know_somebody_by_another_name() -> None:
    _, body = await ask(lookup=found("550e8400-e29b-41d4-a716-446655440000"))
    assert body["user_id"] == "550e8400-e29b-41d4-a716-446655440000"
    assert verify(body["token"], [key_of("ES256").verifier(TERMS)], NOW).sub == body["user_id"]


async def test_chosen_claims_are_repeated_and_never_those_that_are_ours() -> None:
    ours = making(claims=("role", "absent", "sub", "aud", "exp", "iss"))
    _, body = await ask({"exp": NOW + 60}, ours)
    claims = verify(body["token"], [key_of("ES256").verifier(TERMS)], NOW).claims
    assert claims == {
        "role": "nurse",
        "sub": "firebase|ann",
        "aud": "app",
        "iss": URL,
        "iat": NOW,
        "exp": NOW + 28_800,
    }


@pytest.mark.parametrize("header", [None, "", "  "])
async def test_without_a_header(header: str | None) -> None:
    assert await exchange(header, making(), LOGIN, NOW) == (401, {"error": "No authorization header"})


@pytest.mark.parametrize(
    "claims", [{"aud": "app"}, {"iss": "https://other"}, {"exp": NOW - 60}, {"sub": None}, {"nbf": NOW + 61}]
)
async def test_a_login_that_does_not_hold(claims: dict[str, Any]) -> None:
    assert await ask(claims) == (401, {"error": "Unauthorized"})


@pytest.mark.parametrize("header", ["Bearer x", "x", "Bearer a.b.c", "Basic YTpi", "Bearer \xff"])
async def test_a_header_that_is_no_login(header: str) -> None:
    assert await ask(header=header) == (401, {"error": "Unauthorized"})


async def test_our_own_token_is_no_login() -> None:
    _, body = await ask()
    assert await ask(header=f"Bearer {body['token']}") == (401, {"error": "Unauthorized"})


async def test_a_login_whom_the_source_does_not_know() -> None:
    assert await ask(lookup=found(None)) == (401, {"error": "Unauthorized"})


@pytest.mark.parametrize("more", [{"url": None}, {"key": None}])
async def test_what_is_not_configured(more: dict[str, Any]) -> None:
    assert await ask(ours=making(**more)) == (500, {"error": "PowerSync not configured"})
    assert await ask(login=None) == (500, {"error": "PowerSync not configured"})


async def test_a_key_that_cannot_be_used() -> None:
    ours = making(key=ConfigError("key.pem: holds no private key"))
    assert await ask(ours=ours) == (500, {"error": "Failed to import private key"})
    assert await ask({"exp": 1}, ours) == (401, {"error": "Unauthorized"}), "not for strangers to know"


async def test_a_source_that_does_not_answer() -> None:
    async def look_up(_: str) -> str | None:
        raise Unavailable("the source does not answer")

    assert await ask(lookup=look_up) == (503, {"error": "Service unavailable"})


async def test_no_login_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for claims in ({}, {"exp": 1}, {"aud": "s3cret"}):
        await ask({"sub": "s3cret", "email": "s3cret", **claims}, lookup=found(None))
    fields = [json.dumps(getattr(record, "fields", {})) for record in caplog.records]
    assert len(fields) == 3
    assert not any("s3cret" in text for text in [caplog.text, *fields])
    assert not any(encoded(b'{"s')[:3] in text for text in fields)
