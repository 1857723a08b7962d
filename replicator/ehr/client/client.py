"""The calls of the openEHR REST API that delivery needs → an Answer each.

A refusal is an answer, not an error: what to do about it depends on the job. Raised is only Unreached (no
answer) and ConfigError (no credentials). No call is repeated here, with two exceptions in which the server
says that it did nothing: a refused token, and an If-Match header in the wrong form.

The calls follow EHRbase where it departs from the specification: it wants If-Match without quotes, and of a
deletion it wants the version in the path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from replicator.ehr.client.answers import Answer, Refusal
from replicator.ehr.client.bodies import FLAT_TYPE, JSON_TYPE, Body, Composition, body_of
from replicator.ehr.client.exchange import Exchange
from replicator.ehr.client.versions import VersionUid, version_in
from replicator.errors import ProtocolError

_REPRESENTATION: Final = {"Prefer": "return=representation"}
_MINIMAL: Final = {"Prefer": "return=minimal"}
_WEB_TEMPLATE: Final = "application/openehr.wt+json"

#: The compositions of one EHR that say of themselves which row of which source's table they came from.
#: By its key alone a row could be one of another table.
#: Of the audit EHRbase compares the items' parts and no others, and each part with any item's: what it finds
#: is looked at once more (`_is_of`).
_BY_SOURCE: Final = """
SELECT c/uid/value, c/feeder_audit FROM EHR e CONTAINS COMPOSITION c
WHERE e/ehr_id/value = $ehr_id
  AND c/feeder_audit/originating_system_item_ids/type = $type
  AND c/feeder_audit/originating_system_item_ids/id = $item
"""


class Subject(NamedTuple):
    """Whom an EHR is about: an id in a namespace, and never a name."""

    id: str
    namespace: str


class Ehr(NamedTuple):
    """An EHR that is there now."""

    id: str
    #: The server's name of itself, which every version uid it accepts has in the middle.
    system: str
    #: Whether this call made it.
    created: bool


class Client(Exchange):
    """One record system. `base` is the root of its API: `https://host/ehrbase/rest/openehr/v1`."""

    _quotes = False

    # ── EHR ──────────────────────────────────────────────────────────────────────────────────────

    async def ensure_ehr(self, ehr_id: str, subject: Subject) -> Ehr | Answer:
        """The subject's EHR: this one, made now or before, or one it already has. An Answer is a refusal."""
        made = await self.create_ehr(ehr_id, subject)
        if made.ok:
            return _ehr(made, created=True)
        if made.status != 409 or made.refusal is Refusal.NOT_MODIFIABLE:
            return made
        # By subject first: what counts is whose it is. One of our id with another subject is not theirs.
        found = await self.ehr_by_subject(subject)
        return _ehr(found, created=False) if found.ok else made

    async def create_ehr(self, ehr_id: str, subject: Subject) -> Answer:
        status = Body(JSON_TYPE, {}, orjson.dumps(status_of(subject)))
        return await self.ask("create EHR", "PUT", "ehr", ehr_id, body=status, headers=_REPRESENTATION)

    async def ehr(self, ehr_id: str) -> Answer:
        return await self.ask("read EHR", "GET", "ehr", ehr_id)

    async def ehr_by_subject(self, subject: Subject) -> Answer:
        query = {"subject_id": subject.id, "subject_namespace": subject.namespace}
        return await self.ask("find EHR", "GET", "ehr", query=query)

    async def ehr_status(self, ehr_id: str) -> Answer:
        return await self.ask("read EHR_STATUS", "GET", "ehr", ehr_id, "ehr_status")

    async def update_ehr_status(
        self, ehr_id: str, preceding: VersionUid, status: Mapping[str, Any]
    ) -> Answer:
        body = Body(JSON_TYPE, {}, orjson.dumps(dict(status)))
        path = ("ehr", ehr_id, "ehr_status")
        return await self._put("update EHR_STATUS", path, preceding, body)

    # ── Compositions ─────────────────────────────────────────────────────────────────────────────

    async def create(self, ehr_id: str, composition: Composition, uid: VersionUid | None = None) -> Answer:
        """A new composition; with a uid, never a second one of it (Refusal.ALREADY_EXISTS)."""
        body = body_of(composition, uid)
        path = ("ehr", ehr_id, "composition")
        return await self.ask("create composition", "POST", *path, body=body, headers=_MINIMAL)

    async def update(self, ehr_id: str, preceding: VersionUid, composition: Composition) -> Answer:
        """The next version of a composition, also of a deleted one."""
        path = ("ehr", ehr_id, "composition", preceding.object_id)
        return await self._put("update composition", path, preceding, body_of(composition))

    async def delete(self, ehr_id: str, preceding: VersionUid) -> Answer:
        path = ("ehr", ehr_id, "composition", str(preceding))
        return await self.ask("delete composition", "DELETE", *path)

    async def composition(self, ehr_id: str, uid: VersionUid | str, *, flat: bool = False) -> Answer:
        """The latest version, or the one named. `deleted` if it was; NOT_FOUND if there never was one."""
        headers = {"Accept": FLAT_TYPE if flat else JSON_TYPE}
        path = ("ehr", ehr_id, "composition", str(uid))
        return await self.ask("read composition", "GET", *path, headers=headers)

    async def versions(self, ehr_id: str, object_id: str) -> tuple[VersionUid, ...] | Answer:
        """Every version of a composition, oldest first, deletions included. An Answer is a refusal."""
        path = ("ehr", ehr_id, "versioned_composition", object_id, "revision_history")
        answer = await self.ask("read versions", "GET", *path)
        if not answer.ok:
            return answer
        found = [version_in(_named(item)) for item in _history(answer)]
        return tuple(sorted((v for v in found if v is not None), key=lambda version: version.number))

    # ── Contributions ────────────────────────────────────────────────────────────────────────────

    async def contribute(self, ehr_id: str, contribution: Mapping[str, Any]) -> Answer:
        """Several versions at once: all of them or none."""
        body = Body(JSON_TYPE, {}, orjson.dumps(dict(contribution)))
        path = ("ehr", ehr_id, "contribution")
        return await self.ask("contribute", "POST", *path, body=body, headers=_REPRESENTATION)

    async def contribution(self, ehr_id: str, contribution_id: str) -> Answer:
        path = ("ehr", ehr_id, "contribution", contribution_id)
        return await self.ask("read contribution", "GET", *path)

    # ── Templates ────────────────────────────────────────────────────────────────────────────────

    async def upload_template(self, opt: bytes) -> Answer:
        """An operational template in XML; the server answers nothing else than XML to it."""
        body = Body("application/xml", {}, opt)
        headers = {"Accept": "application/xml", **_MINIMAL}
        return await self.ask(
            "upload template", "POST", "definition", "template", "adl1.4", body=body, headers=headers
        )

    async def templates(self) -> tuple[str, ...] | Answer:
        """The ids of the server's templates. An Answer is a refusal."""
        answer = await self.ask("list templates", "GET", "definition", "template", "adl1.4")
        if not answer.ok:
            return answer
        listed = answer.body if isinstance(answer.body, list) else []
        return tuple(str(one["template_id"]) for one in listed if isinstance(one, dict))

    async def operational_template(self, template_id: str) -> Answer:
        """A template as it was uploaded, in XML: the answer's body is text."""
        path = ("definition", "template", "adl1.4", template_id)
        return await self.ask("read template", "GET", *path, headers={"Accept": "application/xml"})

    async def web_template(self, template_id: str) -> Answer:
        """A template as the tree that FLAT paths walk."""
        path = ("definition", "template", "adl1.4", template_id)
        return await self.ask("read web template", "GET", *path, headers={"Accept": _WEB_TEMPLATE})

    # ── Queries ──────────────────────────────────────────────────────────────────────────────────

    async def query(
        self, aql: str, parameters: Mapping[str, Any], *, fetch: int | None = None, offset: int | None = None
    ) -> Answer:
        """The answer's body has `rows`. Values go into parameters, never into the text."""
        pages = {name: n for name, n in (("fetch", fetch), ("offset", offset)) if n is not None}
        asked = {"q": " ".join(aql.split()), "query_parameters": dict(parameters), **pages}
        return await self.ask("query", "POST", "query", "aql", body=Body(JSON_TYPE, {}, orjson.dumps(asked)))

    async def by_source(
        self, ehr_id: str, system: str, table: str, key: str
    ) -> tuple[VersionUid, ...] | Answer:
        """The compositions of an EHR that this row of this source became. An Answer is a refusal."""
        answer = await self.query(_BY_SOURCE, {"ehr_id": ehr_id, "type": table, "item": key})
        if not answer.ok:
            return answer
        rows = [row for row in _fields(answer, "rows") if _is_of(row[1], system, table, key)]
        found = [version_in(str(row[0])) for row in rows]
        return tuple(version for version in found if version is not None)

    # ── How ──────────────────────────────────────────────────────────────────────────────────────

    async def _put(self, call: str, path: tuple[str, ...], preceding: VersionUid, body: Body) -> Answer:
        """With the version that is to be replaced; the header in the form this server reads."""
        answer = await self._put_once(call, path, preceding, body)
        if answer.refusal is Refusal.IF_MATCH_FORM:
            self._quotes = not self._quotes
            answer = await self._put_once(call, path, preceding, body)
        return answer

    async def _put_once(self, call: str, path: tuple[str, ...], preceding: VersionUid, body: Body) -> Answer:
        named = f'"{preceding}"' if self._quotes else str(preceding)
        return await self.ask(call, "PUT", *path, body=body, headers={"If-Match": named, **_MINIMAL})


def status_of(subject: Subject, *, modifiable: bool = True, queryable: bool = True) -> dict[str, Any]:
    """The EHR_STATUS that says whom an EHR is about."""
    reference = {
        "_type": "PARTY_REF",
        "namespace": subject.namespace,
        "type": "PERSON",
        "id": {"_type": "GENERIC_ID", "value": subject.id, "scheme": subject.namespace},
    }
    archetype = "openEHR-EHR-EHR_STATUS.generic.v1"
    return {
        "_type": "EHR_STATUS",
        "archetype_node_id": archetype,
        # EHRbase would add them; stricter servers refuse a status without.
        "archetype_details": {
            "_type": "ARCHETYPED",
            "archetype_id": {"_type": "ARCHETYPE_ID", "value": archetype},
            "rm_version": "1.0.4",
        },
        "name": {"_type": "DV_TEXT", "value": "EHR Status"},
        "subject": {"_type": "PARTY_SELF", "external_ref": reference},
        "is_modifiable": modifiable,
        "is_queryable": queryable,
    }


def _ehr(answer: Answer, *, created: bool) -> Ehr:
    try:
        ehr_id, system = str(answer.body["ehr_id"]["value"]), str(answer.body["system_id"]["value"])
        return Ehr(ehr_id.lower(), system, created=created)
    except (KeyError, TypeError) as error:
        raise _not_understood("an EHR") from error


def _fields(answer: Answer, name: str) -> list[Any]:
    found = answer.body.get(name) if isinstance(answer.body, dict) else None
    if not isinstance(found, list):
        raise _not_understood(f"a list of {name}")
    return found


def _is_of(audit: Any, system: str, table: str, key: str) -> bool:
    """Whether a feeder audit names this row of this source."""
    audit = audit if isinstance(audit, dict) else {}
    origin, items = audit.get("originating_system_audit"), audit.get("originating_system_item_ids")
    if not isinstance(origin, dict) or not isinstance(items, list):
        return False
    named = [(item.get("type"), item.get("id")) for item in items if isinstance(item, dict)]
    return origin.get("system_id") == system and (table, key) in named


def _history(answer: Answer) -> list[Any]:
    """The items of a revision history: EHRbase gives the list itself, the specification an object with it."""
    return answer.body if isinstance(answer.body, list) else _fields(answer, "items")


def _named(item: Any) -> str | None:
    """The version an item of a revision history is about."""
    named = item.get("version_id") if isinstance(item, dict) else None
    value = named.get("value") if isinstance(named, dict) else named
    return value if isinstance(value, str) else None


def _not_understood(what: str) -> ProtocolError:
    return ProtocolError(
        f"the record system answered something that is not {what}", "Is ehr.url really an openEHR REST API?"
    )
