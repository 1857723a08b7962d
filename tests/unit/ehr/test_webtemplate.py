"""A server's web template → its paths; or a plain word about what came instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.ehr.webtemplate import NotAWebTemplate, read_web_template
from tests.unit.ehr.forms import HERE, template

FILE = HERE / "webtemplates" / "vital_signs.json"


def test_paths_types_units_and_occurrences() -> None:
    found = template("vital_signs")
    node = found.node("vital_signs_observations/vital_signs/body_temperature/temperature")
    assert node is not None
    assert (node.rm_type, node.min, node.max, node.is_leaf) == ("DV_QUANTITY", 1, 1, True)
    unit = node.input("unit")
    assert unit is not None and [option.value for option in unit.options] == ["°C"]
    assert unit.options[0].range.holds(99.9) and not unit.options[0].range.holds(100)
    assert found.root == "vital_signs_observations" and found.id == "IDCR - Vital Signs Encounter.v1"


def test_a_path_is_found_with_indices() -> None:
    assert template("problem").node("problem_list/problems_and_issues:3/problem_diagnosis:0") is not None


def test_the_hash_changes_with_what_matters_and_with_nothing_else() -> None:
    text = FILE.read_text()
    known = read_web_template(text).hash
    told: dict[str, Any] = json.loads(text)
    told["tree"]["localizedNames"] = {"en": "other"}
    assert read_web_template(orjson.dumps(told)).hash == known
    for old, new in (
        ('"mm[Hg]"', '"kPa"'),
        ('"max": 1,', '"max": 2,'),
        ("DV_PROPORTION", "DV_COUNT"),
        ("systolic", "s"),
    ):
        assert read_web_template(text.replace(old, new)).hash != known


def test_parsed_json_is_taken_too() -> None:
    assert read_web_template(json.loads(FILE.read_text())).hash == template("vital_signs").hash


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"<html>", "it is not JSON"),
        (b"[]", "it has no tree"),
        (b"{}", "it has no tree"),
        (b'{"tree": {"id": "a", "rmType": "SECTION"}}', "its root is no COMPOSITION"),
        (b'{"tree": {"rmType": "COMPOSITION"}}', "a node's id is missing"),
        (b'{"tree": {"id": "a/b", "rmType": "COMPOSITION"}}', "a node's id is missing"),
        (b'{"tree": {"id": "a", "children": 1}}', "children is no list of objects"),
        (b'{"tree": {"id": "a", "min": "1"}}', "an occurrence is no number"),
        (b'{"tree": {"id": "a", "rmType": 1}}', "rmType is no text"),
        (b'{"tree": {"id": "a", "children": [{"id": "b"}, {"id": "b"}]}}', "is given twice"),
    ],
)
def test_what_is_no_web_template(content: bytes, expected: str) -> None:
    with pytest.raises(NotAWebTemplate, match=expected):
        read_web_template(content)


def test_endless_nesting_is_refused() -> None:
    tree: dict[str, Any] = {"id": "a"}
    for _ in range(500):
        tree = {"id": "a", "children": [tree]}
    with pytest.raises(NotAWebTemplate, match="nested deeper"):
        read_web_template({"tree": tree})


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.sampled_from(["a", "COMPOSITION", "code", ""]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    "tree id rmType min max children inputs list validation range suffix value".split()
                ),
                inner,
                max_size=6,
            )
        ),
        max_leaves=20,
    )
)
def test_any_json_is_a_web_template_or_refused(tree: object) -> None:
    whole = {"tree": {"id": "a", "rmType": "COMPOSITION", "inputs": tree, "children": [tree]}}
    for content in (tree, {"tree": tree}, whole):
        try:
            assert read_web_template(content).root
        except NotAWebTemplate as refused:
            assert refused.what


def test_the_fixtures_are_small() -> None:
    assert all(path.stat().st_size < 20_000 for path in Path(FILE).parent.glob("*.json"))
