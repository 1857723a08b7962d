"""A server's looks and connections → the page at /, what it asks for, and /metrics.

The page is the same for everybody and says nothing; what it shows it asks for with an admin token. /metrics
wants one, too, or one of its own: a server behind a proxy cannot tell who is on the same machine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from replicator.buckets.model import Total
from replicator.config import Config
from replicator.database import Connect
from replicator.ehr.queue_people import OPEN, Chosen, JobId, decide, find
from replicator.errors import ConfigError
from replicator.observe.metrics import gathered, process
from replicator.observe.metrics.jobs import JobAges
from replicator.observe.metrics.text import CONTENT_TYPE, exposed
from replicator.observe.page.looks import Looks
from replicator.observe.status.facts import facts_of
from replicator.sync.admin_tokens import AdminTokens
from replicator.sync.auth import MISSING, AuthError, User
from replicator.sync.http import body_of, invalid

_HERE = Path(__file__).parent
#: Nothing comes from elsewhere, and nothing goes there; no other page frames this one.
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _CSP,
    "cache-control": "no-cache",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/charts.js": ("charts.js", "text/javascript"),
}
_BODY_MOST = 1 << 16
_JOBS_MOST = 200
_ACTIONS = ("retry", "park")

Answer = Callable[[HttpRequest], Coroutine[Any, Any, Response]]
#: A user → their buckets, and what each comes to.
BucketsOf = Callable[[User], Awaitable[dict[str, Total]]]


class Shown(NamedTuple):
    """A path, and what is shown there."""

    path: str
    method: str
    answer: Answer


class Page:
    """What operators see in a browser, and what monitors scrape."""

    def __init__(
        self,
        config: Config,
        looks: Looks,
        jobs: JobAges,
        storage: Connect,
    ) -> None:
        self._looks, self._jobs, self._storage = looks, jobs, storage
        admins = [token.get_secret_value() for token in config.sync.admin_tokens]
        scrapers = [token.get_secret_value() for token in config.sync.scrape_tokens]
        self._admins, self._scrapers = AdminTokens(admins), AdminTokens([*admins, *scrapers])

    def ways(self, buckets_of: BucketsOf) -> list[Shown]:
        """All of them, by the rules that are in force now."""

        async def buckets(http: HttpRequest) -> Response:
            return await self._buckets(http, buckets_of)

        return [
            *[Shown(path, "GET", _file(name, kind)) for path, (name, kind) in _FILES.items()],
            Shown("/metrics", "GET", self.metrics),
            Shown("/api/admin/v1/status", "GET", self.status),
            Shown("/api/admin/v1/buckets", "POST", buckets),
            Shown("/api/admin/v1/queue", "GET", self.queue),
            Shown("/api/admin/v1/queue", "POST", self.decide),
        ]

    async def metrics(self, http: HttpRequest) -> Response:
        if not self._scrapers.admits(http.headers.get("authorization")):
            hint = "Send the header `Authorization: Bearer <one of sync.scrape_tokens>`."
            raise AuthError(MISSING, "Authentication required", hint)
        look = await self._looks.look()
        found = [*gathered.families(look, await self._jobs.read(look)), *process.families()]
        return Response(exposed(found), headers={"content-type": CONTENT_TYPE, "cache-control": "no-store"})

    async def status(self, http: HttpRequest) -> Response:
        self._admins.require(http.headers.get("authorization"))
        look = await self._looks.look()
        points = [point._asdict() for point in self._looks.points]
        return _json({**facts_of(look), "points": points})

    async def _buckets(self, http: HttpRequest, buckets_of: BucketsOf) -> Response:
        """Asked for in a body: who is a patient does not belong into an address, which ends up in logs."""
        user = (await self._admitted(http)).get("user")
        if not isinstance(user, str) or not user:
            raise invalid(["user: must be the subject of a user's token"])
        # Nobody's token is here, so what other claims would grant is not in it.
        found = await buckets_of(User(user, {"sub": user}, float("inf")))
        told = [
            {"bucket": name, "ops": total.ops, "checksum": total.checksum}
            for name, total in sorted(found.items())
        ]
        return _json({"buckets": told})

    async def queue(self, http: HttpRequest) -> Response:
        self._admins.require(http.headers.get("authorization"))
        state = http.query_params.get("state")
        if state is not None and state not in OPEN:
            raise invalid([f"state: must be one of {', '.join(OPEN)}"])
        chosen = Chosen(states=OPEN if state is None else (state,), limit=_JOBS_MOST)
        async with self._storage() as storage:
            found = await find(storage, chosen)
        return _json({"jobs": [job.facts() for job in found], "is_all": len(found) < _JOBS_MOST})

    async def decide(self, http: HttpRequest) -> Response:
        body = await self._admitted(http)
        action, jobs, who, why = (body.get(name) for name in ("action", "jobs", "who", "why"))
        problems = []
        if action not in _ACTIONS:
            problems.append(f"action: must be one of {', '.join(_ACTIONS)}")
        if not isinstance(jobs, list) or not jobs or not all(isinstance(job, str) for job in jobs):
            problems.append("jobs: must be the ids of jobs")
        for name, value in (("who", who), ("why", why)):
            if not isinstance(value, str) or not value.strip() or len(value) > 500:
                problems.append(f"{name}: must be said, in at most 500 characters")
        if problems:
            raise invalid(problems)
        assert isinstance(jobs, list) and isinstance(who, str) and isinstance(why, str)
        try:
            chosen = Chosen(tuple(map(JobId.parse, jobs)))
        except ConfigError as error:
            raise invalid([f"jobs: {error.what}"]) from None
        async with self._storage() as storage:
            done = await decide(storage, "retry" if action == "retry" else "park", chosen, who, why)
        return _json({"jobs": [str(job) for job in done.jobs]})

    async def _admitted(self, http: HttpRequest) -> dict[str, Any]:
        self._admins.require(http.headers.get("authorization"))
        try:
            body = orjson.loads(await body_of(http.receive, _BODY_MOST))
        except orjson.JSONDecodeError:
            raise invalid(["body: not JSON"]) from None
        if not isinstance(body, dict):
            raise invalid(["body: must be an object"])
        return body


def _file(name: str, kind: str) -> Answer:
    body = (_HERE / name).read_bytes()

    async def answer(_: HttpRequest) -> Response:
        return Response(body, media_type=kind, headers=_HEADERS)

    return answer


def _json(facts: object) -> Response:
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    return Response(orjson.dumps(facts), media_type="application/json", headers=headers)
