"""Texts of mapping files and web templates → the values that tests compare."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from replicator.ehr.bind import Plan, bind
from replicator.ehr.columns import Catalogue, computed
from replicator.ehr.mapping import parse_mapping
from replicator.ehr.model import Formula, RecordMapping, Row
from replicator.ehr.used import expressions
from replicator.ehr.webtemplate import WebTemplate, read_web_template
from replicator.rules.columns.types import BUILT_IN
from replicator.text.nodes import Problems

HERE = Path(__file__).parent
CONFIG = HERE.parents[2] / "config"
HEAD = """\
system: clinic
namespace: clinic
zone: "+01:00"
ctx: {language: en, territory: CM, setting: other care, composer: Clinic}
tables:
"""


def template(name: str) -> WebTemplate:
    return read_web_template((HERE / "webtemplates" / f"{name}.json").read_bytes())


def templates() -> dict[str, WebTemplate]:
    found = [template(path.stem) for path in sorted((HERE / "webtemplates").glob("*.json"))]
    return {each.id: each for each in found}


def mapping(tables: str) -> RecordMapping:
    """A mapping of these tables."""
    return parse_mapping(HEAD + textwrap.indent(textwrap.dedent(tables), "  "), "ehr.yaml")


def refused(text: str) -> list[str]:
    """The lines of the problems of a whole file."""
    with pytest.raises(Problems) as raised:
        parse_mapping(text, "ehr.yaml")
    assert raised.value.exit_code == 2
    return raised.value.what.splitlines()


def refused_tables(tables: str) -> list[str]:
    """The problems of a file of these tables, without their places."""
    lines = refused(HEAD + textwrap.indent(textwrap.dedent(tables), "  "))
    for line in lines:
        assert re.match(r"ehr\.yaml:\d+:\d+: ", line), line
    return [re.sub(r"^ehr\.yaml:\d+:\d+: ", "", line) for line in lines]


def everything(fields: str, more: str = "") -> RecordMapping:
    """A mapping of a table `t` onto the template that has every type."""
    ctx = "" if more.startswith("ctx") else "  ctx: {time: at}\n"
    return mapping(
        f"t:\n  key: id\n  patient: patient_id\n  template: every type.v1\n{ctx}"
        + textwrap.indent(textwrap.dedent(more).strip("\n") + "\n", "  ").lstrip("\n")
        + "  fields:\n"
        + textwrap.indent(textwrap.dedent(fields).strip("\n"), "    ")
        + "\n"
    )


def bound(fields: str, more: str = "") -> list[str]:
    """What does not fit, for these fields."""
    found = everything(fields, more)
    return [problem.what for problem in bind(found, found.tables["t"], template("everything"))[1]]


def plan(fields: str, more: str = "") -> Plan:
    found = everything(fields, more)
    made, problems = bind(found, found.tables["t"], template("everything"))
    assert problems == []
    return made


def formulas(made: Plan, **oids: int) -> Mapping[str, Formula]:
    """What a plan's expressions come to; columns are text, or of these types."""
    record, table = made.mapping, made.table
    return computed(record, Catalogue({of: oids for of, _ in expressions(table)}, BUILT_IN)).formulas


def plan_of(record: RecordMapping, name: str) -> Plan:
    table = record.tables[name]
    assert table.template is not None
    made, problems = bind(record, table, templates()[table.template.id])
    assert problems == []
    return made


def row(**values: str | None) -> Row:
    """A row of `t`."""
    return {"id": "7", "patient_id": "p1", "at": "2026-01-02 03:04:05+00", **values}
