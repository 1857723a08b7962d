"""A server with a certificate speaks to nobody without TLS; one that has none listens to this machine."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from replicator.errors import ConfigError
from replicator.queries import house
from replicator.settings.keys import SyncKeys
from replicator.sync.tls import tls_of
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database
from tests.fixtures.tokens import AUDIENCE, KEY


def certify(folder: Path, password: bytes | None = None) -> tuple[Path, Path]:
    """A certificate for localhost that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    kept = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kept)
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(pem)
    return cert_file, key_file


async def test_it_serves_with_its_certificate_and_not_without(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    cert_file, key_file = certify(tmp_path)
    config = tmp_path / "replicator.yaml"
    config.write_text(
        f"source: {{dsn: '{database.dsn}', slot: {database.name}}}\nrules: {house('config') / 'rules.yaml'}\n"
        f"sync: {{listen: '127.0.0.1:0', audience: [{AUDIENCE}], keys: [{KEY}], "
        f"tls_cert_file: {cert_file.name}, tls_key_file: {key_file.name}}}\n"
    )
    assert children("migrate", "--config", config).wait() == 0
    serving = children("run", "--only", "serve", "--config", config)
    said = await asyncio.to_thread(serving.wait_for, "serving")
    port = str(said["address"]).rpartition(":")[2]
    trusting = ssl.create_default_context(cafile=cert_file)
    async with aiohttp.ClientSession() as http:
        async with http.get(f"https://localhost:{port}/probes/liveness", ssl=trusting) as got:
            assert got.status == 200
        with pytest.raises(aiohttp.ClientError):
            await http.get(f"http://localhost:{port}/probes/liveness")
        with pytest.raises(aiohttp.ClientError):
            await http.get(f"https://localhost:{port}/probes/liveness")  # which trusts nobody of that name


def test_what_is_wrong_with_a_certificate_is_told_at_the_beginning(tmp_path: Path) -> None:
    cert_file, key_file = certify(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    _, other_key = certify(other)
    _, locked = certify(other, b"secret")
    nothing = tmp_path / "nothing.pem"
    for cert, key in (
        (cert_file, other_key),
        (cert_file, nothing),
        (key_file, key_file),
        (cert_file, locked),
    ):
        with pytest.raises(ConfigError, match=r"sync\.tls_cert_file"):
            tls_of(SyncKeys(tls_cert_file=str(cert), tls_key_file=str(key)), {})


def test_the_key_may_be_a_credential(tmp_path: Path) -> None:
    cert_file, key_file = certify(tmp_path)
    sync = SyncKeys(tls_cert_file=str(cert_file), tls_key_file=f"credential:{key_file.name}")
    assert tls_of(sync, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) is not None
