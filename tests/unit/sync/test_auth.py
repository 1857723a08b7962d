"""Whatever stands in an Authorization header is a user whom a key of ours vouches for, or an AuthError."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from replicator.sync import auth
from replicator.sync.auth import AuthError, NoKey, User, token_of, verify
from replicator.sync.keys import ALGORITHMS, Key, Terms, UnusableKey, key_of_jwk, key_of_secret
from tests.unit.sync.signers import CLAIMS, NOW, SECRET, encoded, jwk_of, one_rsa, private, sign, signed

TERMS = Terms(audience=("app", "other"))
GENERIC, SIGNATURE, EXPIRED, LIVES, AUDIENCE, MISSING = (f"PSYNC_S210{n}" for n in range(1, 7))


def keys(*names: str, terms: Terms = TERMS, **more: Any) -> list[Key]:
    return [key_of_jwk(jwk_of(name, **more), terms) for name in names]


def refused(token: str, *known: Key, now: float = NOW) -> AuthError:
    with pytest.raises(AuthError) as raised:
        verify(token, known or keys("RS256"), now)
    assert raised.value.status == 401
    return raised.value


# The header.


@pytest.mark.parametrize("header", ["Token a.b.c", "Bearer a.b.c"])
def test_both_words_before_a_token_are_understood(header: str) -> None:
    assert token_of(header) == "a.b.c"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        " ",
        "a.b.c",
        "token a",
        "BEARER a",
        "Bearer",
        "Bearer ",
        "Bearer  a",
        "Bearer a ",
        "Bearer a b",
        " Bearer a",
        "Basic YTpi",
        "Bearer a\n",
        "Bearer\ta",
        "Tokena.b.c",
    ],
)
def test_anything_else_is_no_token(header: str | None) -> None:
    with pytest.raises(AuthError) as raised:
        token_of(header)
    assert raised.value.code == MISSING


# Signatures.


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_signature_of_each_algorithm_holds(algorithm: str) -> None:
    user = verify(sign(algorithm), keys(algorithm), NOW)
    assert (user.sub, user.claims, user.expires_at) == ("ann", CLAIMS, NOW + 3600)


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_signature_of_another_key_or_over_other_claims_does_not(algorithm: str) -> None:
    other = sign(f"{algorithm}/b")
    assert refused(other, *keys(algorithm)).code == GENERIC
    assert refused(sign(f"{algorithm}/b", kid="1"), *keys(algorithm, kid="1")).code == SIGNATURE
    head, _, signature = sign(algorithm, kid="1").split(".")
    forged = f"{head}.{encoded(json.dumps({**CLAIMS, 'sub': 'eve'}).encode())}.{signature}"
    assert refused(forged, *keys(algorithm, kid="1")).code == SIGNATURE
    for broken in ("", "AA", signature[:-8], signature + "AAAA"):
        assert refused(f"{head}.{sign(algorithm).split('.')[1]}.{broken}", *keys(algorithm, kid="1")).code


def test_ed448_holds_too() -> None:
    assert verify(sign("EdDSA/448"), keys("EdDSA/448"), NOW).sub == "ann"


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "", "HS1", "ES256K", "RS256 ", "rs256", None, 1, ["RS256"], {}]
)
def test_unsigned_and_unknown_algorithms_are_not_accepted(alg: Any) -> None:
    payload = json.dumps(CLAIMS).encode()
    for token in (signed("RS256", {"alg": alg}, payload), signed("RS256", {"alg": alg, "kid": "1"}, payload)):
        bare = token.rpartition(".")[0] + "."
        assert refused(token, *keys("RS256"), *keys("RS256", kid="1")).code == GENERIC
        assert refused(bare, *keys("RS256"), *keys("RS256", kid="1")).code == GENERIC


@pytest.mark.parametrize("kid", [None, "1"])
def test_a_public_key_is_not_a_secret(kid: str | None) -> None:
    """The confusion of algorithms: what everybody can read, taken as what nobody else knows."""
    public = private("RS256").public_key()
    for form in (serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1):
        for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
            as_secret = key_of_secret(public.public_bytes(encoding, form), TERMS)
            message = sign("HS256", kid=kid).rpartition(".")[0]
            made = _hmac(message, as_secret)
            assert verify(made, [as_secret], NOW).sub == "ann", "the attack itself is right"
            assert refused(made, *keys("RS256", kid=kid)).code == GENERIC


def _hmac(message: str, key: Key) -> str:
    import hashlib
    import hmac

    assert isinstance(key.material, bytes)
    return f"{message}.{encoded(hmac.digest(key.material, message.encode(), hashlib.sha256))}"


@pytest.mark.parametrize(
    ("named", "truth"), [("ES384", "ES256"), ("RS512", "RS256"), ("PS256", "RS256"), ("HS512", "HS256")]
)
def test_the_algorithm_is_the_one_the_token_names(named: str, truth: str) -> None:
    token = signed(truth, {"alg": named}, json.dumps(CLAIMS).encode(), by=truth)
    assert refused(token, *keys(truth), *keys(named)).code == GENERIC


def test_a_key_that_names_its_algorithm_takes_no_other() -> None:
    for algorithm in ("RS256", "RS512", "PS256"):
        known = keys("RS256", alg=algorithm)
        assert known[0].algorithms == {algorithm}
    token = signed("RS256", {"alg": "RS512"}, json.dumps(CLAIMS).encode(), by="RS512")
    assert verify(token, keys("RS256"), NOW)
    assert refused(token, *keys("RS256", alg="RS256")).code == GENERIC
    error = refused(
        signed("RS256", {"alg": "RS512", "kid": "1"}, b"{}", by="RS512"), *keys("RS256", alg="RS256", kid="1")
    )
    assert error.what == "The token's algorithm is RS512, and the key it names is for RS256"


@pytest.mark.parametrize("extension", [{"crit": ["exp"]}, {"crit": []}, {"b64": False}, {"b64": True}])
def test_extensions_of_the_header_are_not_accepted(extension: dict[str, Any]) -> None:
    assert refused(sign("RS256", **extension)).what.endswith("extension that is not known here")


# Which key.


def test_a_kid_names_the_one_key_that_is_tried() -> None:
    known = [*keys("RS256", kid="1"), *keys("RS256/b", kid="2"), *keys("RS256/b")]
    assert verify(sign("RS256", kid="1"), known, NOW)
    assert verify(sign("RS256/b", kid="2"), known, NOW)
    assert refused(sign("RS256", kid="2"), *known).code == SIGNATURE
    assert refused(sign("RS256/b", kid="1"), *known).code == SIGNATURE


def test_without_a_fitting_kid_every_key_without_one_is_tried() -> None:
    known = [*keys("RS256", kid="1"), *keys("RS256/b", "ES256", "HS256")]
    for name in ("RS256/b", "ES256", "HS256"):
        assert verify(sign(name), known, NOW)
        assert verify(sign(name, kid="unknown"), known, NOW)
    assert isinstance(refused(sign("RS256"), *known), NoKey), "its key has a kid, and the token none"


def test_of_two_keys_of_one_name_each_is_tried() -> None:
    known = [*keys("ES256", kid="1"), *keys("RS256", kid="1"), *keys("RS256/b", kid="1")]
    assert verify(sign("RS256/b", kid="1"), known, NOW)


def test_which_key_is_missing_is_told() -> None:
    error = refused(sign("RS256", kid="k9"), *keys("RS256/b", "ES256", kid="1"), *keys("HS256"))
    assert isinstance(error, NoKey)
    assert error.hint.startswith('The token names the kid "k9"; 3 known, 1 of them without a kid')
    assert "sync.jwks_uri" in _no_keys().hint
    assert refused(sign("RS256", kid=7)).what == "The token's kid is not text"


def _no_keys() -> AuthError:
    with pytest.raises(NoKey) as raised:
        verify(sign("RS256"), [], NOW)
    return raised.value


def test_each_key_has_terms_of_its_own() -> None:
    known = keys("RS256") + keys("RS256/b", terms=Terms(("authenticated",), max_age_s=10 * 86_400))
    long = {"aud": "authenticated", "exp": NOW + 7 * 86_400}
    assert verify(sign("RS256/b", long), known, NOW)
    assert refused(sign("RS256", long), *known).code == AUDIENCE
    assert refused(sign("RS256/b"), *known).code == AUDIENCE


# What a token says.

GOOD: list[dict[str, Any]] = [
    {"aud": ["x", "other"]},
    {"aud": "other"},
    {"exp": NOW + 0.5},
    {"exp": NOW - 59},
    {"exp": NOW - 59.9},
    {"iat": NOW + 60},
    {"iat": NOW + 60, "nbf": NOW + 60},
    {"nbf": NOW - 1e6},
    {"iat": NOW - 86_000, "exp": NOW + 400},
    {"iat": NOW - 1.5, "exp": NOW + 86_398.5},
    {"parameters": {"a": 1}},
    {"parameters": None},
    {"iss": "anybody", "jti": 5},
]
BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"aud": None}, AUDIENCE, "The token has no aud; expected is app or other"),
    ({"aud": "x"}, AUDIENCE, 'The token has the aud "x"; expected is app or other'),
    ({"aud": ["x", "y"]}, AUDIENCE, 'The token has the aud ["x","y"]; expected is app or other'),
    ({"aud": []}, AUDIENCE, "The token has the aud []; expected is app or other"),
    ({"aud": "APP"}, AUDIENCE, 'The token has the aud "APP"; expected is app or other'),
    ({"aud": {"app": 1}}, AUDIENCE, "The token has the aud no text; expected is app or other"),
    ({"aud": [["app"]]}, AUDIENCE, "The token has the aud no text; expected is app or other"),
    ({"aud": "x" * 999}, AUDIENCE, f'The token has the aud "{"x" * 199}…; expected is app or other'),
    ({"exp": None}, GENERIC, "The token has no exp"),
    ({"iat": None}, GENERIC, "The token has no iat"),
    ({"exp": NOW - 60}, EXPIRED, "The token has expired"),
    ({"exp": 0}, EXPIRED, "The token has expired"),
    ({"exp": -1}, EXPIRED, "The token has expired"),
    ({"exp": str(NOW + 9)}, GENERIC, "The token's exp is not a number of seconds"),
    ({"exp": True}, GENERIC, "The token's exp is not a number of seconds"),
    ({"exp": [NOW]}, GENERIC, "The token's exp is not a number of seconds"),
    ({"exp": 1e300}, GENERIC, "The token's exp is not a time"),
    ({"exp": 1 << 60}, GENERIC, "The token's exp is not a time"),
    ({"iat": -(1 << 60)}, GENERIC, "The token's iat is not a time"),
    ({"iat": NOW + 61}, GENERIC, "The token was issued later than now"),
    ({"nbf": NOW + 61}, GENERIC, "The token is not valid yet"),
    ({"nbf": "x"}, GENERIC, "The token's nbf is not a number of seconds"),
    ({"exp": NOW + 86_401}, LIVES, "The token lives for 86401 s; at most 86400 s are accepted"),
    (
        {"iat": NOW - 86_000, "exp": NOW + 500},
        LIVES,
        "The token lives for 86500 s; at most 86400 s are accepted",
    ),
    ({"sub": None}, GENERIC, "The token has no sub"),
    ({"sub": ""}, GENERIC, "The token has a sub that is no text or whole number, or empty"),
    ({"sub": True}, GENERIC, "The token has a sub that is no text or whole number, or empty"),
    ({"sub": ["ann"]}, GENERIC, "The token has a sub that is no text or whole number, or empty"),
    ({"sub": "a\0b"}, GENERIC, "The token has a sub that is no text or whole number, or empty"),
    ({"parameters": []}, GENERIC, "The token's parameters must be an object"),
    ({"parameters": "a"}, GENERIC, "The token's parameters must be an object"),
]


@pytest.mark.parametrize("claims", GOOD, ids=json.dumps)
def test_claims_within_the_terms(claims: dict[str, Any]) -> None:
    assert verify(sign("RS256", claims), keys("RS256"), NOW).sub == "ann"


@pytest.mark.parametrize(("claims", "code", "what"), BAD, ids=[what for *_, what in BAD])
def test_claims_outside_the_terms(claims: dict[str, Any], code: str, what: str) -> None:
    error = refused(sign("RS256", claims))
    assert (error.code, error.description) == (code, what)


def test_no_tolerance_is_possible() -> None:
    strict = Terms(("app",), tolerance_s=0)
    assert verify(sign("RS256", {"exp": NOW + 1}), keys("RS256", terms=strict), NOW)
    assert refused(sign("RS256", {"exp": NOW}), *keys("RS256", terms=strict)).code == EXPIRED
    assert refused(sign("RS256", {"iat": NOW + 1}), *keys("RS256", terms=strict)).code == GENERIC


def test_the_issuer_counts_where_one_is_expected() -> None:
    terms = Terms(("app",), issuer="https://login")
    assert verify(sign("RS256", {"iss": "https://login"}), keys("RS256", terms=terms), NOW)
    for iss in (None, "https://login/", ["https://login"], 1):
        assert refused(sign("RS256", {"iss": iss}), *keys("RS256", terms=terms)).code == GENERIC


def test_without_an_audience_no_token_is_good() -> None:
    error = refused(sign("RS256", {"aud": ""}), *keys("RS256", terms=Terms()))
    assert (error.code, error.hint) == (AUDIENCE, "Write it under sync.audience.")


@pytest.mark.parametrize(
    ("sub", "text"),
    [
        (7, "7"),
        (0, "0"),
        (-3, "-3"),
        (7.0, "7"),
        (2**60, str(2**60)),
        (-(10**30), str(-(10**30))),
        (" a", " a"),
    ],
)
def test_a_subject_may_be_a_number(sub: object, text: str) -> None:
    user = verify(sign("RS256", {"sub": sub}), keys("RS256"), NOW)
    assert (user.sub, user.claims["sub"]) == (text, sub)


@pytest.mark.parametrize("number", [2**53, 2**63, 2**64, 10**30, 10**300])
def test_two_numbers_are_two_users(number: int) -> None:
    first, second = (
        verify(sign("RS256", {"sub": sub, "orgs": [sub]}), keys("RS256"), NOW) for sub in (number, number + 1)
    )
    assert (first.sub, second.sub) == (str(number), str(number + 1))
    assert (first.claims["orgs"], second.claims["orgs"]) == ([number], [number + 1])


@pytest.mark.parametrize("sub", [1.5, 1e20, 2.0**53, -(2.0**53), 1e300])
def test_a_number_that_stands_for_several_is_no_subject(sub: float) -> None:
    assert refused(sign("RS256", {"sub": sub})).description.startswith("The token has a sub that is no text")


# Garbage.


def test_an_over_long_token_is_refused_before_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = sign("RS256", {"x": "y" * 11_500})
    assert verify(longest, keys("RS256"), NOW)
    monkeypatch.setattr(auth, "TOKEN", None)
    assert "longer than 16384" in refused("a" * 16_385).what
    assert "longer than 16384" in refused(sign("RS256", {"x": "y" * 13_000})).what


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff",
        b'{"exp": NaN}',
        b'{"exp": 1e999}',
        b'{"sub": "\\ud800"}',
        b'"a"',
        b"{}{}",
        b"[" * 5000,
        b'{"aud": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"a":' * 900 + b"1" + b"}" * 900,
    ],
)
def test_a_signed_payload_that_is_no_set_of_claims(payload: bytes) -> None:
    assert refused(signed("RS256", {"alg": "RS256"}, payload)).code in (GENERIC, AUDIENCE)


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "é.b.c",
        "e30.e30.",
        "e30.e30.e30",
        "W10.e30.e30",
        "bnVsbA.e30.e30",
        "e30=.e30.e30",
        "e3 0.e30.e30",
        "e30.e30.e30\n",
        "////.e30.e30",
        "A.e30.e30",
        f"{encoded(b'{' * 4000)}.e30.e30",
        f"{encoded(b'[' * 9000)}.e30.e30",
    ],
)
def test_what_is_no_token_at_all(token: str) -> None:
    assert refused(token).code == GENERIC


@given(header=st.binary(max_size=300) | st.binary(max_size=60).map(lambda b: b"Bearer " + b))
def test_any_bytes_as_a_header_are_an_auth_error(header: bytes) -> None:
    with pytest.raises(AuthError):
        verify(token_of(header.decode("latin-1")), keys("HS256"), NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@given(
    header=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "x"]), JSON),
    payload=JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60),
    signature=st.binary(max_size=80),
)
def test_any_token_without_our_key_is_an_auth_error(
    header: dict[str, Any], payload: bytes, signature: bytes
) -> None:
    for alg in ({}, {"alg": "HS256"}, {"alg": "RS256"}, {"alg": "ES256"}, {"alg": "EdDSA"}):
        parts = (json.dumps({**header, **alg}).encode(), payload, signature)
        with pytest.raises(AuthError):
            verify(".".join(map(encoded, parts)), keys("HS256", "RS256", "ES256", "EdDSA"), NOW)


@given(claims=st.dictionaries(st.sampled_from([*CLAIMS, "nbf", "parameters"]), JSON))
def test_any_signed_claims_are_a_user_or_an_auth_error(claims: dict[str, Any]) -> None:
    token = signed("HS256", {"alg": "HS256"}, json.dumps({**CLAIMS, **claims}).encode())
    try:
        user = verify(token, keys("HS256"), NOW)
    except AuthError as error:
        error.body()
    else:
        assert isinstance(user, User) and user.sub and NOW - 60 < user.expires_at <= NOW + 60 + 86_400


# What is told.


def test_an_error_is_told_as_clients_know_it() -> None:
    assert AuthError("PSYNC_S2101", "what", "why").body() == {
        "error": {
            "name": "AuthorizationError",
            "code": "PSYNC_S2101",
            "status": 401,
            "description": "what",
            "details": "why",
        }
    }
    assert "details" not in str(AuthError("PSYNC_S2103", "what").body())


def test_nothing_of_a_token_is_logged_or_repeated(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = {"sub": "s3cret", "name": "s3cret", "parameters": ["s3cret"], "jti": "s3cret"}
    user = verify(sign("RS256", {**secret, "parameters": {}}), keys("RS256"), NOW)
    told = [repr(user), caplog.text]
    for claims in ({}, {"aud": "x"}, {"exp": 1}, {"iat": 1}):
        for name in ("RS256", "RS256/b"):
            token = sign(name, {**secret, **claims})
            error = refused(token)
            told += [str(error), error.hint, repr(error)]
            assert not any(part in text for part in token.split(".") for text in told)
    assert not any("s3cret" in text for text in told)


# Keys.


@pytest.mark.parametrize(
    ("jwk", "why"),
    [
        ({}, "its kty is none of oct, RSA, EC and OKP"),
        ({"kty": ["RSA"]}, "its kty is none of oct, RSA, EC and OKP"),
        ({"kty": "oct"}, "its k is not base64url: A-Z, a-z, 0-9, - and _ (not + and /)"),
        ({"kty": "oct", "k": "++++"}, "its k is not base64url: A-Z, a-z, 0-9, - and _ (not + and /)"),
        ({"kty": "oct", "k": "A"}, "its k is not base64url: a character is missing"),
        ({"kty": "oct", "k": encoded(SECRET[:31])}, "the secret has 248 bits, and HS256 needs 256"),
        (
            {"kty": "oct", "k": encoded(SECRET[:32]), "alg": "HS512"},
            "the secret has 256 bits, and HS512 needs 512",
        ),
        (
            {"kty": "oct", "k": encoded(SECRET), "alg": "RS256"},
            "its alg does not fit it; what fits: HS256, HS384, HS512",
        ),
        (
            {"kty": "oct", "k": encoded(SECRET), "alg": ["HS256"]},
            "its alg does not fit it; what fits: HS256, HS384, HS512",
        ),
        ({"kty": "oct", "k": encoded(SECRET), "use": "enc"}, "its use is not sig, so it signs nothing"),
        ({"kty": "oct", "k": encoded(SECRET), "key_ops": ["sign"]}, "its key_ops does not hold verify"),
        ({"kty": "oct", "k": encoded(SECRET), "kid": 7}, "its kid is not text"),
        ({"kty": "RSA", "n": "AQAB"}, "its e is missing or not base64url"),
        ({"kty": "RSA", "n": "AQAB", "e": 3}, "its e is missing or not base64url"),
        ({"kty": "RSA", "n": "A" * 2049, "e": "AQAB"}, "its n is longer than any that can be used"),
        (
            {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
            "its numbers are no RSA key, or its crv is not known here",
        ),
        (
            {"kty": "EC", "crv": "P-256", "x": "AQAB", "y": "AQAB"},
            "its numbers are no EC key, or its crv is not known here",
        ),
        (
            {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "B" * 43},
            "its numbers are no EC key, or its crv is not known here",
        ),
        (
            {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
            "its numbers are no OKP key, or its crv is not known here",
        ),
        (
            {"kty": "OKP", "crv": "Ed25519", "x": "AQAB"},
            "its numbers are no OKP key, or its crv is not known here",
        ),
    ],
)
def test_a_key_that_cannot_be_used_says_why(jwk: dict[str, Any], why: str) -> None:
    with pytest.raises(UnusableKey) as raised:
        key_of_jwk(jwk, TERMS)
    assert str(raised.value) == why


@pytest.mark.parametrize("bits", [1024, 2040])
def test_a_short_rsa_key_is_not_used(bits: int) -> None:
    numbers = one_rsa(bits).public_key().public_numbers()
    jwk = {
        "kty": "RSA",
        "n": encoded(numbers.n.to_bytes(bits // 8)),
        "e": "AQAB",
    }
    with pytest.raises(UnusableKey, match=f"the RSA key has {bits} bits; from 2048 to 8192"):
        key_of_jwk(jwk, TERMS)


def test_a_secret_serves_the_hashes_it_is_long_enough_for() -> None:
    for length, fitting in ((32, {"HS256"}), (48, {"HS256", "HS384"}), (64, {"HS256", "HS384", "HS512"})):
        key = key_of_jwk({"kty": "oct", "k": encoded(SECRET[:length])}, TERMS)
        assert key.algorithms == fitting


@pytest.mark.parametrize("name", ["RS256", "ES256", "EdDSA"])
def test_of_a_private_key_only_the_public_part_is_kept(name: str) -> None:
    key = key_of_jwk(jwk_of(name, secret=True), TERMS)
    assert type(key.material) is type(private(name).public_key())
    assert verify(sign(name), [key], NOW)


def test_no_key_is_printed() -> None:
    key = key_of_secret(b"s3cret" * 8, TERMS)
    assert "s3cret" not in repr(key)


@given(
    jwk=st.dictionaries(st.sampled_from(["kty", "kid", "alg", "use", "n", "e", "crv", "x", "y", "k"]), JSON)
)
def test_any_object_is_a_key_or_unusable(jwk: dict[str, Any]) -> None:
    for kind in (
        {},
        {"kty": "RSA"},
        {"kty": "EC", "crv": "P-256"},
        {"kty": "OKP", "crv": "Ed25519"},
        {"kty": "oct"},
    ):
        try:
            key_of_jwk({**jwk, **kind}, TERMS)
        except UnusableKey as error:
            assert str(error)
