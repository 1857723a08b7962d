"""Operational templates → web templates → the FLAT paths and values the sandbox takes."""

from __future__ import annotations

from typing import Any

import pytest

from replicator.ehr.sandbox.opt import node_id, web_template_of
from replicator.ehr.sandbox.paths import invalid_values, unknown_paths
from replicator.ehr.sandbox.refusals import Refused
from replicator.ehr.webtemplate import read_web_template
from tests.ehrbase.records import OPT

TREE: dict[str, Any] = web_template_of(OPT)["tree"]
RATE = "pulse_encounter/pulse/any_event:0/rate"


def children_of(parent: dict[str, Any]) -> list[str]:
    """Without the reference model's own."""
    return [child["id"] for child in parent["children"] if not child.get("inContext")]


def node(*trail: str, tree: dict[str, Any] = TREE) -> dict[str, Any]:
    found = tree
    for name in trail:
        (found,) = [child for child in found["children"] if child["id"] == name]
    return found


def without(opt: bytes, *parts: bytes) -> bytes:
    for part in parts:
        assert part in opt
        opt = opt.replace(part, b"")
    return opt


def test_structures_have_no_node_of_their_own() -> None:
    assert (TREE["id"], TREE["rmType"]) == ("pulse_encounter", "COMPOSITION")
    assert children_of(node("pulse", "any_event")) == ["rate", "comment"]


def test_an_event_that_is_the_only_one_and_comes_once_has_none_either() -> None:
    head, found, tail = OPT.partition(b"<node_id>at0002</node_id>")
    before, _, _ = head.rpartition(b"<occurrences>")
    once = before + b"<occurrences><lower>1</lower><upper>1</upper></occurrences>" + found + tail
    assert once != OPT
    assert children_of(node("pulse", tree=web_template_of(once)["tree"])) == ["rate", "comment"]


def test_siblings_of_one_name_are_numbered_from_the_second_on() -> None:
    twice = OPT.replace(b'<items id="text">Comment', b'<items id="text">Rate')
    assert children_of(node("pulse", "any_event", tree=web_template_of(twice)["tree"])) == ["rate", "rate2"]


def test_what_the_reference_model_demands_has_nodes() -> None:
    assert {"category", "language", "territory", "composer", "context"} <= {c["id"] for c in TREE["children"]}
    assert {"language", "encoding", "subject"} <= {child["id"] for child in node("pulse")["children"]}


def test_a_context_is_in_the_tree_and_marked_only_where_its_template_has_one() -> None:
    own = (
        b"<rm_attribute_name>context</rm_attribute_name><children><rm_type_name>EVENT_CONTEXT</rm_type_name>"
    )
    end = b"<occurrences><lower>1</lower><upper>1</upper></occurrences></children></attributes>"
    said = web_template_of(OPT.replace(b"<definition>", b"<definition><attributes>" + own + end, 1))["tree"]
    for tree, least, marked in ((said, 1, True), (TREE, 0, False)):
        context = node("context", tree=tree)
        assert context["min"] == least
        parts = [(child["id"], child["inContext"]) for child in context["children"]]
        assert parts == [("start_time", marked), ("setting", marked)]
        path = "pulse_encounter/context/start_time"
        assert unknown_paths({path: 1, "ctx/time": 1}, tree) == ([] if marked else [path])


def test_a_web_template_of_the_sandbox_is_one_that_mappings_are_bound_to() -> None:
    template = read_web_template(web_template_of(OPT))
    rate = template.node("pulse_encounter/pulse/any_event:0/rate")
    assert (template.id, template.root) == ("replicator.pulse.v1", "pulse_encounter")
    assert rate is not None and (magnitude := rate.input("magnitude")) is not None
    assert magnitude.range.holds(999) and not magnitude.range.holds(1000)


def test_an_element_is_its_value_with_how_often_it_may_come() -> None:
    assert (node("pulse", "any_event", "rate")["rmType"], node("pulse", "any_event")["max"]) == (
        "DV_QUANTITY",
        -1,
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Any event", "any_event"),
        ("Pulse/Heart beat", "pulse_heart_beat"),
        ("vg_ObservationLab.v.1.1.0", "vg_observationlab.v.1.1.0"),
        ("24 hours", "a24_hours"),
        ("Größe-alt", "gr__e-alt"),
    ],
)
def test_a_nodes_id_is_its_name_made_plain(name: str, expected: str) -> None:
    assert node_id(name) == expected


@pytest.mark.parametrize(
    "opt",
    [
        b"",
        b"<template",
        b"<template/>",
        b"<!DOCTYPE a><template/>",
        without(OPT, b"<template_id><value>replicator.pulse.v1</value></template_id>"),
        OPT.replace(b"ITEM_TREE", b"ITEM_TABLE"),
    ],
)
def test_what_is_no_template_is_refused_as_a_bad_request(opt: bytes) -> None:
    with pytest.raises(Refused) as refused:
        web_template_of(opt)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "path",
    [
        "ctx/language",
        "pulse_encounter/_uid",
        "pulse_encounter/_feeder_audit/originating_system_item_id:0|id",
        "pulse_encounter/category|code",
        "pulse_encounter/pulse/language|code",
        "pulse_encounter/pulse:0/any_event:3/time",
        f"{RATE}|magnitude",
        f"{RATE}/_normal_range/lower|magnitude",
    ],
)
def test_a_path_of_the_template_or_of_the_reference_model_leads_somewhere(path: str) -> None:
    assert unknown_paths({path: 1}, TREE) == []


@pytest.mark.parametrize(
    "path",
    [
        "pulse/rate",
        "pulse_encounter/plse/any_event:0/rate",
        "pulse_encounter/pulse/rate",
        "pulse_encounter/time",
    ],
)
def test_any_other_path_leads_nowhere(path: str) -> None:
    assert unknown_paths({path: 1}, TREE) == [path]


@pytest.mark.parametrize(
    ("suffix", "value", "valid"),
    [
        ("magnitude", 0, True),
        ("magnitude", 999.9, True),
        ("magnitude", 1000, False),
        ("magnitude", -1, False),
        ("magnitude", "72", False),
        ("magnitude", True, False),
        ("unit", "/min", True),
        ("unit", "1/min", False),
    ],
)
def test_a_quantity_is_within_what_its_template_allows(suffix: str, value: object, valid: bool) -> None:
    complaints = invalid_values({f"{RATE}|{suffix}": value}, TREE)
    assert (complaints == []) == valid
    assert all(complaint.startswith(f"{RATE}|{suffix}: ") for complaint in complaints)
