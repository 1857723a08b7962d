"""AQL the sandbox is asked → what it looks for, or that it does not understand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from replicator.ehr.sandbox.aql import parse
from replicator.ehr.sandbox.changes import Version
from replicator.ehr.sandbox.refusals import Refused

EHR = "0c5a7c3e-8f9b-5a4e-9a3b-3f6f7f1f2d10"
FROM = "FROM EHR e CONTAINS COMPOSITION c"
HERE = f"e/ehr_id/value = '{EHR}'"


#: What EHRbase stores, and neither compares nor gives.
ORIGIN = "c/feeder_audit/originating_system_audit/system_id"
ITEM = "c/feeder_audit/originating_system_item_ids/id"


def version(number: int, *items: str) -> Version:
    object_id = f"{number:08}-8f9b-5a4e-9a3b-3f6f7f1f2d10"
    at = datetime(2026, 3, 1, tzinfo=UTC)
    body = {
        "t/_feeder_audit/originating_system_audit|version_id": f"0/{number}:1",
        **{f"t/_feeder_audit/originating_system_item_id:{n}|id": item for n, item in enumerate(items)},
    }
    return Version(
        object_id, 1, EHR, "COMPOSITION", "249", "t", "flat", body, "clinic", f"0/{number}:1", items, (), at
    )


VERSIONS = [version(1, "a"), version(2, "b", "a"), version(3), version(4, "b")]


def rows(aql: str, parameters: dict[str, Any] | None = None, **pages: int) -> list[list[Any]]:
    query = parse(aql, parameters or {}, pages.get("fetch"), pages.get("offset"))
    assert query.ehr_id == EHR
    return query.rows(VERSIONS, "here")


def changes(aql: str, parameters: dict[str, Any] | None = None, **pages: int) -> list[str]:
    """The changes of the source that the audits found are of."""
    found = rows(aql, parameters, **pages)
    return [audit["originating_system_audit"]["version_id"] for (audit,) in found]


def test_conditions_are_joined_by_and() -> None:
    aql = f"SELECT c/feeder_audit {FROM} WHERE {HERE} AND {ITEM} = $id and {ITEM} = 'b'"
    assert changes(aql, {"id": "a"}) == ["0/2:1"]
    assert changes(aql, {"id": "b"}) == ["0/2:1", "0/4:1"]


def test_the_ehr_may_stand_in_its_predicate() -> None:
    selected = "c/uid/value as uid, c/archetype_details/template_id/value"
    aql = f"select {selected} from EHR e[ehr_id/value=$ehr] contains COMPOSITION c"
    assert rows(aql, {"ehr": EHR})[0] == ["00000001-8f9b-5a4e-9a3b-3f6f7f1f2d10::here::1", "t"]


def test_pages_are_cut_by_limit_and_by_fetch() -> None:
    aql = f"SELECT c/feeder_audit {FROM} WHERE {HERE}"
    assert changes(f"{aql} LIMIT 1 OFFSET 1") == changes(aql, fetch=1, offset=1) == ["0/2:1"]
    assert len(rows(aql)) == 4


@pytest.mark.parametrize(
    "aql",
    [
        "SELECT",
        f"SELECT c {FROM} WHERE {HERE}",
        f"SELECT c/uid/value {FROM}",
        f"SELECT c/uid/value {FROM} WHERE {HERE} OR {HERE}",
        f"SELECT c/uid/value {FROM} WHERE {HERE} AND c/name/value = 'x'",
        f"SELECT c/uid/value {FROM} WHERE {HERE} AND {ORIGIN} = 'clinic'",
        f"SELECT {ORIGIN} {FROM} WHERE {HERE}",
        f"SELECT c/uid/value {FROM} WHERE e/ehr_id/value = $missing",
        f"SELECT c/uid/value {FROM} WHERE {HERE} ORDER BY c/uid/value",
        f"SELECT x/uid/value {FROM} WHERE {HERE}",
        "SELECT o/name FROM EHR e CONTAINS COMPOSITION c CONTAINS OBSERVATION o",
    ],
)
def test_anything_beyond_is_refused(aql: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(aql, {}, None, None)
    assert refused.value.status == 400


def test_pages_said_twice_are_refused() -> None:
    with pytest.raises(Refused) as refused:
        parse(f"SELECT c/uid/value {FROM} WHERE {HERE} LIMIT 1", {}, 1, None)
    assert refused.value.status == 422
