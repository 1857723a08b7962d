"""A row × its Plan → a composition, or a refusal that names the column, the path and the rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.ehr.about import status_flags
from replicator.ehr.bind import Plan
from replicator.ehr.compose import Flat, NotComposed, Stamp, compose
from replicator.ehr.identity import ChangeId
from replicator.ehr.model import Row
from replicator.wal.lsn import Lsn
from tests.unit.ehr.forms import formulas, mapping, plan, row

STAMP = Stamp("7", ChangeId(Lsn.parse("16/B374D848"), 3), "0c7e1b4e-0000-5000-8000-000000000000::record::1")
SECRET = "Ngo-Sensitive"
OBSERVED = "every_type/observed:0"
TEXT, INTEGER, NUMERIC, BOOLEAN, MOMENT, JSON = 25, 23, 1700, 16, 1184, 3802


def observed(made: Plan, values: Row, children: Mapping[str, Sequence[Row]] | None = None) -> Flat:
    """What stands in the observation, by the rest of its path; without language, encoding and time."""
    flat = compose(made, values, STAMP, children=children)
    found = {path[len(OBSERVED) + 1 :]: value for path, value in flat.items() if path.startswith(OBSERVED)}
    drop = ("language|", "encoding|", "time")
    return {path: value for path, value in found.items() if not path.startswith(drop)}


def refusal(made: Plan, values: Row) -> NotComposed:
    with pytest.raises(NotComposed) as raised:
        compose(made, values, STAMP)
    assert SECRET not in str(raised.value) + repr(raised.value.args) + raised.value.hint
    return raised.value


def test_a_whole_composition() -> None:
    made = plan("every_type/remark/text: a", "ctx: {time: at, facility: Ward 7}")
    assert compose(made, row(a="well"), STAMP) == {
        "every_type/_uid": "0c7e1b4e-0000-5000-8000-000000000000::record::1",
        "every_type/category|code": "433",
        "every_type/category|value": "event",
        "every_type/category|terminology": "openehr",
        "every_type/language|code": "en",
        "every_type/language|terminology": "ISO_639-1",
        "every_type/territory|code": "CM",
        "every_type/territory|terminology": "ISO_3166-1",
        "every_type/composer|name": "Clinic",
        "every_type/context/start_time": "2026-01-02T03:04:05+00:00",
        "every_type/context/setting|code": "238",
        "every_type/context/setting|value": "other care",
        "every_type/context/setting|terminology": "openehr",
        "every_type/context/_health_care_facility|name": "Ward 7",
        "every_type/_feeder_audit/originating_system_audit|system_id": "clinic",
        "every_type/_feeder_audit/originating_system_audit|version_id": "16/B374D848:3",
        "every_type/_feeder_audit/originating_system_item_id:0|id": "7",
        "every_type/_feeder_audit/originating_system_item_id:0|type": "public.t",
        "every_type/_feeder_audit/originating_system_item_id:0|issuer": "clinic",
        "every_type/_feeder_audit/originating_system_item_id:0|assigner": "clinic",
        "every_type/remark/text": "well",
        "every_type/remark/language|code": "en",
        "every_type/remark/language|terminology": "ISO_639-1",
        "every_type/remark/encoding|code": "UTF-8",
        "every_type/remark/encoding|terminology": "IANA_character-sets",
    }


def test_of_a_context_that_the_template_says_nothing_of_no_path_is_written() -> None:
    made = plan("every_type/remark/text: a", "ctx: {time: at, facility: Ward 7}")
    silent = {
        path: replace(node, in_context="/context/" not in path and node.in_context)
        for path, node in made.template.nodes.items()
    }
    flat = compose(replace(made, template=replace(made.template, nodes=silent)), row(a="well"), STAMP)
    assert [path for path in flat if "/context" in path] == []
    assert {path: value for path, value in flat.items() if path.startswith("ctx/")} == {
        "ctx/time": "2026-01-02T03:04:05+00:00",
        "ctx/setting": "238",
        "ctx/health_care_facility|name": "Ward 7",
    }


CODES = "{x: at0001, y: at0002}"
FAR = "{x: {code: '22298006', label: Infarct, terminology: SNOMED-CT}}"


@pytest.mark.parametrize(
    ("leaf", "spec", "value", "expected"),
    [
        ("text", "a", "Grüße, 世界", {"": "Grüße, 世界"}),
        ("text", "{column: a, values: {x: Present}}", "x", {"": "Present"}),
        ("texts:2", "a", "third", {"": "third"}),
        (
            "text",
            f"{{column: a, values: {FAR}}}",
            "x",
            {
                "": "Infarct",
                "/_mapping:0|match": "=",
                "/_mapping:0/target|code": "22298006",
                "/_mapping:0/target|terminology": "SNOMED-CT",
            },
        ),
        ("closed", "a", "at0002", {"|code": "at0002", "|value": "two", "|terminology": "local"}),
        (
            "closed",
            f"{{column: a, values: {CODES}}}",
            "x",
            {"|code": "at0001", "|value": "one", "|terminology": "local"},
        ),
        (
            "snomed",
            f"{{column: a, values: {FAR}}}",
            "x",
            {"|code": "22298006", "|value": "Infarct", "|terminology": "SNOMED-CT"},
        ),
        (
            "snomed",
            "{column: a, code: {column: c, terminology: SNOMED-CT}}",
            "Infarct",
            {"|code": "c1", "|value": "Infarct", "|terminology": "SNOMED-CT"},
        ),
        ("open", "{column: a, code: {column: none, terminology: LOINC}}", "words", {"|other": "words"}),
        ("quantity", "{column: a, unit: mg}", "12.50", {"|magnitude": 12.5, "|unit": "mg"}),
        ("quantity", "{column: a, unit: mg}", " 1e2 ", {"|magnitude": 100.0, "|unit": "mg"}),
        (
            "any_quantity",
            "{column: a, unit: {column: u, values: {mmol/l: mmol/L}}}",
            "1",
            {"|magnitude": 1.0, "|unit": "mmol/L"},
        ),
        (
            "any_quantity",
            "{column: a, unit: {column: none, default: '1'}}",
            "1",
            {"|magnitude": 1.0, "|unit": "1"},
        ),
        ("quantity|magnitude", "a", "5", {"|magnitude": 5.0}),
        ("count", "a", "3", {"": 3}),
        ("count", "a", "3.00", {"": 3}),
        (
            "proportion",
            "{column: a, denominator: 100}",
            "98",
            {"|numerator": 98.0, "|denominator": 100.0, "|type": 2},
        ),
        (
            "proportion",
            "{column: a, denominator: 50}",
            "98",
            {"|numerator": 98.0, "|denominator": 50.0, "|type": 0},
        ),
        ("percent", "a", "98.5", {"|numerator": 98.5, "|denominator": 100.0}),
        ("ordinal", "a", "1", {"|code": "at0011", "|value": "some", "|ordinal": 1}),
        (
            "ordinal",
            "{column: a, values: {low: at0010}}",
            "low",
            {"|code": "at0010", "|value": "none", "|ordinal": 0},
        ),
        ("listed", "a", "left", {"": "left"}),
        ("always", "a", "t", {"": True}),
        ("boolean", "a", "t", {"": True}),
        ("boolean", "{column: a, values: {no: f}}", "no", {"": False}),
        ("date", "a", "2026-01-02", {"": "2026-01-02"}),
        ("date", "a", "2026-01-02 23:30:00+00", {"": "2026-01-03"}),
        ("moment", "a", "2026-01-02 03:04:05.678901-03:30", {"": "2026-01-02T03:04:05.678901-03:30"}),
        ("moment", "a", "2026-01-02 03:04:05", {"": "2026-01-02T03:04:05+01:00"}),
        ("moment", "a", "2026-01-02", {"": "2026-01-02T00:00:00+01:00"}),
        ("clock", "a", "03:04:05.5", {"": "03:04:05.500000"}),
        ("clock", "a", "03:04:05+01", {"": "03:04:05+01:00"}),
        ("duration", "a", "1 year 2 mons 3 days 04:05:06.5", {"": "P1Y2M3DT4H5M6.5S"}),
        ("duration", "a", "00:00:00", {"": "PT0H0M0S"}),
        ("duration", "a", "P3W", {"": "P3W"}),
        ("identifier", "a", "A-1", {"|id": "A-1"}),
        ("identifier|issuer", "a", "MoH", {"|issuer": "MoH"}),
        ("link", "a", "https://x.example/1", {"": "https://x.example/1"}),
    ],
)
def test_a_value_of_each_type(leaf: str, spec: str, value: str, expected: Flat) -> None:
    made = plan(f"{OBSERVED}/{leaf}: {spec}")
    path = leaf.partition("|")[0]
    found = observed(made, row(a=value, c="c1", u="mmol/l", none=None))
    assert found == {f"{path}{suffix}": value for suffix, value in expected.items()}


@pytest.mark.parametrize(
    ("leaf", "spec", "value", "rule"),
    [
        ("text", "{column: a, required: true}", None, "required, and missing"),
        ("text", "{column: a, required: true}", "  ", "required, and missing"),
        ("text", "{column: a, values: {x: y}}", SECRET, "not one of the values of the mapping"),
        ("closed", "a", SECRET, "not one of the codes of the template"),
        ("closed", f"{{column: a, values: {CODES}}}", SECRET, "not one of the values of the mapping"),
        ("quantity", "{column: a, unit: mg}", SECRET, "a number is expected"),
        ("quantity", "{column: a, unit: mg}", "NaN", "a number is expected"),
        ("quantity", "{column: a, unit: mg}", "1e999", "a number is expected"),
        ("quantity", "{column: a, unit: mg}", "501", "outside the template's range"),
        ("any_quantity", "{column: a, unit: {column: none}}", "1", "no unit in none"),
        (
            "any_quantity",
            "{column: a, unit: {column: secret, values: {x: y}}}",
            "1",
            "a unit that the mapping does not name",
        ),
        ("quantity", "{column: a, unit: {column: secret}}", "1", "not one of the units of the template"),
        ("snomed", "{column: a, code: {column: none, terminology: SNOMED-CT}}", "x", "no code in none"),
        ("count", "a", "3.5", "a whole number is expected"),
        ("count", "a", "11", "outside the template's range"),
        ("ordinal", "a", "9", "not one of the codes of the template"),
        ("listed", "a", SECRET, "not one of the codes of the template"),
        ("always", "a", "f", "not one of the codes of the template"),
        ("boolean", "a", SECRET, "true or false is expected"),
        ("date", "a", SECRET, "a time is expected"),
        ("date", "a", "2026-02-30", "day is out of range"),
        ("moment", "a", "infinity", "a time is expected"),
        ("moment", "a", "0044-03-15 BC", "a time is expected"),
        ("moment", "a", "20260-01-01", "a time is expected"),
        ("clock", "a", SECRET, "a time of day is expected"),
        ("duration", "a", "-1 days", "a duration is expected that is not negative"),
        ("duration", "a", SECRET, "a duration is expected"),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused_without_being_told(
    leaf: str, spec: str, value: str | None, rule: str
) -> None:
    made = plan(f"{OBSERVED}/{leaf}: {spec}\nevery_type/remark/text: b")
    found = refusal(made, row(a=value, b="there", none=None, secret=SECRET))
    assert (found.table, found.column, found.path) == ("public.t", "a", f"{OBSERVED}/{leaf}")
    assert rule in found.rule


def test_what_is_missing_is_left_out_with_its_entry() -> None:
    fields = f"{OBSERVED}/text: a\n{OBSERVED}/closed: {{constant: at0001}}\nevery_type/remark/text: b"
    flat = compose(plan(fields), row(a=None, b="there"), STAMP)
    assert not [path for path in flat if path.startswith(OBSERVED)]
    flat = compose(plan(fields), row(a="here", b=None), STAMP)
    assert flat[f"{OBSERVED}/closed|code"] == "at0001"
    assert not [path for path in flat if path.startswith("every_type/remark")]


def test_a_null_flavour_says_why_a_value_is_missing() -> None:
    made = plan(f"{OBSERVED}/text: a\n{OBSERVED}/closed: {{column: c, null_flavour: masked}}")
    assert observed(made, row(a="here", c=None)) == {
        "text": "here",
        "closed/_null_flavour|code": "272",
        "closed/_null_flavour|value": "masked",
        "closed/_null_flavour|terminology": "openehr",
    }


def test_what_the_template_demands_of_a_part_is_demanded_only_of_one_that_is_there() -> None:
    made = plan(f"{OBSERVED}/pair/left: a\n{OBSERVED}/pair/right: b\n{OBSERVED}/text: c")
    assert observed(made, row(a=None, b=None, c="x")) == {"text": "x"}
    found = refusal(made, row(a=None, b=SECRET, c="x"))
    assert (found.column, found.path) == ("a", f"{OBSERVED}/pair:0/left")
    assert found.rule == "the template demands a value"


@pytest.mark.parametrize("at", [None, "", "whenever"])
def test_a_composition_without_a_time_is_refused(at: str | None) -> None:
    found = refusal(plan("every_type/remark/text: a"), {**row(a=SECRET), "at": at})
    assert (found.column, found.path) == ("at", "every_type/context/start_time")


def test_a_row_that_lacks_a_column_of_the_mapping_is_refused() -> None:
    assert refusal(plan("every_type/remark/text: a"), row()).rule == "the row has no such column"


def test_the_composer_may_be_a_column_with_a_default() -> None:
    made = plan("every_type/remark/text: a", "ctx: {composer: {column: by, default: Unknown}, time: at}")
    assert compose(made, row(a="x", by="Nurse 7"), STAMP)["every_type/composer|name"] == "Nurse 7"
    assert compose(made, row(a="x", by=None), STAMP)["every_type/composer|name"] == "Unknown"


# Groups.


def test_an_array_repeats_a_leaf() -> None:
    made = plan(
        "every_type/remark/text: a",
        "groups: {every_type/observed/texts: {array: tags, fields: {.: element}}}",
    )
    assert observed(made, row(a="x", tags='{one,"two, too",NULL,"say \\"hi\\""}')) == {
        "texts:0": "one",
        "texts:1": "two, too",
        "texts:2": 'say "hi"',
    }
    assert observed(made, row(a="x", tags="{}")) == observed(made, row(a="x", tags=None)) == {}
    for text in ("x", "{{a},{b}}", "{a", "{a,}", '{"a}'):
        assert "array" in refusal(made, row(a="x", tags=text)).rule


def test_rows_of_another_table_repeat_a_part() -> None:
    rows = "{rows: {table: items, parent: {t_id: id}, order: id}, fields: {left: name, right: {constant: r}}}"
    made = plan("every_type/remark/text: a", f"groups:\n  every_type/observed/pair: {rows}")
    found = observed(made, row(a="x"), {"public.items": [{"name": "one"}, {"name": "two"}]})
    assert found == {"pair:0/left": "one", "pair:0/right": "r", "pair:1/left": "two", "pair:1/right": "r"}


# Expressions, marks, and the EHR's own status.


@pytest.mark.parametrize(
    ("expression", "values", "oid", "expected"),
    [
        ("a || b", {"a": "x", "b": "y"}, TEXT, "xy"),
        ("upper(a)", {"a": "x"}, TEXT, "X"),
        ("a + 1", {"a": "41"}, INTEGER, "42"),
        ("a * 0.5", {"a": "5"}, INTEGER, "2.5"),
        ("a || ' kg'", {"a": "70.50"}, NUMERIC, "70.50 kg"),
        ("CASE WHEN a THEN 'yes' ELSE 'no' END", {"a": "t"}, BOOLEAN, "yes"),
        ("CASE WHEN a THEN 'yes' ELSE 'no' END", {"a": "f"}, BOOLEAN, "no"),
        ("a ->> 'b'", {"a": '{"b": "c"}'}, JSON, "c"),
        ("substr(a, 1, 10)", {"a": "2026-01-02 03:04:05+00"}, MOMENT, "2026-01-02"),
        ("ifnull(a, 'none')", {"a": None}, TEXT, "none"),
        ("a || b", {"a": "x", "b": None}, TEXT, None),
    ],
)
def test_an_expression_is_computed_by_the_types_of_its_columns(
    expression: str, values: dict[str, str | None], oid: int, expected: str | None
) -> None:
    made = plan(f'every_type/remark/text: {{expression: "{expression}"}}\nevery_type/observed/text: id')
    known = formulas(made, **{name: oid if name == "a" else TEXT for name in values})
    assert compose(made, row(**values), STAMP, formulas=known).get("every_type/remark/text") == expected


def test_an_expression_that_fails_is_a_refusal_and_tells_no_value() -> None:
    made = plan("every_type/remark/text: {expression: a + 1}")
    assert refusal(made, row(a=SECRET)).rule == "nobody compiled it"
    with pytest.raises(NotComposed) as raised:
        compose(made, row(a=SECRET), STAMP, formulas=formulas(made, a=INTEGER))
    assert SECRET not in str(raised.value) and raised.value.__cause__ is None
    assert raised.value.rule == "it cannot be computed for this row"


def test_an_expression_names_the_row_of_the_part_it_stands_in() -> None:
    more = (
        "groups:\n  every_type/observed/pair: {rows: {table: items, parent: {t_id: id}, order: id}, "
        "fields: {left: {expression: name || '!'}}}"
    )
    made = plan("every_type/observed/text: a", more)
    flat = compose(
        made, row(a="x"), STAMP, children={"public.items": [{"name": "n"}]}, formulas=formulas(made)
    )
    assert flat[f"{OBSERVED}/pair:0/left"] == "n!"


def test_a_mark_stands_beside_or_instead_of_what_was_there() -> None:
    more = "delete: mark\nmarked: {every_type/observed/closed: {constant: at0002}}"
    made = plan(f"{OBSERVED}/text: a\n{OBSERVED}/closed: c", more)
    assert observed(made, row(a="x", c="at0001"))["closed|code"] == "at0001"
    flat = compose(made, row(a="x", c="at0001"), STAMP, is_gone=True)
    assert (flat[f"{OBSERVED}/text"], flat[f"{OBSERVED}/closed|code"]) == ("x", "at0002")


def test_a_status_says_nothing_but_its_flags() -> None:
    record = mapping("users: {key: id, patient: id, status: {modifiable: is_active}}")
    assert status_flags(record.tables["users"], {"id": "1", "is_active": "t"}) == (True, True)
    assert status_flags(record.tables["users"], {"id": "1", "is_active": "f"}) == (False, True)


# Laws.

FIELDS = f"""
{OBSERVED}/text: text
{OBSERVED}/closed: {{column: code, values: {CODES}}}
{OBSERVED}/quantity: {{column: number, unit: {{column: unit, default: mg}}}}
{OBSERVED}/count: {{column: count, null_flavour: unknown}}
{OBSERVED}/ordinal: ordinal
{OBSERVED}/boolean: boolean
{OBSERVED}/date: date
{OBSERVED}/moment: moment
{OBSERVED}/clock: clock
{OBSERVED}/duration: duration
{OBSERVED}/choice/quantity_value: {{column: choice, unit: x, when: number}}
{OBSERVED}/choice/text_value: {{column: choice, when: text}}
every_type/remark/text: {{expression: a}}
"""
LAWFUL = plan(FIELDS, "groups: {every_type/observed/texts: {array: tags, fields: {.: element}}}")
NAMES = "text code number unit count ordinal boolean date moment clock duration choice tags a id at".split()
VALUES = """
x y at0001 mg kg 1 0 -1 3.5 1e5 NaN Infinity t f true 2026-01-02 2026-01-02T03:04:05Z
{} {a,b} {a,"b c"} {{a}} {NULL} { }
00:00 24:00:00 03:04:05+01 P1D 1_day -infinity 0001-01-01 9999-12-31 ٣ ½ \x00 \ud7ff
""".split()
value = st.one_of(
    st.none(),
    st.text(max_size=8),
    st.sampled_from(
        [
            *VALUES,
            "2026-01-02 03:04:05+00",
            "0001-01-01 00:00:00+14",
            "1 day 02:00:00",
            "9999-12-31 23:59:59-12",
        ]
    ),
    st.from_regex(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}( [0-9]{2}:[0-9]{2}:[0-9]{2}([+-][0-9]{2}(:[0-9]{2})?)?)?", fullmatch=True
    ),
)


@settings(max_examples=500, deadline=None)
@given(st.fixed_dictionaries({name: value for name in NAMES}))
def test_any_row_is_composed_always_the_same_or_refused(values: dict[str, str | None]) -> None:
    def once() -> bytes:
        try:
            return orjson.dumps(compose(LAWFUL, values, STAMP, formulas=formulas(LAWFUL)))
        except NotComposed as refused:
            return str(refused).encode()

    assert once() == once()


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), value))
def test_any_part_of_a_row_is_composed_or_refused(values: dict[str, str | None]) -> None:
    try:
        assert compose(LAWFUL, values, STAMP)
    except NotComposed as refused:
        assert refused.rule and ("→" in refused.what) == (refused.path != "")
