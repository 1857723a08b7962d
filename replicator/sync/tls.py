"""The certificate that the configuration names → what a server shows, or what is wrong with it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from replicator.errors import ConfigError
from replicator.settings.keys import CREDENTIAL, SyncKeys


def tls_of(sync: SyncKeys, environ: Mapping[str, str]) -> ssl.SSLContext | None:
    """None where no certificate is configured."""
    if sync.tls_cert_file is None or sync.tls_key_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    where = f"sync.tls_cert_file {sync.tls_cert_file}, sync.tls_key_file {sync.tls_key_file}"
    try:
        # A key with a password would be asked for at a terminal that nobody sits at.
        context.load_cert_chain(
            _path(sync.tls_cert_file, environ), _path(sync.tls_key_file, environ), password=lambda: ""
        )
    except ssl.SSLError as error:
        why = (error.reason or "not in PEM form").lower().replace("_", " ")
        hint = "The first certificate is that of the key, in PEM form; the key has no password."
        raise ConfigError(f"{where}: {why}", hint) from None
    except OSError as error:
        hint = "Both have to be there, and the user that the replicator runs as has to be able to read them."
        raise ConfigError(f"{where}: {error.strerror}", hint) from None
    return context


def _path(written: str, environ: Mapping[str, str]) -> Path:
    if not written.startswith(CREDENTIAL):
        return Path(written)
    return Path(environ.get("CREDENTIALS_DIRECTORY", ""), written.removeprefix(CREDENTIAL))
