"""The sync section of the configuration → the keys it names, read from where they are kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from replicator.errors import ConfigError
from replicator.marks import mark
from replicator.settings.keys import CREDENTIAL, LOADED, Config, SupabaseKeys, SyncKeys
from replicator.sync.auth_keyring import Keyring
from replicator.sync.jwks import Published
from replicator.sync.jwks_fetch import Reach, refusal
from replicator.sync.keys import DAY_S, Key, Terms, UnusableKey, key_of_jwk, key_of_secret
from replicator.sync.tokens import SigningKey, key_of_configured, key_of_pem
from replicator.text.file import read

#: Supabase's own word for whoever has logged in, and how long its tokens live at most, with some slack.
SUPABASE_AUDIENCE = ("authenticated",)
SUPABASE_MAX_AGE_S = 7 * DAY_S + 1200
SUPABASE_JWKS = "/auth/v1/.well-known/jwks.json"
FIREBASE_ISSUER = "https://securetoken.google.com/"
FIREBASE_JWKS = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"
#: The audience of our own tokens where nothing else is said.
OWN_AUDIENCE = "replicator"


def client_keyring(config: Config, environ: Mapping[str, str]) -> Keyring:
    """The keys that clients' tokens are signed with, our own among them."""
    sync, terms = config.sync, client_terms(config.sync)
    supabase = _supabase(sync.supabase, config, environ, terms, "sync.supabase")
    addresses = [(uri, terms, "sync.jwks_uri") for uri in sync.jwks_uri]
    keys = [*keys_here(sync, environ), *supabase.keys]
    return Keyring(keys, _published([*addresses, *supabase.addresses], sync))


def keys_here(sync: SyncKeys, environ: Mapping[str, str]) -> list[Key]:
    """The keys that stand in the configuration, and the one we sign with."""
    terms = client_terms(sync)
    keys = list(_static(sync.keys, terms, "sync.keys"))
    own = own_key(sync, environ)
    if isinstance(own, ConfigError):
        # Whose tokens come from elsewhere are served all the same; POST /token says it to the others.
        mark("token key not used", level=logging.ERROR, why=own.what, hint=own.hint)
    elif own is not None and (sync.token.key or sync.token.key_file):
        audience = terms.audience or (own_audience(sync),)
        lives_s = max(terms.max_age_s, sync.token.lifetime_s)
        keys.append(own.verifier(replace(terms, audience=audience, max_age_s=lives_s)))
    return keys


def login_keyring(config: Config, environ: Mapping[str, str]) -> Keyring | None:
    """The keys that the app's own login signs with; None if none is configured."""
    sync, upstream = config.sync, config.sync.token.upstream
    if upstream.is_empty:
        return None
    at = "sync.token.upstream"
    # How long a client's token may live is ours to say; a login's may live for a day in any case.
    any_login = replace(client_terms(sync), max_age_s=max(sync.max_age_s, DAY_S))
    terms = replace(any_login, audience=upstream.audience, issuer=upstream.issuer)
    supabase = _supabase(upstream.supabase, config, environ, any_login, f"{at}.supabase")
    addresses = [(uri, terms, f"{at}.jwks_uri") for uri in upstream.jwks_uri] + supabase.addresses
    if upstream.firebase is not None:
        issuer = FIREBASE_ISSUER + upstream.firebase
        theirs = replace(terms, audience=(upstream.firebase,), issuer=issuer)
        addresses.append((FIREBASE_JWKS, theirs, f"{at}.firebase"))
    if (upstream.keys or upstream.jwks_uri) and not upstream.audience:
        raise ConfigError(f"{at}.audience: is empty", "Write the `aud` that the login's tokens carry.")
    keys = [*_static(upstream.keys, terms, f"{at}.keys"), *supabase.keys]
    return Keyring(keys, _published(addresses, sync))


def client_terms(sync: SyncKeys) -> Terms:
    return Terms(sync.audience, None, sync.max_age_s, sync.clock_tolerance_s)


def own_audience(sync: SyncKeys) -> str:
    """The `aud` of the tokens we issue."""
    return sync.audience[0] if sync.audience else sync.token.url or OWN_AUDIENCE


def own_key(sync: SyncKeys, environ: Mapping[str, str]) -> SigningKey | ConfigError | None:
    """The key we sign with, or why it cannot be used: that of sync.token, else the first that can sign."""
    try:
        return _own_key(sync, environ)
    except ConfigError as error:
        return error


def _own_key(sync: SyncKeys, environ: Mapping[str, str]) -> SigningKey | None:
    token = sync.token
    if token.key is not None and token.key_file is not None:
        raise ConfigError("sync.token: key and key_file are both given", "Leave one out.")
    if token.key is not None:
        return key_of_pem(token.key.get_secret_value().encode(), "sync.token.key")
    if token.key_file is not None:
        pem = secret_file(token.key_file, environ, "sync.token.key_file")
        return key_of_pem(pem.encode(), f"sync.token.key_file: {token.key_file}")
    usable = zip(_static(sync.keys, Terms(), "sync.keys"), sync.keys, strict=True)
    for n, (_, jwk) in enumerate(usable):
        if (found := key_of_configured(_revealed(jwk), f"sync.keys[{n}]")) is not None:
            return found
    return None


def secret_file(written: str, environ: Mapping[str, str], key: str) -> str:
    """What stands in a file of secrets, or in a credential of systemd."""
    if not written.startswith(CREDENTIAL):
        return read(Path(written), f"It is named by {key}.")
    directory, name = environ.get("CREDENTIALS_DIRECTORY", ""), written.removeprefix(CREDENTIAL)
    if not directory or not name or "/" in name or name == "..":
        what = "needs a name without /, and CREDENTIALS_DIRECTORY, which systemd sets"
        raise ConfigError(f"{key}: {CREDENTIAL}NAME {what}")
    return read(Path(directory, name), f"It is named by {key}; {LOADED.format(name=name)}.")


class _Supabase:
    """What a project's tokens are signed with."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.addresses: list[tuple[str, Terms, str]] = []


def _supabase(
    section: SupabaseKeys | None, config: Config, environ: Mapping[str, str], terms: Terms, at: str
) -> _Supabase:
    """The old secret, and the address of the new keys; the one is enough, and both may be."""
    found = _Supabase()
    if section is None:
        return found
    theirs = replace(terms, audience=SUPABASE_AUDIENCE, max_age_s=SUPABASE_MAX_AGE_S)
    if (secret := _supabase_secret(section, environ, at)) is not None:
        try:
            found.keys.append(key_of_secret(secret.encode(), theirs))
        except UnusableKey as error:
            raise ConfigError(f"{at}: {error}", "It is shown in the project's settings, under JWT.") from None
    url = section.project_url or supabase_url(config.source_dsn)
    if url is not None:
        found.addresses.append((url + SUPABASE_JWKS, theirs, at))
    if not found.keys and url is None:
        hint = "Write {project_url: https://PROJECT.supabase.co}, or the project's JWT secret as secret."
        raise ConfigError(f"{at}: the source's DSN does not say which project is meant", hint)
    return found


def _supabase_secret(section: SupabaseKeys, environ: Mapping[str, str], at: str) -> str | None:
    if section.secret is not None and section.secret_file is not None:
        raise ConfigError(f"{at}: secret and secret_file are both given", "Leave one out.")
    if section.secret is not None:
        return section.secret.get_secret_value()
    if section.secret_file is not None:
        return secret_file(section.secret_file, environ, f"{at}.secret_file").strip()
    return None


def supabase_url(dsn: str) -> str | None:
    """The project's address, from that of its database: db.PROJECT.supabase.co, or the pooler's user."""
    known = conninfo_to_dict(dsn) if dsn else {}
    host, user = str(known.get("host") or ""), str(known.get("user") or "")
    project = ""
    if host.startswith("db.") and host.endswith(".supabase.co"):
        project = host.removeprefix("db.").removesuffix(".supabase.co")
    elif host.endswith(".pooler.supabase.com"):
        project = user.partition(".")[2]
    return f"https://{project}.supabase.co" if project.isalnum() and project.isascii() else None


def _static(jwks: Sequence[Mapping[str, SecretStr]], terms: Terms, at: str) -> Iterator[Key]:
    for n, jwk in enumerate(jwks):
        try:
            yield key_of_jwk(_revealed(jwk), terms)
        except UnusableKey as error:
            raise ConfigError(f"{at}[{n}]: the key cannot be used: {error}") from None


def _published(addresses: Sequence[tuple[str, Terms, str]], sync: SyncKeys) -> Iterator[Published]:
    reach = Reach(sync.jwks_plain_http, sync.jwks_private)
    for url, terms, at in addresses:
        if (why := refusal(url, reach)) is not None:
            raise ConfigError(f"{at}: the address {why}")
        yield Published(url, terms, reach)


def _revealed(jwk: Mapping[str, SecretStr]) -> dict[str, Any]:
    return {name: value.get_secret_value() for name, value in jwk.items()}
