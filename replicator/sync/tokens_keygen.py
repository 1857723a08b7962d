"""The name of an algorithm → a new private key, in a file that only its owner reads."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from replicator.errors import ConfigError
from replicator.sync.tokens import PrivateKey, SigningKey, key_of_pem

ALGORITHMS = ("RS256", "ES256", "EdDSA")


def keygen(algorithm: str, path: Path) -> SigningKey:
    """Make a key and write it; ConfigError if the file is there already."""
    pem = _make(algorithm).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        # Never over another key: what it has signed would be lost. Nor for a moment readable by others.
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(f"{path}: exists already", "Choose another name with --out.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise ConfigError(f"{path}: cannot be written: {reason}") from None
    with open(file, "wb") as out:
        out.write(pem)
    return key_of_pem(pem, str(path))


def _make(algorithm: str) -> PrivateKey:
    match algorithm:
        case "RS256":
            return rsa.generate_private_key(public_exponent=65_537, key_size=2048)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
    raise ConfigError(f"no key for {algorithm} can be made", f"One of {', '.join(ALGORITHMS)}.")
