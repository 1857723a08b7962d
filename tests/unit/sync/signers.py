"""An algorithm → a key of each kind to sign with, made once, and tokens signed with it."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import get_default_algorithms

NOW = 1_800_000_000
SECRET = bytes(range(100, 164))
CLAIMS: dict[str, Any] = {"sub": "ann", "aud": "app", "iat": NOW, "exp": NOW + 3600}

_CURVES: dict[str, Any] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


@cache
def private(name: str) -> Any:
    """The one private key of a name: `RS256`, `ES384`, `EdDSA`; a suffix such as `RS256/b` is another one."""
    algorithm = name.partition("/")[0]
    if algorithm.startswith("HS"):
        return SECRET if algorithm == name else SECRET[::-1]
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm]())
    if algorithm == "EdDSA":
        return (
            ed448.Ed448PrivateKey.generate() if name.endswith("448") else ed25519.Ed25519PrivateKey.generate()
        )
    assert algorithm[:2] in ("RS", "PS")
    return one_rsa(2048, name.partition("/")[2])


@cache
def one_rsa(bits: int, name: str = "") -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, bits)


def jwk_of(name: str, *, secret: bool = False, **more: Any) -> dict[str, Any]:
    """The JSON Web Key of `private(name)`, public unless said otherwise; None leaves a part out."""
    key = private(name)
    kind = {"H": "HS256", "R": "RS256", "P": "RS256"}.get(name[0], "ES256" if name[1] == "S" else "EdDSA")
    material = key if secret or isinstance(key, bytes) else key.public_key()
    maker: Any = get_default_algorithms()[kind]
    jwk = maker.to_jwk(material, as_dict=True)
    jwk.pop("key_ops", None)
    return {part: value for part, value in {**jwk, **more}.items() if value is not None}


def sign(name: str, claims: dict[str, Any] | None = None, **header: Any) -> str:
    """A token with these claims instead of, or beside, the usual ones; None leaves a claim out."""
    said = {key: value for key, value in {**CLAIMS, **(claims or {})}.items() if value is not None}
    return signed(name, {"alg": name.partition("/")[0], **header}, json.dumps(said).encode())


def signed(name: str, header: dict[str, Any], payload: bytes, *, by: str | None = None) -> str:
    """Any header and payload at all, with a signature that holds; `by` is the algorithm in truth."""
    message = f"{encoded(json.dumps(header).encode())}.{encoded(payload)}"
    algorithm = get_default_algorithms()[by or name.partition("/")[0]]
    return f"{message}.{encoded(algorithm.sign(message.encode(), private(name)))}"


def encoded(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()
