"""A subject, claims, our key and now → a signed token; and our key → what others verify it with. No I/O.

The id of a key is its thumbprint (RFC 7638), so a key is one file with nothing to keep beside it, and two
machines that have the same key call it the same.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from replicator.errors import ConfigError
from replicator.sync.keys import (
    Key,
    PublicKey,
    Terms,
    UnusableKey,
    algorithms_for,
    key_of_public,
    key_of_secret,
    secret_of,
)

#: What a token says in any case; nobody else may say it.
OURS = frozenset({"sub", "aud", "iat", "exp", "iss", "nbf"})
#: The parts a thumbprint is made of, and with them the public key.
THUMBPRINT = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
KEYGEN = "`replicator token keygen` makes one that can be used."

PrivateKey: TypeAlias = (
    rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key of ours, and the one algorithm it signs with."""

    kid: str | None
    algorithm: str
    material: PrivateKey | bytes = field(repr=False)

    def verifier(self, terms: Terms) -> Key:
        """The key that accepts what this one signs."""
        if isinstance(self.material, bytes):
            return key_of_secret(self.material, terms, kid=self.kid)
        return key_of_public(self.material.public_key(), terms, kid=self.kid, algorithm=self.algorithm)


def issue(
    sub: str,
    claims: Mapping[str, Any],
    key: SigningKey,
    now: float,
    lifetime_s: int,
    *,
    audience: str,
    issuer: str | None = None,
) -> str:
    """A token that names `sub`, from now on for so long."""
    if taken := OURS & claims.keys():
        raise ValueError(f"{', '.join(sorted(taken))}: these claims are ours to make")
    issued = int(now)
    said = {**claims, "sub": sub, "aud": audience, "iat": issued, "exp": issued + lifetime_s}
    if issuer is not None:
        said["iss"] = issuer
    headers = {"kid": key.kid} if key.kid is not None else {}
    return jwt.encode(said, key.material, algorithm=key.algorithm, headers=headers)


def jwks(keys: Iterable[SigningKey]) -> dict[str, list[dict[str, str]]]:
    """The body of `/.well-known/jwks.json`: public keys, and no secret."""
    return {"keys": [public_jwk(key) for key in keys if not isinstance(key.material, bytes)]}


def public_jwk(key: SigningKey) -> dict[str, str]:
    assert not isinstance(key.material, bytes), "a secret has no public part"
    parts = _public_parts(key.material.public_key())
    return {**parts, "use": "sig", "alg": key.algorithm, "kid": key.kid or _thumbprint(parts)}


def key_of_pem(pem: bytes, where: str) -> SigningKey:
    """The private key of a PEM file (PKCS #8, or what openssl wrote before); ConfigError if it is none."""
    try:
        found = serialization.load_pem_private_key(pem, password=None)
    except TypeError:  # what it says for a file that needs one
        raise ConfigError(f"{where}: the private key is encrypted", "Store it without a password.") from None
    except (ValueError, UnsupportedAlgorithm):
        what = f"{where}: holds no private key in PEM form"
        begins = 'It begins with "-----BEGIN PRIVATE KEY-----" and has lines. '
        raise ConfigError(what, begins + KEYGEN) from None
    if not isinstance(found, PrivateKey):
        raise ConfigError(f"{where}: is no key that signs tokens", KEYGEN)
    return _signing(found, where)


def key_of_configured(jwk: Mapping[str, Any], where: str) -> SigningKey | None:
    """A configured JSON Web Key, if it can sign: a secret, or a key with its private part."""
    kid, algorithm = jwk.get("kid"), jwk.get("alg")
    if jwk.get("kty") == "oct":
        return SigningKey(kid, algorithm or "HS256", secret_of(jwk))
    if "d" not in jwk:
        return None
    maker: Any = get_default_algorithms()[{"RSA": "RS256", "EC": "ES256"}.get(jwk["kty"], "EdDSA")]
    try:
        found = maker.from_jwk(dict(jwk))
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, UnsupportedAlgorithm):
        raise ConfigError(f"{where}: its private part cannot be used", KEYGEN) from None
    return _signing(found, where, kid, algorithm)


def _signing(
    private: PrivateKey, where: str, kid: str | None = None, algorithm: str | None = None
) -> SigningKey:
    public = private.public_key()
    try:
        fitting = algorithms_for(public)
    except UnusableKey as error:
        raise ConfigError(f"{where}: {error}", KEYGEN) from None
    chosen = algorithm or ("RS256" if "RS256" in fitting else min(fitting))
    return SigningKey(kid or _thumbprint(_public_parts(public)), chosen, private)


def _public_parts(public: PublicKey) -> dict[str, str]:
    makers: dict[type, str] = {rsa.RSAPublicKey: "RS256", ec.EllipticCurvePublicKey: "ES256"}
    name = next((name for kind, name in makers.items() if isinstance(public, kind)), "EdDSA")
    maker: Any = get_default_algorithms()[name]
    jwk: dict[str, str] = maker.to_jwk(public, as_dict=True)
    return {part: jwk[part] for part in THUMBPRINT[jwk["kty"]]}


def _thumbprint(parts: Mapping[str, str]) -> str:
    digest = hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
