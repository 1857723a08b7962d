"""FLAT paths and values become the canonical JSON that one would write by hand."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from replicator.ehr.bind import Plan, bind
from replicator.ehr.canonical import NotCanonical, canonical, misfit
from replicator.ehr.leaves import WRITABLE, Parts
from replicator.ehr.sandbox.opt import web_template_of
from replicator.ehr.sandbox.structure import misplaced
from replicator.ehr.shape import NotATemplate, Part, Shape, Step, read_shape, steps_of
from replicator.ehr.values import value_of
from replicator.ehr.webtemplate import WebTemplate, read_web_template
from tests.ehrbase.records import OPT, flat
from tests.ehrbase.records import canonical as by_hand
from tests.unit.ehr.forms import mapping

ROOT = "pulse_encounter"
HEAD: Parts = {
    f"{ROOT}/{path}": value
    for path, value in {
        "category|code": "433",
        "category|value": "event",
        "category|terminology": "openehr",
        "language|code": "en",
        "language|terminology": "ISO_639-1",
        "territory|code": "CM",
        "territory|terminology": "ISO_3166-1",
        "composer|name": "clinic",
        "context/start_time": "2026-03-01T08:30:00Z",
        "context/setting|code": "238",
        "context/setting|value": "other care",
        "context/setting|terminology": "openehr",
    }.items()
}


def pulse() -> tuple[WebTemplate, Shape]:
    return read_web_template(web_template_of(OPT)), read_shape(OPT.decode())


def composed(more: Parts) -> dict[str, Any]:
    written = {path: value for path, value in flat().fields.items() if not path.startswith("ctx/")}
    return canonical(
        {**HEAD, **written, **{f"{ROOT}/{path}": value for path, value in more.items()}}, *pulse()
    )


def test_it_is_what_one_would_write_by_hand() -> None:
    assert composed({}) == by_hand().fields


def test_what_an_element_shares_with_others_is_there_once() -> None:
    found = composed(
        {
            "pulse/any_event:0/comment": "irregular",
            "pulse/any_event:1/rate|magnitude": 80,
            "pulse/any_event:1/rate|unit": "/min",
        }
    )
    (observation,) = found["content"]
    first, second = observation["data"]["events"]
    assert [item["archetype_node_id"] for item in first["data"]["items"]] == ["at0004", "at0005"]
    assert [item["value"]["magnitude"] for item in second["data"]["items"]] == [80]
    assert misplaced(found, pulse()[1]) == []


def test_times_languages_and_reasons_for_nothing_stand_where_they_belong() -> None:
    found = composed(
        {
            "_uid": "u::s::1",
            "context/_health_care_facility|name": "Ward 7",
            "pulse/language|code": "fr",
            "pulse/language|terminology": "ISO_639-1",
            "pulse/any_event:0/time": "2026-03-01T09:00:00Z",
            "pulse/any_event:0/comment/_null_flavour|code": "253",
            "pulse/any_event:0/comment/_null_flavour|value": "unknown",
            "pulse/any_event:0/comment/_null_flavour|terminology": "openehr",
        }
    )
    (observation,) = found["content"]
    (event,) = observation["data"]["events"]
    comment = event["data"]["items"][1]
    assert found["uid"]["value"] == "u::s::1"
    assert found["context"]["health_care_facility"]["name"] == "Ward 7"
    assert observation["language"]["code_string"] == "fr"
    assert (event["time"]["value"], observation["data"]["origin"]["value"]) == (
        "2026-03-01T09:00:00Z",
        "2026-03-01T08:30:00Z",
    )
    assert "value" not in comment and comment["null_flavour"]["defining_code"]["code_string"] == "253"


def test_a_context_that_its_template_says_nothing_of_is_the_same_context() -> None:
    said = {path: value for path, value in HEAD.items() if "/context/" not in path}
    pulse_alone = {path: value for path, value in flat().fields.items() if not path.startswith("ctx/")}
    ctx: Parts = {"ctx/time": "2026-03-01T08:30:00Z", "ctx/setting": "238"}
    found = canonical(
        {**ctx, "ctx/health_care_facility|name": "Ward 7", **said, **pulse_alone},
        *pulse(),
    )
    assert found == composed({"context/_health_care_facility|name": "Ward 7"})


# What an order and its steps are made of.

_ORDER, _ACTION = "openEHR-EHR-INSTRUCTION.order.v1", "openEHR-EHR-ACTION.given.v1"
_TREE: dict[str, Any] = {
    "id": "list",
    "rmType": "COMPOSITION",
    "aqlPath": "",
    "children": [
        {
            "id": "order",
            "rmType": "INSTRUCTION",
            "aqlPath": f"/content[{_ORDER},'It''s']".replace("''", "\\'"),
            "max": -1,
            "children": [
                {"id": "narrative", "rmType": "DV_TEXT", "aqlPath": f"/content[{_ORDER},'It\\'s']/narrative"},
                {
                    "id": "step",
                    "rmType": "ACTIVITY",
                    "aqlPath": f"/content[{_ORDER},'It\\'s']/activities[at0001]",
                    "children": [
                        {
                            "id": name,
                            "rmType": rm_type,
                            "aqlPath": f"/content[{_ORDER},'It\\'s']/activities[at0001]{below}",
                        }
                        for name, rm_type, below in (
                            ("timing", "DV_PARSABLE", "/timing"),
                            ("drug", "DV_TEXT", "/description[at0002]/items[at0003]/value"),
                        )
                    ],
                },
            ],
        },
        {
            "id": "given",
            "rmType": "ACTION",
            "aqlPath": f"/content[{_ACTION}]",
            "children": [
                {
                    "id": "ism_transition",
                    "rmType": "ISM_TRANSITION",
                    "aqlPath": f"/content[{_ACTION}]/ism_transition",
                    "children": [
                        {
                            "id": "current_state",
                            "rmType": "DV_CODED_TEXT",
                            "aqlPath": f"/content[{_ACTION}]/ism_transition/current_state",
                        }
                    ],
                },
                {
                    "id": "dose",
                    "rmType": "ELEMENT",
                    "aqlPath": f"/content[{_ACTION}]/description[at0001]/items[at0002]",
                    "children": [
                        {
                            "id": "count_value",
                            "rmType": "DV_COUNT",
                            "aqlPath": f"/content[{_ACTION}]/description[at0001]/items[at0002]/value",
                        }
                    ],
                },
            ],
        },
    ],
}
_SHAPE = Shape(
    {
        "": (Part("COMPOSITION", "openEHR-EHR-COMPOSITION.list.v1", "List"),),
        f"/content[{_ORDER}]": (Part("INSTRUCTION", _ORDER, "Other"), Part("INSTRUCTION", _ORDER, "It's")),
        f"/content[{_ORDER}]/activities[at0001]": (Part("ACTIVITY", "at0001", "Step"),),
        f"/content[{_ORDER}]/activities[at0001]/description[at0002]": (Part("ITEM_LIST", "at0002", "All"),),
        f"/content[{_ORDER}]/activities[at0001]/description[at0002]/items[at0003]": (
            Part("ELEMENT", "at0003", "Drug"),
        ),
        f"/content[{_ACTION}]": (Part("ACTION", _ACTION, "Given"),),
        f"/content[{_ACTION}]/description[at0001]": (Part("ITEM_TREE", "at0001", "Tree"),),
        f"/content[{_ACTION}]/description[at0001]/items[at0002]": (Part("ELEMENT", "at0002", "Dose"),),
    }
)


def test_orders_actions_and_values_of_several_types() -> None:
    template = read_web_template({"templateId": "list.v1", "tree": _TREE})
    written: Parts = {path.replace(ROOT, "list"): value for path, value in HEAD.items()}
    written |= {
        "list/order:0/narrative": "twice",
        "list/order:0/step/timing": "R2",
        "list/order:0/step/timing|formalism": "ISO8601",
        "list/order:0/step/drug": "A",
        "list/order:1/narrative": "once",
        "list/given/ism_transition/current_state|code": "245",
        "list/given/ism_transition/current_state|value": "active",
        "list/given/ism_transition/current_state|terminology": "openehr",
        "list/given/dose/count_value": 3,
    }
    first, second, given = canonical(written, template, _SHAPE)["content"]
    (activity,) = first["activities"]
    assert first["name"]["value"] == "It's" and second["narrative"]["value"] == "once"
    assert activity["timing"] == {"_type": "DV_PARSABLE", "value": "R2", "formalism": "ISO8601"}
    assert (activity["description"]["_type"], activity["action_archetype_id"]) == ("ITEM_LIST", "/.*/")
    assert "archetype_node_id" not in given["ism_transition"]
    assert given["ism_transition"]["current_state"]["defining_code"]["code_string"] == "245"
    assert given["description"]["items"][0]["value"] == {"_type": "DV_COUNT", "magnitude": 3}
    assert given["time"]["value"] == "2026-03-01T08:30:00Z"


@pytest.mark.parametrize(
    ("rm_type", "parts", "expected"),
    [
        ("DV_CODED_TEXT", {"other": "free"}, {"_type": "DV_TEXT", "value": "free"}),
        ("DV_QUANTITY", {"magnitude": 1.5, "unit": "mg"}, {"magnitude": 1.5, "units": "mg"}),
        ("DV_PROPORTION", {"numerator": 97, "denominator": 100.0}, {"numerator": 97, "type": 2}),
        ("DV_PROPORTION", {"numerator": 1, "denominator": 3.0, "type": 0}, {"denominator": 3.0, "type": 0}),
        ("DV_ORDINAL", {"code": "at5", "value": "Mild", "ordinal": 1}, {"value": 1}),
        ("DV_DATE", {"": "2026-01-02"}, {"_type": "DV_DATE", "value": "2026-01-02"}),
        ("DV_BOOLEAN", {"": False}, {"_type": "DV_BOOLEAN", "value": False}),
        ("DV_IDENTIFIER", {"id": "7"}, {"_type": "DV_IDENTIFIER", "id": "7"}),
        ("PARTY_PROXY", {"name": "A"}, {"_type": "PARTY_IDENTIFIED", "name": "A"}),
    ],
)
def test_values(rm_type: str, parts: Parts, expected: dict[str, object]) -> None:
    assert value_of(rm_type, parts).items() >= expected.items()


def test_a_text_refers_to_codes() -> None:
    codes = {
        f"_mapping:{number}{part}": value
        for number in (0, 1)
        for part, value in (("|match", "="), ("/target|code", f"c{number}"), ("/target|terminology", "LOINC"))
    }
    found = value_of("DV_TEXT", {"": "Hb", **codes})
    assert [each["target"]["code_string"] for each in found["mappings"]] == ["c0", "c1"]


@pytest.mark.parametrize("rm_type", sorted(WRITABLE))
def test_whatever_can_be_written_in_one_form_can_be_in_the_other(rm_type: str) -> None:
    with suppress(KeyError):  # a part is missing, but not the type
        value_of(rm_type, {})


# What a server may not tell.


def test_a_path_that_the_server_does_not_tell_is_named() -> None:
    shape, path = read_shape(OPT.decode()), f"{ROOT}/pulse/any_event:0/rate"
    assert misfit(planned(web_template_of(OPT)), shape) is None
    bare = read_web_template({"templateId": "x", "tree": _without_paths(web_template_of(OPT)["tree"])})
    with pytest.raises(NotCanonical, match=f"{path}: the server does not tell its path"):
        canonical({**HEAD, f"{path}|magnitude": 1, f"{path}|unit": "/min"}, bare, shape)
    told = {**web_template_of(OPT), "tree": _without_paths(web_template_of(OPT)["tree"])}
    assert "does not tell" in str(misfit(planned(told), shape))
    assert "has nothing there" in str(misfit(planned(web_template_of(OPT)), Shape({"": shape.parts[""]})))


def planned(web_template: dict[str, Any]) -> Plan:
    record = mapping(
        "t:\n  key: id\n  patient: p\n  template: replicator.pulse.v1\n  ctx: {time: at}\n"
        f"  fields: {{{ROOT}/pulse/any_event:0/rate: {{column: rate, unit: /min}}}}\n"
    )
    plan, problems = bind(record, record.tables["t"], read_web_template(web_template))
    assert problems == []
    return plan


def _without_paths(tree: dict[str, Any]) -> dict[str, Any]:
    children = [_without_paths(child) for child in tree.get("children", [])]
    return {name: value for name, value in tree.items() if name != "aqlPath"} | (
        {"children": children} if children else {}
    )


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "not XML"),
        ("<template", "not XML"),
        ("<!DOCTYPE x><template/>", "DOCTYPE"),
        ("<template/>", "no definition"),
        (OPT.decode().replace("COMPOSITION</rm", "SECTION</rm"), "no COMPOSITION"),
    ],
)
def test_what_is_no_template_is_said(content: str | None, what: str) -> None:
    with pytest.raises(NotATemplate, match=what):
        read_shape(content)


def test_steps_of_paths_as_servers_write_them() -> None:
    path = "/content[openEHR-EHR-SECTION.adhoc.v1 and name/value='Signs, all']/items[at0004,'A\\'s']/value"
    assert steps_of(path) == (
        Step("content", "openEHR-EHR-SECTION.adhoc.v1", "Signs, all"),
        Step("items", "at0004", "A's"),
        Step("value"),
    )
