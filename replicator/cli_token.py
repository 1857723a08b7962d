"""argv → `replicator token …`: make the key that tokens are signed with, and sign one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import click
import orjson

from replicator.cli import facts, main, verb
from replicator.config import load
from replicator.errors import ConfigError
from replicator.settings import spans


@main.group()
def token() -> None:
    """Tokens of our own: a key to sign them with, and one to try an app with."""


@verb("replicator token keygen --out /etc/replicator/token.pem", json=True, group=token)
@click.option(
    "--alg",
    "algorithm",
    type=click.Choice(["RS256", "ES256", "EdDSA"]),
    default="RS256",
    show_default=True,
    help="How it signs.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("token.pem"),
    show_default=True,
    help="The file to write.",
)
def token_keygen(config: Path | None, algorithm: str, out: Path, as_json: bool) -> None:
    """Make a private key that tokens are signed with.

    Writes a file that only you can read, and prints the public key: another server needs that to accept the
    tokens. Never writes over a file.
    """
    from replicator.sync.tokens import public_jwk
    from replicator.sync.tokens_keygen import keygen

    key = keygen(algorithm, out)
    jwk = public_jwk(key)
    if as_json:
        facts(file=str(out), kid=key.kid, alg=key.algorithm, jwk=jwk)
        return
    click.echo(f"{out}: the private key, {key.algorithm}; keep it secret")
    click.echo(f"kid: {key.kid}\n")
    click.echo(f"To sign tokens with it:\n\n  sync: {{token: {{key_file: {out}}}}}\n")
    click.echo(f"For a server that only accepts them:\n\n  sync: {{keys: [{orjson.dumps(jwk).decode()}]}}")


@verb("replicator token issue --user ann --claim role=nurse", json=True, group=token)
@click.option("--user", required=True, metavar="SUB", help="The token's subject.")
@click.option(
    "--claim", "claims", metavar="NAME=VALUE", multiple=True, help="A claim; the value is JSON, or text."
)
@click.option("--expires", metavar="SPAN", help="For how long, such as 8h; else sync.token.lifetime.")
def token_issue(
    config: Path | None, user: str, claims: tuple[str, ...], expires: str | None, as_json: bool
) -> None:
    """Sign a token, so that an app can be tried at once.

    Signs with sync.token.key or key_file, else with the first of sync.keys that can sign. Whoever holds the
    token is that user until it ends: treat it as a password.
    """
    from replicator.sync.auth import AuthError, verify
    from replicator.sync.keys_configured import keys_here
    from replicator.sync.tokens import KEYGEN
    from replicator.sync.upstream import issue_for, issuing

    settings = load(config, os.environ)
    ours = issuing(settings.sync, os.environ)
    if isinstance(ours.key, ConfigError):
        raise ours.key
    if ours.key is None:
        raise ConfigError("no key to sign with is configured: see sync.token.key_file", KEYGEN)
    if not user.isprintable() or not user:
        raise ConfigError("--user: this cannot be a subject", "It is empty, or holds control characters.")
    lifetime_s = _lifetime(expires, ours.lifetime_s, settings.sync.max_age_s)
    now = time.time()
    issued = issue_for(user, _claims(claims), ours, ours.key, now, lifetime_s)
    try:
        verify(issued.token, keys_here(settings.sync, os.environ), now)
    except AuthError as error:
        raise ConfigError(f"the server would refuse this token: {error.what}", error.hint) from None
    url = ours.url or f"http://{settings.sync.listen}"
    if as_json:
        facts(**issued._asdict(), powersync_url=url, user_id=user)
    else:
        click.echo(issued.token)
        click.echo(f"for {user} at {url}, until {issued.expires_at}", err=True)


def _lifetime(expires: str | None, default_s: int, most_s: int) -> int:
    if expires is None:
        return default_s
    try:
        return spans.seconds(1, most_s)(expires)
    except ValueError as error:
        hint = "The server refuses one that lives longer than sync.max_age."
        raise ConfigError(f"--expires: {error}", hint) from None


def _claims(options: Iterable[str]) -> dict[str, object]:
    from replicator.sync.tokens import OURS

    claims: dict[str, object] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not name or not equals:
            raise ConfigError("--claim: must be NAME=VALUE", "Such as role=nurse, or wards='[1, 2]'.")
        if name in OURS:
            raise ConfigError(f"--claim {name}: this claim is made here", "See --user and --expires.")
        claims[name] = _value(value)
    return claims


def _value(written: str) -> object:
    try:
        return orjson.loads(written)
    except orjson.JSONDecodeError:
        return written
