"""A server's connections and keys → the routes by which one asks about replication, and administers it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from starlette.requests import Request as HttpRequest

from replicator.config import Config
from replicator.database import Connect
from replicator.observe.copies import recopy
from replicator.observe.rules import got, user
from replicator.rules.model import Rules
from replicator.sync.admin import Admin, Deploy
from replicator.sync.admin_tokens import AdminTokens
from replicator.sync.auth import User
from replicator.sync.auth_keyring import Keyring
from replicator.sync.status import Status
from replicator.sync.status_http import StatusRoutes
from replicator.text.file import read


class Way(NamedTuple):
    """A route, and what answers there."""

    path: str
    method: str
    answer: Callable[[HttpRequest], Awaitable[Mapping[str, object]]]


def api(
    config: Config,
    rules: Rules,
    keyring: Keyring,
    storage: Connect,
    source: Connect,
    deploy: Deploy | None = None,
) -> list[Way]:
    """Every way to ask; `deploy` is None as long as rules come from the configuration's file alone."""
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

    asking = StatusRoutes(Status(config, rules, storage, source, at_source), keyring, admins)
    text = read(config.rules_path, "It is named by `rules`.")
    admin = Admin(config, rules, text, admins, storage, source, reprocess, deploy)
    return [
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
