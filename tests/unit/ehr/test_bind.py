"""Mapping × web template × columns → a Plan, or every misfit at its place."""

from __future__ import annotations

import pytest

from replicator.ehr.bind import bind, validate
from replicator.ehr.tables import unread
from tests.unit.ehr.forms import bound, everything, mapping, plan, template, templates

COLUMNS = {
    "public.t": {
        "id": 2950,
        "patient_id": 2950,
        "at": 1184,
        "a": 25,
        "n": 23,
        "b": 16,
        "tags": 1009,
        "extra": 25,
    },
    "public.items": {"id": 23, "t_id": 2950, "name": 25},
    "public.cases": {"id": 23, "person": 25},
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            "every_type/observed/txt: a",
            "no such path in the template, did you mean every_type/observed/text?",
        ),
        (
            "every_type/observed/zzzzzzzz/q: a",
            "no such path in the template; "
            "below every_type/observed stand text, texts, closed, open, snomed, plain_code, …",
        ),
        ("other/observed/text: a", "every path of this template begins with every_type/"),
        ("x: a", "no such path in the template: every path of this template begins with every_type/"),
        ("every_type/observed/pair: a", "not a leaf of the template: below it stand left, right"),
        ("every_type/observed/picture: a", "a DV_MULTIMEDIA cannot be written as a whole"),
        ("every_type/remark:0/text: a", "remark occurs once in the template: write it without :0"),
        ("every_type/observed/pair:3/left: a", "pair occurs 3 times at most: 3 is too large"),
        ("every_type/language: a", "this comes from ctx"),
        ("every_type/context/start_time: a", "this comes from ctx"),
        ("every_type/observed/encoding: a", "this comes from ctx"),
        ("every_type/_uid: a", "names that begin with _ are written by the replicator, or not at all"),
        ("every_type/observed/text|magnitude: a", "|magnitude is no part of a DV_TEXT"),
        ("every_type/observed/quantity|magnitud: a", "did you mean magnitude?"),
        ("every_type/observed/quantity: a", "a unit is missing: it takes mg, kg"),
        (
            "every_type/observed/quantity: {column: a, unit: lb}",
            "the template does not know this unit: it takes mg, kg",
        ),
        (
            "every_type/observed/quantity: {column: a, unit: {column: u, values: {pound: lb}}}",
            "the template does not know this unit: it takes mg, kg",
        ),
        (
            "every_type/observed/quantity: {column: a, unit: {column: u, default: lb}}",
            "the template does not know this unit: it takes mg, kg",
        ),
        ("every_type/observed/text: {column: a, unit: mg}", "a DV_TEXT has no unit"),
        ("every_type/observed/text: {column: a, denominator: 100}", "a DV_TEXT has no denominator"),
        ("every_type/observed/count: {column: a, terminology: x}", "a DV_COUNT has no terminology"),
        (
            "every_type/observed/count: {column: a, code: {column: c, terminology: x}}",
            "a DV_COUNT has no code beside its text",
        ),
        ("every_type/observed/proportion: a", "a denominator is missing, such as 100 for a percentage"),
        ("every_type/observed/percent: {column: a, denominator: 10}", "the template's denominator is 100"),
        (
            "every_type/observed/closed: {column: a, values: {x: at9}}",
            "the template does not know this code: it takes at0001, at0002",
        ),
        (
            "every_type/observed/closed: {column: a, values: {x: {code: at0001, terminology: LOINC}}}",
            "the template takes codes of local only",
        ),
        ("every_type/observed/open: {column: a, values: {x: at9}}", "a label is missing"),
        ("every_type/observed/plain_code: a", "the template lists no codes: give values"),
        ("every_type/observed/plain_code: {column: a, values: {x: y}}", "a terminology is missing"),
        ("every_type/observed/closed: {constant: at9}", "not one of the codes of the template"),
        ("every_type/observed/count: {constant: '11'}", "outside the template's range"),
        ("every_type/observed/count: {constant: many}", "a whole number is expected"),
        (
            "every_type/observed/pair/right: a",
            "the template demands a value at every_type/observed:0/pair:0/left",
        ),
        ("every_type/observed/text: {constant: a}", "no column is written to any entry"),
        (
            "every_type/observed/text: a\nevery_type/observed:0/text: b",
            "the same leaf is filled at 12:7",
        ),
    ],
)
def test_what_does_not_fit(fields: str, expected: str) -> None:
    found = bound(fields)
    assert len(found) == 1 and expected in found[0], found


def test_the_same_leaf_may_be_filled_by_kind() -> None:
    base = "every_type/observed/choice/"
    found = plan(
        f"{base}quantity_value: {{column: a, unit: x, when: number}}\n"
        f"{base}text_value: {{column: a, when: text}}"
    )
    assert [slot.path for slot in found.slots] == [
        "every_type/observed:0/choice/quantity_value",
        "every_type/observed:0/choice/text_value",
    ]


def test_indices_stand_where_the_template_repeats_and_nowhere_else() -> None:
    fields = "every_type/observed/pair:1/left: a\nevery_type/remark/text: a\nevery_type/observed:2/texts:4: a"
    assert [slot.path for slot in plan(fields).slots] == [
        "every_type/observed:0/pair:1/left",
        "every_type/remark/text",
        "every_type/observed:2/texts:4",
    ]


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("every_type/remark: {array: tags, fields: {text: element}}", "this occurs once in the template"),
        ("every_type/nothing: {array: tags, fields: {text: element}}", "no such path in the template"),
        ("every_type/observed: {array: tags, fields: {text: element}}", "this stands inside the group at"),
        ("every_type/observed/texts: {array: tags, fields: {left: element}}", "no such path in the template"),
    ],
)
def test_groups_that_do_not_fit(group: str, expected: str) -> None:
    found = bound("every_type/observed/text: a", f"groups:\n  {group}")
    assert any(expected in what for what in found), found


# The template as a whole.


def test_a_template_the_server_does_not_have() -> None:
    found = validate(everything("every_type/observed/text: a"), {})
    assert [str(problem) for problem in found] == [
        "ehr.yaml:9:15: tables.t.template: the server has no template of this id: upload it"
    ]


def test_another_version_of_the_template() -> None:
    wanted = template("everything").hash
    for given, is_right in ((wanted, True), (wanted[:12], True), ("0" * 12, False)):
        text = "t:\n  key: id\n  patient: p\n"
        text += f"  ctx: {{time: at}}\n  template: {{id: every type.v1, hash: '{given}'}}\n"
        record = mapping(text + "  fields: {every_type/observed/text: a}\n")
        found = validate(record, templates())
        assert [problem.what for problem in found] == (
            [] if is_right else [f"the server has another version of this template: its hash is {wanted}"]
        )


def test_another_template_than_asked_for() -> None:
    record = everything("every_type/observed/text: a")
    found = bind(record, record.tables["t"], template("notes"))[1]
    assert found[0].what == "the server answered with another template"


# Columns.


def misses(fields: str, more: str = "") -> list[str]:
    return [problem.what for problem in validate(everything(fields, more), templates(), COLUMNS)]


@pytest.mark.parametrize(
    ("fields", "more", "expected"),
    [
        ("every_type/observed/text: aa", "", "no such column, did you mean a?"),
        ("every_type/observed/text: a", "ignore: [extr]", "no such column, did you mean extra?"),
        ("every_type/observed/text: a", "soft_delete: gone", "no such column"),
        ("every_type/observed/any_quantity: {column: n, unit: {column: unit}}", "", "no such column"),
        (
            "every_type/observed/text: a",
            "groups: {every_type/observed/texts: {array: tag, fields: {.: element}}}",
            "no such column, did you mean tags?",
        ),
        (
            "every_type/observed/text: a",
            "groups:\n  every_type/observed/texts:\n"
            "    {rows: {table: items, parent: {t: id}, order: id}, fields: {.: n}}",
            "public.items has no column t; what can stand here: id, name, t_id",
        ),
        ("every_type/observed/any_quantity: {column: b, unit: mg}", "", "this column's type cannot be read"),
        ("every_type/observed/boolean: n", "", "this column's type cannot be read as a DV_BOOLEAN"),
        ("every_type/observed/moment: n", "", "this column's type cannot be read as a DV_DATE_TIME"),
    ],
)
def test_columns_that_are_not_there_or_of_the_wrong_type(fields: str, more: str, expected: str) -> None:
    found = misses(fields, more)
    assert any(expected in what for what in found), found


def test_columns_that_fit() -> None:
    rows = "{rows: {table: items, parent: {t_id: id}, order: id}, fields: {.: name}}"
    more = f"groups:\n  every_type/observed/texts: {rows}"
    assert misses("every_type/observed/boolean: b\nevery_type/observed/count: n", more) == []


def test_the_way_to_the_patient_is_checked() -> None:
    text = "t:\n  key: id\n  patient: {column: a, through: cases, key: id, patient: persn}\n"
    text += "  template: every type.v1\n"
    record = mapping(text + "  ctx: {time: at}\n  fields: {every_type/observed/text: a}\n")
    found = [problem.what for problem in validate(record, templates(), COLUMNS)]
    assert found == ["public.cases has no column persn, did you mean person?"]


def test_a_table_that_is_not_there() -> None:
    found = validate(everything("every_type/observed/text: a"), templates(), {"public.tt": {}})
    assert [problem.what for problem in found] == ["the source has no such table, did you mean public.tt?"]


def test_columns_that_nobody_mentions_can_be_told() -> None:
    record = everything("every_type/observed/text: a", "ignore: [b]")
    assert unread(record.tables["t"], COLUMNS) == ["n", "tags", "extra"]


@pytest.mark.parametrize(
    ("filter", "problem"),
    [
        ("extra > 5", "11:13: tables.t: text is compared with a number here (numeric is text, too)"),
        ("extra IN (1, 2)", "11:13: tables.t: text is compared with a number here (numeric is text, too)"),
        ("n > 5 AND cast(extra AS real) > 5 AND a = 'x'", None),
        ("a = 'x' AND nn IS NULL", "11:25: tables.t: no such column, did you mean n?"),
    ],
)
def test_what_no_filter_could_mean_is_told_where_it_stands(filter: str, problem: str | None) -> None:
    record = everything("every_type/observed/text: a", f"filter: {filter}")
    found = [str(each) for each in validate(record, templates(), COLUMNS)]
    assert len(found) == (problem is not None)
    assert problem is None or found[0].startswith(f"ehr.yaml:{problem}")
