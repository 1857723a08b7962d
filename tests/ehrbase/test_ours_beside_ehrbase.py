"""What we make of a template and of a row, beside what EHRbase makes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import pytest

from replicator.ehr.bind import bind
from replicator.ehr.canonical import canonical
from replicator.ehr.client import Basic, Canonical, Client, Composition, Flat, VersionUid
from replicator.ehr.compose import Stamp, compose
from replicator.ehr.identity import ChangeId
from replicator.ehr.mapping import parse_mapping
from replicator.ehr.sandbox.opt import web_template_of
from replicator.ehr.shape import read_shape
from replicator.ehr.webtemplate import WebTemplate, read_web_template
from replicator.wal.lsn import Lsn
from tests.ehrbase.conftest import REAL
from tests.ehrbase.records import OPT, TEMPLATE, Patient, Place, patient

pytestmark = REAL.marks

_OCCURS = b"""<occurrences><lower_included>true</lower_included><upper_included>true</upper_included>
  <lower_unbounded>false</lower_unbounded><upper_unbounded>false</upper_unbounded>
  <lower>1</lower><upper>1</upper></occurrences>"""
_CONTENT = b"""<attributes xsi:type="C_MULTIPLE_ATTRIBUTE">
      <rm_attribute_name>content</rm_attribute_name>"""
_CONTEXT = b"""<attributes xsi:type="C_SINGLE_ATTRIBUTE">
      <rm_attribute_name>context</rm_attribute_name>
      %s
      <children xsi:type="C_COMPLEX_OBJECT"><rm_type_name>EVENT_CONTEXT</rm_type_name>%s<node_id /></children>
    </attributes>
    """ % (_OCCURS.replace(b"occurrences", b"existence"), _OCCURS)
#: The tests' template, and one that says something of a context.
WITH_CONTEXT = "replicator.pulse_in_context.v1"
OPTS = {
    TEMPLATE: OPT,
    WITH_CONTEXT: OPT.replace(_CONTENT, _CONTEXT + _CONTENT, 1).replace(
        TEMPLATE.encode(), WITH_CONTEXT.encode()
    ),
}
EACH_TEMPLATE = pytest.mark.parametrize("template_id", OPTS)
MAPPING = """\
system: clinic
namespace: clinic
ctx: {language: en, territory: CM, setting: home, composer: Clinic, time: at, facility: Ward 7}
tables:
  readings:
    key: id
    patient: patient_id
    template: TEMPLATE
    fields:
      pulse_encounter/pulse/any_event:0/rate: {column: rate, unit: /min}
      pulse_encounter/pulse/any_event:1/rate: {column: later, unit: /min}
      pulse_encounter/pulse/any_event:1/comment: {column: note, null_flavour: unknown}
"""
ROW = {
    "id": "7",
    "patient_id": "p",
    "at": "2026-03-01 08:30:00+00",
    "rate": "72",
    "later": "80",
    "note": None,
}


@pytest.fixture
async def client(ehrbase: Place) -> AsyncIterator[Client]:
    async with Client(ehrbase.url, auth=Basic(ehrbase.user, ehrbase.password)) as client:
        yield client


@pytest.fixture
async def someone(client: Client) -> Patient:
    return await patient(client, str(uuid4()))


async def web_template(client: Client, template_id: str) -> dict[str, Any]:
    assert (await client.upload_template(OPTS[template_id])).status in (201, 409)
    answer = await client.web_template(template_id)
    assert answer.ok and isinstance(answer.body, dict)
    return answer.body


def composed(template: WebTemplate) -> dict[str, Any]:
    mapping = parse_mapping(MAPPING.replace("TEMPLATE", template.id), "ehr.yaml")
    plan, problems = bind(mapping, mapping.tables["readings"], template)
    assert problems == []
    return compose(plan, ROW, Stamp("7", ChangeId(Lsn(16), 3)))


async def stored(client: Client, someone: Patient, composition: Composition) -> dict[str, Any]:
    """What the record gives back, but for its name."""
    uid: VersionUid = someone.first(str(uuid4()))
    created = await client.create(someone.ehr_id, composition, uid)
    assert created.version == uid, created.summary
    read = await client.composition(someone.ehr_id, uid)
    assert read.ok and isinstance(read.body, dict)
    return {name: value for name, value in read.body.items() if name != "uid"}


def told(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, tuple[object, ...]]]:
    """What the paths of a tree are."""
    path = f"{above}/{tree['id']}"
    known = [tree.get(name) for name in ("rmType", "min", "max", "nodeId", "aqlPath")]
    yield path, (*(one or None for one in known), bool(tree.get("inContext")))
    for child in tree.get("children", ()):
        yield from told(child, path)


@EACH_TEMPLATE
async def test_the_sandbox_makes_the_same_tree_of_a_template(client: Client, template_id: str) -> None:
    theirs = await web_template(client, template_id)
    assert dict(told(web_template_of(OPTS[template_id])["tree"])) == dict(told(theirs["tree"]))


@EACH_TEMPLATE
async def test_ehrbase_takes_what_is_composed_and_its_canonical_form_for_the_same(
    client: Client, someone: Patient, template_id: str
) -> None:
    template = read_web_template(await web_template(client, template_id))
    operational = await client.operational_template(template_id)
    flat = composed(template)
    ours = canonical(flat, template, read_shape(operational.body))
    in_flat = await stored(client, someone, Flat(template_id, flat))
    assert in_flat == await stored(client, someone, Canonical(ours))
    context = in_flat["context"]
    assert context["start_time"]["value"] == "2026-03-01T08:30:00Z"
    assert context["setting"]["defining_code"]["code_string"] == "225"
    assert context["health_care_facility"]["name"] == "Ward 7"
