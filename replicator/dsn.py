"""A connection string → whether libpq can read it, and words for it without its secrets. No I/O."""

from __future__ import annotations

import re

from psycopg import Error
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

FORMS = "postgresql://user@host:5432/database or host=… user=… dbname=…"
#: Hosts, addresses, socket folders, and lists of them.
HOST = re.compile(r"[\w.:%/,*-]*")
PORT = re.compile(r"[0-9,]*")


def check_dsn(dsn: str) -> str:
    """The same string; ValueError if it cannot be meant, without repeating any of it."""
    parts = _parts(dsn)
    if parts is None:
        raise ValueError(f"not a connection string; the forms are {FORMS}")
    host, port, database = (parts.get(name, "") for name in ("host", "port", "dbname"))
    is_uri = dsn.lstrip().startswith(("postgres://", "postgresql://"))
    if not HOST.fullmatch(host) or not PORT.fullmatch(port) or (is_uri and "@" in database):
        # An @ or / in a password ends it early, and its rest is taken for the host.
        what = "the host or the port cannot be meant"
        raise ValueError(f"{what}; in a password write @ as %40, / as %2F, : as %3A and % as %25")
    return dsn


def is_dsn(text: str) -> bool:
    """Whether this looks like a connection string, for instance where a file's path is expected."""
    return "://" in text or _parts(text) is not None


def describe_dsn(dsn: str | SecretStr) -> str:
    """`clinic at db.internal:5432`: where it points, for messages; never who with which password."""
    parts = _parts(dsn.get_secret_value() if isinstance(dsn, SecretStr) else dsn) or {}
    host = parts.get("host") or parts.get("hostaddr") or ""
    database = parts.get("dbname", "")
    name = database if re.fullmatch(r"[\w. -]+", database) else "the database"
    if not HOST.fullmatch(host) or not PORT.fullmatch(parts.get("port", "")):
        return f"{name} at a host that cannot be meant"
    if not host or host.startswith("/"):
        return f"{name} on the local socket"
    hosts = host.split(",")
    ports = parts.get("port", "").split(",")
    if len(ports) != len(hosts):
        ports = ports[:1] * len(hosts)
    places = (
        f"{f'[{one}]' if ':' in one else one}:{port or 5432}" for one, port in zip(hosts, ports, strict=True)
    )
    return f"{name} at {','.join(places)}"


def _parts(dsn: str) -> dict[str, str] | None:
    """What libpq reads in it; None if it reads nothing."""
    if "\0" in dsn:
        return None  # libpq would stop there and take the first half
    try:
        parts = conninfo_to_dict(dsn)
    except (Error, UnicodeError):
        return None
    return {name: str(value) for name, value in parts.items()} or None
