"""A configuration value as written → the value meant, or a ValueError that says what is right. No I/O.

None of them repeats what was written: it may be a password that ended up under the wrong key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from replicator.dsn import check_dsn
from replicator.text.words import UNPRINTABLE, boolean, whole

SLOT = re.compile(r"[a-z0-9_]{1,63}")
IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")
LISTEN = re.compile(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[A-Za-z0-9.-]+)):(?P<port>[0-9]{1,5})")
HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


def text(value: object) -> str:
    if value is None:
        raise ValueError("a value is missing")
    if not isinstance(value, str):
        raise ValueError("must be text")
    if not value:
        raise ValueError("must not be empty")
    if UNPRINTABLE.search(value):
        raise ValueError("holds a line break, a control character or bytes that are not UTF-8")
    return value


def secret(value: object) -> SecretStr:
    return value if isinstance(value, SecretStr) else SecretStr(text(value))


def dsn(value: object) -> SecretStr:
    """A connection string; nothing at all is allowed, and what it means depends on the key."""
    written = value.get_secret_value() if isinstance(value, SecretStr) else value
    if written is None or written == "":
        return SecretStr("")
    if not isinstance(written, str):
        raise ValueError("must be text")
    return SecretStr(check_dsn(written.strip()))


def path(value: object) -> Path:
    return value if isinstance(value, Path) else Path(text(value))


def flag(value: object) -> bool:
    return value if isinstance(value, bool) else boolean(text(value))


def number_up_to(most: int) -> Callable[[object], int]:
    def number(value: object) -> int:
        found = value if type(value) is int else whole(text(value))
        if not 1 <= found <= most:
            raise ValueError(f"must be from 1 to {most}")
        return found

    return number


def slot(value: object) -> str:
    if not SLOT.fullmatch(name := text(value)):
        raise ValueError("a slot's name is a-z, 0-9 and _, at most 63 of them, such as clinic_1")
    return name


def publication(value: object) -> str:
    if len((name := text(value)).encode()) > 63:
        raise ValueError("a publication's name has at most 63 bytes")
    return name


def identifier(value: object) -> str:
    if not IDENTIFIER.fullmatch(name := text(value)):
        raise ValueError("a schema's name here is a-z, 0-9 and _, at most 63, not a digit first")
    if name.startswith("pg_") or name == "information_schema":
        raise ValueError("schemas named so belong to Postgres itself")
    return name


def address(value: object) -> str:
    """`host:port`, an IPv6 address in brackets; port 0 takes any that is free."""
    found = LISTEN.fullmatch(written := text(value))
    if found is None:
        raise ValueError("must be host:port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080")
    if int(found["port"]) > 65535:
        raise ValueError("the port must be from 0 to 65535")
    host = found["six"] or found["host"]
    if found["six"] or not re.search("[A-Za-z]", host):
        _check_ip(host, 6 if found["six"] else 4)
    elif not HOST_NAME.fullmatch(host):
        raise ValueError("the host cannot be meant")
    return written


def _check_ip(host: str, version: int) -> None:
    try:
        is_right = ip_address(host).version == version
    except ValueError:
        is_right = False
    if not is_right:
        raise ValueError(f"the host is not an IPv{version} address")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; of a name other than localhost nobody knows."""
    if re.search("[A-Za-z]", host) and ":" not in host:
        return host.lower() == "localhost"
    return ip_address(host).is_loopback


def url(value: object) -> str:
    written = text(value)
    try:
        parts = urlsplit(written)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_right = False
    if not is_right or " " in written:
        raise ValueError("must be an address such as https://host/path")
    if "@" in parts.netloc:
        raise ValueError("an address holds no user or password here; they would end up in logs")
    return written


def optional(check: Callable[[object], str]) -> Callable[[object], str | None]:
    """Nothing written, or an empty text, is None."""
    return lambda value: None if value in (None, "") else check(value)


def several(value: object) -> object:
    """One text stands for a list of one, and nothing for an empty list."""
    if value in (None, ""):
        return ()
    return (value,) if isinstance(value, str) else value


def entries(value: object) -> object:
    """Nothing stands for no entries."""
    return {} if value is None else value


def json_web_key(key: dict[str, SecretStr]) -> dict[str, SecretStr]:
    if "kty" not in key:
        raise ValueError("a JSON Web Key needs a kty, such as {kty: oct, kid: app, k: ${KEY}}")
    return key
