"""A JSON Web Key or a secret → a Key: which algorithms it may verify, and on which terms. No I/O.

The key decides which algorithms fit it, never the token: the confusion of an RSA key with an HMAC secret, and
`none`, cannot be expressed. The library checks no lengths, so they are checked here: a short secret can be
guessed from one token. Of a private key only the public part is kept.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import Algorithm, get_default_algorithms

DAY_S = 86_400
#: RSA: below, it can be broken; above, one verification costs too much. In bits.
RSA_BITS = (2048, 8192)
#: HMAC: a secret is at least as long as the hash (RFC 7518, 3.2). In bytes.
HMAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
EC_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
EDDSA = frozenset({"EdDSA"})
ALGORITHMS = frozenset(HMAC_BYTES) | RSA_ALGORITHMS | frozenset(EC_ALGORITHMS.values()) | EDDSA
#: What a public key of each kind is made of; whatever else a JWK holds is not looked at.
PARTS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
#: Characters; no number of a usable key is longer.
PART_MOST = 2048
BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")

PublicKey: TypeAlias = (
    rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
)
_VERIFIERS: Mapping[str, Algorithm] = get_default_algorithms()


@dataclass(frozen=True, slots=True)
class Terms:
    """What a token has to say beside being signed."""

    #: One of them is enough; with none, no token is good.
    audience: tuple[str, ...] = ()
    #: None: whoever it says.
    issuer: str | None = None
    #: How long a token may live, from when it was issued.
    max_age_s: int = DAY_S
    #: How far the clocks of two machines may differ.
    tolerance_s: int = 60


@dataclass(frozen=True, slots=True)
class Key:
    """Something that verifies."""

    #: None: tried for every token whose own key is not here.
    kid: str | None
    algorithms: frozenset[str]
    terms: Terms
    material: PublicKey | bytes = field(repr=False)

    def verifies(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Whether this key made that signature."""
        if algorithm not in self.algorithms:
            return False
        try:
            return bool(_VERIFIERS[algorithm].verify(message, self.material, signature))
        except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
            return False


class UnusableKey(ValueError):
    """Why a key cannot be used; never a part of it."""


def key_of_jwk(jwk: Mapping[str, Any], terms: Terms) -> Key:
    """The Key of a JSON Web Key; UnusableKey says what is wrong with it."""
    kind, kid = jwk.get("kty"), jwk.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise UnusableKey("its kid is not text")
    if jwk.get("use", "sig") != "sig":
        raise UnusableKey("its use is not sig, so it signs nothing")
    operations = jwk.get("key_ops")
    if operations is not None and (not isinstance(operations, list) or "verify" not in operations):
        raise UnusableKey("its key_ops does not hold verify")
    if kind == "oct":
        material: PublicKey | bytes = secret_of(jwk)
    elif isinstance(kind, str) and kind in PARTS:
        material = _public(kind, jwk)
    else:
        raise UnusableKey("its kty is none of oct, RSA, EC and OKP")
    return _key(kid or None, material, terms, jwk.get("alg"))


def key_of_secret(secret: bytes, terms: Terms, *, kid: str | None = None) -> Key:
    """A raw secret, as Supabase shows it: for HS256 alone."""
    return _key(kid, secret, terms, "HS256")


def key_of_public(public: PublicKey, terms: Terms, *, kid: str | None, algorithm: str) -> Key:
    return _key(kid, public, terms, algorithm)


def secret_of(jwk: Mapping[str, Any]) -> bytes:
    """The bytes of an `oct` key."""
    written = jwk.get("k")
    if not isinstance(written, str) or not BASE64URL.fullmatch(written):
        raise UnusableKey("its k is not base64url: A-Z, a-z, 0-9, - and _ (not + and /)")
    return _decoded(written, "k")


def algorithms_for(material: PublicKey | bytes) -> frozenset[str]:
    """Every algorithm this key is the right kind and long enough for; UnusableKey if there is none."""
    match material:
        case bytes():
            fitting = frozenset(name for name, least in HMAC_BYTES.items() if len(material) >= least)
            if not fitting:
                raise UnusableKey(f"the secret has {8 * len(material)} bits, and HS256 needs 256")
            return fitting
        case rsa.RSAPublicKey():
            if not RSA_BITS[0] <= material.key_size <= RSA_BITS[1]:
                what = f"{material.key_size} bits; from {RSA_BITS[0]} to {RSA_BITS[1]} can be used"
                raise UnusableKey(f"the RSA key has {what}")
            return RSA_ALGORITHMS
        case ec.EllipticCurvePublicKey():
            if material.curve.name not in EC_ALGORITHMS:
                raise UnusableKey("its curve is none of P-256, P-384 and P-521")
            return frozenset({EC_ALGORITHMS[material.curve.name]})
    return EDDSA


def _key(kid: str | None, material: PublicKey | bytes, terms: Terms, algorithm: object) -> Key:
    """A Key for the algorithm it names, else for all that fit."""
    needed = HMAC_BYTES.get(str(algorithm))
    if isinstance(material, bytes) and needed is not None and len(material) < needed:
        raise UnusableKey(f"the secret has {8 * len(material)} bits, and {algorithm} needs {8 * needed}")
    fitting = algorithms_for(material)
    if algorithm is not None and str(algorithm) not in fitting:
        raise UnusableKey(f"its alg does not fit it; what fits: {', '.join(sorted(fitting))}")
    return Key(kid, fitting if algorithm is None else frozenset({str(algorithm)}), terms, material)


def _public(kind: str, jwk: Mapping[str, Any]) -> PublicKey:
    parts = {name: jwk.get(name) for name in PARTS[kind]}
    for name, value in parts.items():
        if not isinstance(value, str) or (name != "crv" and not BASE64URL.fullmatch(value)):
            raise UnusableKey(f"its {name} is missing or not base64url")
        if len(value) > PART_MOST:
            raise UnusableKey(f"its {name} is longer than any that can be used")
    maker: Any = _VERIFIERS[{"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[kind]]
    try:
        found = maker.from_jwk({"kty": kind, **parts})
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, UnsupportedAlgorithm):
        raise UnusableKey(f"its numbers are no {kind} key, or its crv is not known here") from None
    assert isinstance(found, PublicKey), "no private part was given"
    return found


def _decoded(written: str, name: str) -> bytes:
    text = written.rstrip("=")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise UnusableKey(f"its {name} is not base64url: a character is missing") from None
