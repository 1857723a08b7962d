"""ehr.yaml → RecordMapping, or every problem at its place."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.ehr.mapping import load_mapping, parse_mapping
from replicator.ehr.model import (
    Children,
    Column,
    Constant,
    Expression,
    NullFlavour,
    OnDelete,
    RecordMapping,
    Style,
)
from replicator.errors import ConfigError
from replicator.text.nodes import Problems
from tests.unit.ehr.forms import CONFIG, HEAD, mapping, refused, refused_tables

SHIPPED = (CONFIG / "ehr.yaml").read_text()
TABLE = """\
t:
  key: id
  patient: patient_id
  template: x.v1
  ctx: {time: at}
  fields: {x/y/z: a}
"""


def test_every_key_of_a_table() -> None:
    found = mapping("""\
        visits:
          table: clinic.visits
          key: [site, number]
          patient: {column: case_id, through: cases, key: id, patient: person}
          template: {id: x.v1, hash: 0123456789ab}
          commit: episodic
          episode: stay
          filter: status = 'final'
          ctx: {composer: {column: by, default: Nobody}, time: [a, b], facility: Ward 7}
          fields:
            x/y/one: one
            x/y/two: {constant: two}
            x/y/three: {expression: a || b, required: true}
            x/y/four: {column: four, unit: {column: u, values: {mg: mg}, default: g}, when: number}
            x/y/five: {column: five, values: {true: at1, b: {code: at2, label: Two, terminology: local}}}
            x/y/six: {column: six, code: {column: six_code, terminology: LOINC}, null_flavour: masked}
            x/y/seven: {column: seven, denominator: 100, terminology: SNOMED-CT}
          groups:
            x/y/list: {array: tags, fields: {.: element}}
          delete: mark
          marked: {x/y/eight: {constant: gone}}
          soft_delete: {column: state, values: [void, false]}
          ignore: [synced, synced_at]
          priority: 7
          coalesce: false
        """)
    table = found.tables["visits"]
    assert (table.name, table.table) == ("visits", "clinic.visits")
    assert [column.name for column in table.key] == ["site", "number"]
    assert (table.patient.column.name, *table.patient[1:]) == ("case_id", "public.cases", "id", "person")
    assert table.template is not None and table.template[::2] == ("x.v1", "0123456789ab")
    assert (table.style, table.episode and table.episode.name) == (Style.EPISODIC, "stay")
    assert table.filter is not None and table.filter.text == "status = 'final'"
    ctx = table.ctx
    assert ctx is not None and (ctx.language, ctx.territory, ctx.setting) == ("en", "CM", "238")
    assert isinstance(ctx.composer, Column) and ctx.composer_default == "Nobody"
    assert [column.name for column in ctx.time] == ["a", "b"]
    assert isinstance(ctx.facility, Constant) and ctx.facility.text == "Ward 7"
    one, two, three, four, five, six, seven = table.fields
    assert isinstance(one.source, Column) and isinstance(two.source, Constant)
    assert isinstance(three.source, Expression) and three.required
    assert four.unit is not None and (four.unit.values, four.unit.default) == ({"mg": "mg"}, "g")
    assert four.when == "number"
    assert five.values is not None and {name: code.code for name, code in five.values.items()} == {
        "true": "at1",
        "t": "at1",
        "b": "at2",
    }
    assert six.code is not None and six.code.terminology == "LOINC"
    assert six.null_flavour is NullFlavour.MASKED
    assert (seven.denominator, seven.terminology) == (100.0, "SNOMED-CT")
    assert isinstance(table.groups[0].each, Column)
    assert (table.on_delete, len(table.marked)) == (OnDelete.MARK, 1)
    assert table.gone is not None and table.gone.values == ("void", "f")
    assert [column.name for column in table.ignore] == ["synced", "synced_at"]
    assert (table.priority, table.coalesce, found.zone) == (7, False, 60)


def test_rows_of_another_table() -> None:
    found = mapping(
        TABLE
        + "  groups:\n    x/y/item:\n      rows: {table: items, parent: {t_id: id}, order: [line, id]}\n"
        "      fields: {name: name}\n"
    )
    each = found.tables["t"].groups[0].each
    assert isinstance(each, Children)
    assert (each.table, each.parent, each.order) == ("public.items", {"t_id": "id"}, ("line", "id"))


def test_expressions_that_mean_nothing_are_told_all_at_once_and_where() -> None:
    text = HEAD + textwrap.indent(TABLE, "  ").replace(
        "fields: {x/y/z: a}",
        "filter: record_type = 'a' AND OR b\n"
        "    fields:\n"
        '      x/y/a: {expression: "a || nothing(b)"}\n'
        "      x/y/b: {expression: now()}\n"
        "      x/y/c: {expression: 'a, b'}\n"
        "      x/y/d: {expression: t.a}\n"
        "      x/y/e: {expression: a AS b}\n"
        "      x/y/f: {expression: a IN (SELECT b FROM c)}\n"
        "      x/y/g:\n        expression: >-\n          a ||\n          wrong(b)\n",
    )
    found = refused(text)
    assert [":".join(line.split(":")[1:3]) for line in found] == [
        *("11:35", "13:33", "14:27", "15:28", "16:27", "17:27", "18:29", "22:11")
    ], found
    assert "syntax error" in found[0] and "nothing" in found[1] and "time is no part" in found[2]


def test_columns_of_expressions_are_columns_that_are_used() -> None:
    (line,) = refused_tables(TABLE.replace("x/y/z: a", "x/y/z: {expression: b || c}") + "  ignore: [c]\n")
    assert "ignored, but used at" in line


def test_what_belongs_together_is_said_for_all_tables_or_for_one() -> None:
    found = parse_mapping(HEAD.replace("ctx:", "atomic: true\nctx:") + textwrap.indent(TABLE, "  "), "f")
    assert (found.tables["t"].atomic, found.committer) == (True, "clinic")
    more = "committer: Gateway\nctx:"
    one = TABLE + "  atomic: true\n" + TABLE.replace("t:", "u:", 1)
    found = parse_mapping(HEAD.replace("ctx:", more) + textwrap.indent(one, "  "), "f")
    assert [table.atomic for table in found.tables.values()] == [True, False]
    assert found.committer == "Gateway"


def test_rows_that_share_a_composition_cannot_be_in_it_at_once() -> None:
    shared = TABLE + "  commit: longitudinal\n  delete: keep\n"
    found = parse_mapping(HEAD.replace("ctx:", "atomic: true\nctx:") + textwrap.indent(shared, "  "), "f")
    assert not found.tables["t"].atomic
    (line,) = refused_tables(shared + "  atomic: true\n")
    assert line.startswith("tables.t.atomic: ") and "commit: event" in line


def test_a_table_may_have_several_mappings() -> None:
    found = mapping(TABLE + TABLE.replace("t:\n", "u:\n  table: t\n", 1))
    assert [table.name for table in found.of("public.t")] == ["t", "u"]


def test_problems_have_places_and_come_all_at_once() -> None:
    text = HEAD + (
        "  t:\n    key: id\n    pateint: p\n    template: x\n    fields:\n"
        "      x y: a\n      x/y: {colum: a}\n"
    )
    assert refused(text) == [
        "ehr.yaml:7:5: tables.t: patient is missing",
        "ehr.yaml:8:5: tables.t.pateint: unknown key, did you mean patient?",
    ]
    text = text.replace("pateint", "patient")
    assert refused(text) == [
        "ehr.yaml:7:5: tables.t.ctx: time is missing, here and in ctx above",
        "ehr.yaml:11:7: tables.t.fields: not a path: names joined by /, a repeated one with :0, "
        "and at the end perhaps |suffix",
        "ehr.yaml:12:12: tables.t.fields.?: column, constant, expression: one of them is missing",
        "ehr.yaml:12:13: tables.t.fields.?.colum: unknown key, did you mean column?",
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("key: id", "key: [id, id]"), "named twice"),
        (("key: id", "key: []"), "the name of a column is expected"),
        (("patient: patient_id", "patient: {column: a, through: b}"), "key is missing"),
        (("template: x.v1", "template: {id: x, hash: zz}"), "12 to 64 hexadecimal digits"),
        (
            ("template: x.v1", "template: x\n  commit: always"),
            "unknown here; what can stand here: episodic, event",
        ),
        (("template: x.v1", "template: x\n  commit: episodic"), "episode goes with commit: episodic"),
        (("template: x.v1", "template: x\n  episode: e"), "episode goes with commit: episodic"),
        (("template: x.v1", "template: x\n  commit: longitudinal\n  delete: delete"), "use keep or mark"),
        (("template: x.v1", "template: x\n  delete: mark"), "go together"),
        (("template: x.v1", "template: x\n  marked: {x/y/z: {constant: a}}"), "go together"),
        (
            ("template: x.v1", "template: x\n  ignore: [a]"),
            "ignored, but used at 12:21: a change of it would be missed",
        ),
        (("template: x.v1", "template: x\n  ignore: [at]"), "ignored, but used at"),
        (("template: x.v1", "template: x\n  priority: high"), "must be a whole number from 0 to 1000"),
        (("template: x.v1", "template: x\n  coalesce: 1"), "must be true or false"),
        (("ctx: {time: at}", "ctx: {time: at, language: english}"), "a language is expected, such as en"),
        (("ctx: {time: at}", "ctx: {time: at, territory: cm}"), "a country of two capitals"),
        (("ctx: {time: at}", "ctx: {time: at, setting: hospital}"), "unknown here"),
        (("x/y/z: a", "x/y/z: {column: a, constant: b}"), "given together"),
        (("x/y/z: a", "x/y/z: {column: a, required: true, null_flavour: unknown}"), "cannot be missing"),
        (("x/y/z: a", "x/y/z: {constant: a, required: true}"), "a constant is never missing"),
        (("x/y/z: a", "x/y/z: {column: a, null_flavour: lost}"), "unknown here"),
        (("x/y/z: a", "x/y/z: {column: a, values: {}}"), "no values"),
        (("x/y/z: a", "x/y/z: {column: a, values: {b: {label: c}}}"), "code is missing"),
        (("x/y/z: a", "x/y/z: {column: a, code: {terminology: c}}"), "column or array is expected"),
        (("x/y/z: a", "x/y/z: [a]"), "a mapping is expected here"),
        (("fields: {x/y/z: a}", "fields: {}"), "neither fields nor groups: nothing is written"),
        (
            ("fields: {x/y/z: a}", "groups: {x/y: {fields: {z: a}}}\n  fields: {x/a: b}"),
            "array or rows is expected",
        ),
        (
            (
                "fields: {x/y/z: a}",
                "fields: {x/a: b}\n"
                "  groups: {x/y: {rows: {table: i, parent: {t: other}, order: n}, fields: {z: a}}}",
            ),
            "parent must lead to the key of this table",
        ),
    ],
)
def test_what_cannot_be_meant(change: tuple[str, str], expected: str) -> None:
    text = TABLE.replace(*change)
    assert text != TABLE
    lines = refused_tables(text)
    assert any(expected in line for line in lines), lines


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("system: clinic\n", ""), "ehr.yaml:1:1: system is missing"),
        (
            ("system: clinic", "system: a b"),
            "ehr.yaml:1:9: system: letters, digits, dots, dashes and _ are expected",
        ),
        (("namespace: clinic", "namespace: 1clinic"), "ehr.yaml:2:12: namespace: a letter is expected first"),
        (('"+01:00"', "Africa/Douala"), 'ehr.yaml:3:7: zone: a form like "+01:00" is expected, in quotes'),
        (("ctx: {language", "ctx: {tongue"), "ehr.yaml:4:7: ctx.tongue: unknown key; what can stand here"),
        (("tables:", "tabels:"), "tabels: unknown key, did you mean tables?"),
    ],
)
def test_what_cannot_be_meant_at_the_top(change: tuple[str, str], expected: str) -> None:
    text = HEAD + "".join(f"  {line}\n" for line in TABLE.splitlines())
    assert text.replace(*change) != text
    assert any(expected in line for line in refused(text.replace(*change))), refused(text.replace(*change))


def test_a_status_takes_no_template() -> None:
    lines = refused_tables("t: {key: id, patient: id, status: {}, template: x}")
    known = "coalesce, existing, ignore, key, patient, priority, status, table"
    assert lines == [f"tables.t.template: unknown key; what can stand here: {known}"]


def test_a_missing_file_is_a_misconfiguration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_mapping(tmp_path / "none.yaml")


# Anything at all.


def parsed(text: str) -> RecordMapping | None:
    """The mapping, or None if there are problems, each of which stands somewhere in the text."""
    try:
        return parse_mapping(text, "f")
    except Problems as found:
        assert found.problems
        lines = text.splitlines() or [""]
        for problem in found.problems:
            assert 1 <= problem.line <= len(lines) + 1 and problem.column >= 1 and problem.what
    return None


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_changed_file_is_read_or_refused(data: st.DataObject) -> None:
    text = SHIPPED
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 60)))
        at = data.draw(st.integers(0, len(SHIPPED)))
        piece = data.draw(st.one_of(st.text(max_size=5), st.just(SHIPPED[at : at + 40])))
        text = text[:start] + piece + text[end:]
    parsed(text)


KEYS = """
system namespace zone ctx tables t key patient template fields groups delete marked soft_delete
commit episode filter status column constant expression unit values terminology code when required
null_flavour denominator array rows parent order table language territory setting composer time
facility default id hash through ignore coalesce x/y x/y|z
""".split()
WORDS = [
    *KEYS,
    "en",
    "CM",
    "other care",
    "home",
    "event",
    "episodic",
    "mark",
    "keep",
    "true",
    "number",
    "x/y:0/z",
    "",
]


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.sampled_from(WORDS),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
        max_leaves=25,
    )
)
def test_any_tree_is_read_or_refused(tree: object) -> None:
    parsed(json.dumps(tree))
    parsed(HEAD + "  t: " + json.dumps(tree))
    whole = {"key": "id", "patient": "p", "template": "x", "ctx": {"time": "at"}, "fields": {"x/y": tree}}
    parsed(HEAD + "  t: " + json.dumps(whole))
    parsed(
        HEAD + "  t: " + json.dumps({**whole, "fields": {"x/y": "a"}, "groups": tree, "soft_delete": tree})
    )
