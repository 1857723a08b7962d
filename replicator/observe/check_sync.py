"""A configuration, rules and the source → Findings about who is let in, and whether rules know them.

What is most often wrong between an app and its rules is who somebody is: tokens name people as the login
does, and rows as the tables do. Nothing is refused then, and every app stays empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import psycopg
from psycopg import sql

from replicator.config import Config
from replicator.database import Connection, connected
from replicator.errors import ConfigError, ReplicatorError
from replicator.observe.check_ids import Compared, compared
from replicator.observe.report import Group
from replicator.observe.rules.tables import Seen, SourceTable, see
from replicator.observe.survey import be_harmless
from replicator.rules.model import Rules
from replicator.sync.keys_configured import client_keyring, login_keyring, own_key
from replicator.sync.tokens import KEYGEN
from replicator.sync.upstream import Lookup
from replicator.sync.upstream_subject import source_lookup
from replicator.wal.finding import Finding
from replicator.wal.names import quote

#: text, varchar, char, name: where a Firebase uid can stand.
_TEXTS = frozenset((25, 1043, 1042, 19))
#: Columns that are called so hold the subject of a login, most likely.
_OF_LOGIN = re.compile(r"(firebase|auth0?|login|external|cognito|clerk)_?(user_?)?(uid|id|sub)|uid|sub")
_FIREBASE = "securetoken"
#: Columns of one kind that a message lists.
_SHOWN = 6


async def check_sync(config: Config, rules: Rules, environ: Mapping[str, str], user: str | None) -> Group:
    """What the section `sync` and the rules come to together."""
    found = [*await _keys(config, environ)]
    columns = compared(rules)
    try:
        async with connected(config.source_dsn, "check") as source, source.transaction():
            await be_harmless(source)
            seen = await see(source, rules, config.source.publication, config.storage.schema_name)
            found += _never_equal(config, columns, seen)
            if user is not None:
                found += await _unknown(source, config, columns, seen, user)
    except ReplicatorError as error:
        found.append(Finding("warning", "sync.unseen", "source", error.what, error.hint))
    return Group("sync", _facts(config, columns), tuple(found))


def _facts(config: Config, columns: Sequence[Compared]) -> str:
    sync = config.sync
    if not (sync.keys or sync.jwks_uri or sync.supabase or sync.token.key or sync.token.key_file):
        return "nobody is let in, so nothing is served: no key is configured"
    names = _listed(dict.fromkeys(f"{one.table}.{one.column}" for one in columns))
    return f"a token's subject is compared with {names}" if names else "no rule asks who somebody is"


# -- keys ------------------------------------------------------------------------------------------


async def _keys(config: Config, environ: Mapping[str, str]) -> list[Finding]:
    """What would be wrong when serving begins, or when somebody asks for a token."""
    sync, found = config.sync, []
    own = own_key(sync, environ)
    if isinstance(own, ConfigError):
        found.append(Finding("error", "sync.token", "sync.token", own.what, own.hint))
        # The rest is looked at without it.
        token = sync.token.model_copy(update={"key": None, "key_file": None})
        config = config.model_copy(update={"sync": sync.model_copy(update={"token": token})})
    for make in (client_keyring, login_keyring):
        try:
            keyring = make(config, environ)
        except ConfigError as error:
            found.append(Finding("error", "sync.keys", "sync", error.what, error.hint))
            continue
        if keyring is not None:
            await keyring.close()
    if (sync.keys or sync.jwks_uri) and not (sync.audience or sync.token.key or sync.token.key_file):
        what = "sync.audience is empty: no token that is signed with sync.keys or sync.jwks_uri is accepted"
        found.append(Finding("warning", "sync.audience", "sync.audience", what, "Write their `aud` there."))
    if not sync.token.upstream.is_empty and (sync.token.url is None or own is None):
        lacking = "sync.token.url" if sync.token.url is None else "sync.token.key_file"
        hint = "Write where apps reach this server." if sync.token.url is None else KEYGEN
        what = f"{lacking} is not set: POST /token exchanges no token of sync.token.upstream"
        found.append(Finding("warning", "sync.token", lacking, what, hint))
    return found


# -- who somebody is -------------------------------------------------------------------------------


def _never_equal(config: Config, columns: Iterable[Compared], seen: Seen) -> Iterator[Finding]:
    """Firebase names people by texts that are neither uuids nor numbers."""
    sync = config.sync
    by_exchange = sync.token.upstream.firebase is not None and sync.token.subject.table is None
    if not by_exchange and not any(_FIREBASE in uri for uri in sync.jwks_uri):
        return
    wrong = {
        f"{one.table}.{one.column}": None
        for one in columns
        for table in _tables(seen, one)
        if _type_of(table, one.column) not in (*_TEXTS, None)
    }
    if wrong:
        what = f"the subject of a Firebase token is never equal to {_listed(wrong)}, which is no text"
        yield Finding("warning", "sync.subject", "sync.token.subject", what, _remedy(seen))


async def _unknown(
    source: Connection, config: Config, columns: Sequence[Compared], seen: Seen, user: str
) -> list[Finding]:
    """Whether somebody's subject is in none of the columns it is compared with."""
    lookup = source_lookup(config.sync.token.subject, lambda: connected(config.source_dsn, "check"))
    known = await _known_by(lookup, user)
    subjects = [user] if known is None else [known, user]
    looked = False
    for one in columns:
        for table in _tables(seen, one):
            for subject in subjects:
                has = await _has(source, table, one.column, subject)
                looked |= has is not None
                if has:
                    return []
    if not looked:
        return []
    names = _listed(dict.fromkeys(f"{one.table}.{one.column}" for one in columns))
    if lookup is not None and known is None:
        users = config.sync.token.subject.table
        what = f"sync.token.subject finds nobody for this --user in {users}, and no row has it in {names}"
        return [Finding("warning", "sync.user", "--user", what, "POST /token answers 401 to them.")]
    what = f"no row has this --user in {names}: as the subject of a token it leads to no rows"
    return [Finding("warning", "sync.user", "--user", what, _remedy(seen))]


async def _known_by(lookup: Lookup | None, user: str) -> str | None:
    return await lookup(user) if lookup is not None else None


async def _has(source: Connection, table: SourceTable, column: str, subject: str) -> bool | None:
    """Whether a row has it there; None where that cannot be told within some seconds, or at all."""
    if _type_of(table, column) is None:
        return None
    names = [
        sql.Identifier(*(part.replace("%", "%%") for part in parts)) for parts in (table.where, [column])
    ]
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {} = %(subject)s)").format(*names)
    try:
        async with source.transaction():
            cursor = await source.execute(query, {"subject": subject})
            found: bool = (await cursor.fetchall())[0][0]
            return found
    except psycopg.DataError:
        return False  # such as a name where the column holds a uuid
    except (psycopg.ProgrammingError, psycopg.OperationalError):
        return None


def _remedy(seen: Seen) -> str:
    """What to write, with the table of users where it can be told."""
    table, match, value = next(_users(seen), ("users", "firebase_uid", "id"))
    return (
        "Tokens name people as the login does, and rows as the tables do. Let POST /token look people up: "
        f"sync: {{token: {{subject: {{table: {table}, match: {match}, value: {value}}}}}}}\n"
        f"Or let the rules: SELECT {value} AS user_id FROM {table} WHERE {match} = request.user_id()"
    )


def _users(seen: Seen) -> Iterator[tuple[str, str, str]]:
    for table in seen.tables:
        columns = table.relation.columns
        keys = [columns[at].name for at in table.key_at]
        for column in columns:
            is_login = column.type_oid in _TEXTS and _OF_LOGIN.fullmatch(column.name)
            if is_login and len(keys) == 1 and column.name not in keys:
                yield table.label, quote(column.name), quote(keys[0])


def _tables(seen: Seen, one: Compared) -> list[SourceTable]:
    return [table for table in seen.tables if one.table.matches(*table.where)]


def _type_of(table: SourceTable, column: str) -> int | None:
    return next((each.type_oid for each in table.relation.columns if each.name == column), None)


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more
