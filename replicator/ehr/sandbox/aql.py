"""The few AQL queries the sandbox understands → which compositions, and what of each. No I/O.

    SELECT c/uid/value FROM EHR e CONTAINS COMPOSITION c
    WHERE e/ehr_id/value = $ehr AND c/feeder_audit/originating_system_item_ids/id = $id

Selected and compared may be the paths below; conditions are equalities joined by AND, and one of them must
name the EHR. Anything else is refused in words that say that this is the sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from replicator.ehr.sandbox.changes import Version
from replicator.ehr.sandbox.drafts import audit_in
from replicator.ehr.sandbox.refusals import Refused

_QUERY = re.compile(
    r"SELECT\s+(?P<select>.+?)\s+FROM\s+EHR\s+(?P<ehr>\w+)\s*(?:\[\s*ehr_id/value\s*=\s*(?P<id>[^\]]+)\])?\s*"
    r"CONTAINS\s+COMPOSITION\s+(?P<composition>\w+)\s*(?:WHERE\s+(?P<where>.+?))?"
    r"\s*(?:LIMIT\s+(?P<limit>\d+))?\s*(?:OFFSET\s+(?P<offset>\d+))?",
    re.IGNORECASE | re.DOTALL,
)
_EQUALITY = re.compile(r"(?P<path>[\w/]+)\s*=\s*(?P<value>\$\w+|'[^']*')")
_COLUMN = re.compile(r"(?P<path>[\w/]+)(?:\s+AS\s+(?P<name>\w+))?", re.IGNORECASE)

#: What is asked of a version, and the server's name of itself → every value it has there. Of the audit
#: EHRbase gives the whole, and compares the items' parts; where it is from, and of which change, it does not.
_PATHS: dict[str, Callable[[Version, str], Sequence[Any]]] = {
    "uid/value": lambda version, system: [str(version.uid(system))],
    "archetype_details/template_id/value": lambda version, system: [version.template_id],
    "feeder_audit": lambda version, system: [audit_in(version.form, version.body or {})],
    "feeder_audit/originating_system_item_ids/id": lambda version, system: (
        list(version.source_items) or [None]
    ),
    "feeder_audit/originating_system_item_ids/type": (
        lambda version, system: list(version.source_types) or [None]
    ),
    "ehr_id/value": lambda version, system: [str(version.ehr_id)],
}


@dataclass(frozen=True, slots=True)
class Column:
    """A selected path, without the alias it begins with."""

    path: str
    full_path: str
    name: str


@dataclass(frozen=True, slots=True)
class Query:
    """A query that was understood."""

    ehr_id: str
    columns: tuple[Column, ...]
    #: (path, value), without the EHR's.
    equal: tuple[tuple[str, str], ...]
    offset: int
    limit: int | None

    def rows(self, versions: Sequence[Version], system: str) -> list[list[Any]]:
        """Those of the EHR's latest versions that fit, in the order of `versions`."""
        fits = [
            version
            for version in versions
            if all(value in _PATHS[path](version, system) for path, value in self.equal)
        ]
        last = None if self.limit is None else self.offset + self.limit
        return [[_PATHS[c.path](v, system)[0] for c in self.columns] for v in fits][self.offset : last]


def parse(text: str, parameters: Mapping[str, Any], fetch: int | None, offset: int | None) -> Query:
    """Raises Refused for everything beyond the few."""
    found = _QUERY.fullmatch(text.strip())
    if found is None:
        raise _beyond("this query")
    aliases = (f"{found['ehr']}/", f"{found['composition']}/")
    if (fetch or offset) and (found["limit"] or found["offset"]):
        raise Refused(422, "Query contains LIMIT/OFFSET and fetch/offset parameters")
    equal = _conditions(found["where"] or "", aliases, parameters)
    if found["id"]:
        equal.append(("ehr_id/value", _value(found["id"].strip(), parameters)))
    ehr_ids = [value for path, value in equal if path == "ehr_id/value"]
    if len(ehr_ids) != 1:
        raise _beyond("a query without the EHR's id")
    return Query(
        ehr_id=ehr_ids[0],
        columns=tuple(
            _column(text, aliases, number) for number, text in enumerate(found["select"].split(","))
        ),
        equal=tuple((path, value) for path, value in equal if path != "ehr_id/value"),
        offset=offset or int(found["offset"] or 0),
        limit=fetch if fetch is not None else int(found["limit"]) if found["limit"] else None,
    )


def _conditions(where: str, aliases: tuple[str, ...], parameters: Mapping[str, Any]) -> list[tuple[str, str]]:
    conditions = []
    for text in re.split(r"\s+AND\s+", where.strip(), flags=re.IGNORECASE) if where else ():
        found = _EQUALITY.fullmatch(text.strip())
        if found is None:
            raise _beyond("a condition that is no equality")
        conditions.append((_path(found["path"], aliases), _value(found["value"], parameters)))
    return conditions


def _column(text: str, aliases: tuple[str, ...], number: int) -> Column:
    found = _COLUMN.fullmatch(text.strip())
    if found is None:
        raise _beyond("a selected expression")
    return Column(_path(found["path"], aliases), found["path"], found["name"] or f"#{number}")


def _path(text: str, aliases: tuple[str, ...]) -> str:
    for alias in aliases:
        if text.startswith(alias) and text.removeprefix(alias) in _PATHS:
            return text.removeprefix(alias)
    raise _beyond("a path")


def _value(text: str, parameters: Mapping[str, Any]) -> str:
    if not text.startswith("$"):
        return text.strip("'")
    if text[1:] not in parameters:
        raise Refused(400, f"Missing parameter {text}")
    return str(parameters[text[1:]])


def _beyond(what: str) -> Refused:
    return Refused(400, f"The sandbox does not understand {what}; a record system may")
