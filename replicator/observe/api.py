"""A server's connections and keys → the routes by which one asks about replication, and administers it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from starlette.requests import Request as HttpRequest

from replicator.buckets import deploy as deployed
from replicator.config import Config
from replicator.database import Connect
from replicator.observe.copies import recopy
from replicator.observe.rules import got, user
from replicator.rules.parse import load_rules, parse_rules
from replicator.sync.admin import Admin
from replicator.sync.admin_tokens import AdminTokens
from replicator.sync.auth import User
from replicator.sync.auth_keyring import Keyring
from replicator.sync.feed import Feed
from replicator.sync.status import Status
from replicator.sync.status_http import StatusRoutes


class Way(NamedTuple):
    """A route, and what answers there."""

    path: str
    method: str
    answer: Callable[[HttpRequest], Awaitable[Mapping[str, object]]]


class Asked(NamedTuple):
    """Every way to ask, and what is told of replication."""

    ways: list[Way]
    status: Status


def api(
    config: Config,
    feed: Feed,
    keyring: Keyring,
    storage: Connect,
    source: Connect,
) -> Asked:
    """Every way to ask, by the rules that are in force now."""
    rules, text = feed.rules, feed.rules_text
    if not text:  # nothing is shown to anybody yet: by those that will be
        rules = load_rules(config.rules_path)
        text = rules.text
    admins = AdminTokens(token.get_secret_value() for token in config.sync.admin_tokens)

    async def at_source(who: User) -> Mapping[str, int]:
        asked = got.User(who.sub, who.claims, {})
        most = config.sync.max_buckets
        found = await user.get(config, rules, asked, most_buckets=most, most_rows=0)
        counts: Counter[str] = Counter()
        for (_, output), count in found.counts.items():
            counts[output] += count
        return counts

    async def reprocess() -> None:
        await recopy(config, (), everything=True, wait=False)

    status = Status(config, rules, storage, source, at_source)
    asking = StatusRoutes(status, keyring, admins)

    async def deploy(text: str) -> None:
        async with storage() as connection:
            await deployed.store(connection, config.source.slot, parse_rules(text, "sync_rules"), "command")

    admin = Admin(config, rules, text, admins, storage, source, reprocess, deploy)
    ways = [
        Way("/api/sync/status", "GET", asking.status),
        Way("/api/sync/patient/{id}", "GET", asking.patient),
        Way("/api/admin/v1/diagnostics", "POST", admin.diagnostics),
        Way("/api/admin/v1/schema", "POST", admin.schema),
        Way("/api/admin/v1/validate", "POST", admin.validate),
        Way("/api/admin/v1/reprocess", "POST", admin.reprocess),
        Way("/api/sync-rules/v1/deploy", "POST", admin.deploy_rules),
        Way("/api/sync-rules/v1/validate", "POST", admin.validate_rules),
        Way("/api/sync-rules/v1/current", "GET", admin.current),
        Way("/api/sync-rules/v1/reprocess", "POST", admin.reprocess_rules),
    ]
    return Asked(ways, status)
