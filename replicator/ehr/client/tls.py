"""The file that `ehr.ca_file` names → whom to believe that a server is the record system."""

from __future__ import annotations

import ssl

from replicator.errors import ConfigError


def trusting(ca_file: str | None) -> ssl.SSLContext | None:
    """None where no file is named: then it is those whom this machine trusts."""
    if ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        hint = "It holds the certificates of those who sign the record system's, in PEM form."
        raise ConfigError(f"ehr.ca_file {ca_file}: no certificate is in it", hint) from None
    except OSError as error:
        hint = "It has to be there, and the user that the replicator runs as has to be able to read it."
        raise ConfigError(f"ehr.ca_file {ca_file}: {error.strerror}", hint) from None
