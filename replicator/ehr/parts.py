"""The parts of a table's mapping → where its patient, template, time and end are found. No I/O."""

from __future__ import annotations

import re

from yaml import MappingNode, Node, ScalarNode

from replicator.ehr.fields import qualified
from replicator.ehr.model import Ctx, Expression, Gone, Patient, Status, Template
from replicator.ehr.written import Keys, Written

CTX = ("language", "territory", "setting", "composer", "time", "facility")
#: The openEHR terminology's group "setting".
SETTINGS = {
    "home": "225",
    "emergency care": "227",
    "primary medical care": "228",
    "primary nursing care": "229",
    "primary allied health care": "230",
    "midwifery care": "231",
    "secondary medical care": "232",
    "secondary nursing care": "233",
    "secondary allied health care": "234",
    "complementary health care": "235",
    "dental care": "236",
    "nursing home care": "237",
    "other care": "238",
    "mental healthcare": "802",
}
HASH = re.compile(r"[0-9a-f]{12,64}")
TWO_SMALL, TWO_LARGE = re.compile(r"[a-z]{2}(-[A-Za-z]{2,4})?"), re.compile(r"[A-Z]{2}")


def read_patient(written: Written, keys: Keys) -> Patient | None:
    node, path = keys.get("patient"), keys.at("patient")
    if not isinstance(node, MappingNode):
        column = written.column(node, path)
        return None if column is None else Patient(column)
    names = ("column", "through", "key", "patient")
    parts = written.keys(node, path, names, names)
    if parts is None:
        return None
    column = written.column(parts.get("column"), parts.at("column"))
    rest = [written.words(parts.get(name), parts.at(name)) for name in names[1:]]
    through, key, patient = rest
    if column is None or not through or not key or not patient:
        return None
    return Patient(column, qualified(through), key, patient)


def read_status(written: Written, keys: Keys) -> Status:
    node = keys.get("status")
    parts = written.keys(node, keys.at("status"), ("modifiable", "queryable")) if node is not None else None
    if parts is None:
        return Status()
    names = ("modifiable", "queryable")
    return Status(*(written.column(parts.get(name), parts.at(name)) for name in names))


def read_template(written: Written, keys: Keys) -> Template | None:
    node, path = keys.get("template"), keys.at("template")
    if not isinstance(node, MappingNode):
        text = written.words(node, path)
        return None if text is None or node is None else Template(text, written.place(node))
    parts = written.keys(node, path, ("id", "hash"), ("id",))
    if parts is None or (name := parts.get("id")) is None:
        return None
    text = written.words(name, parts.at("id"))
    what = "12 to 64 hexadecimal digits are expected; check --ehr prints the whole hash"
    digest = written.matching(parts.get("hash"), parts.at("hash"), HASH, what) or ""
    at = written.place(parts.get("hash") or name)
    return None if text is None else Template(text, written.place(name), digest, at)


def read_ctx(written: Written, keys: Keys, shared: Keys | None) -> Ctx | None:
    own = written.keys(node, keys.at("ctx"), CTX) if (node := keys.get("ctx")) is not None else None

    def part(name: str) -> tuple[Node | None, str]:
        for place in (own, shared):
            if place is not None and place.get(name) is not None:
                return place.get(name), place.at(name)
        return None, keys.at("ctx")

    for name in CTX[:-1]:
        if part(name)[0] is None:
            written.refuse(
                own.node if own else keys.node, keys.at("ctx"), f"{name} is missing, here and in ctx above"
            )
    language = written.matching(*part("language"), TWO_SMALL, "a language is expected, such as en")
    territory = written.matching(
        *part("territory"), TWO_LARGE, "a country of two capitals is expected, such as CM"
    )
    setting = written.choice(*part("setting"), SETTINGS)
    composer, where = part("composer")
    who = written.column_or(composer, where, ("default",))
    time = written.columns(*part("time"), is_needed=True)
    facility = written.column_or(*part("facility"))
    if not language or not territory or not setting or who is None or not time:
        return None
    return Ctx(language, territory, SETTINGS[setting], who, _default(composer), time, facility)


def _default(node: Node | None) -> str | None:
    pairs: dict[str, Node] = (
        {str(key.value): value for key, value in node.value} if isinstance(node, MappingNode) else {}
    )
    found = pairs.get("default")
    return str(found.value) if isinstance(found, ScalarNode) and found.value else None


def read_filter(written: Written, keys: Keys) -> Expression | None:
    return written.expression(keys.get("filter"), keys.at("filter"))


def read_gone(written: Written, node: Node | None, path: str) -> Gone | None:
    if not isinstance(node, MappingNode):
        column = written.column(node, path)
        return None if column is None else Gone(column)
    parts = written.keys(node, path, ("column", "values"), ("column", "values"))
    if parts is None or (column := written.column(parts.get("column"), parts.at("column"))) is None:
        return None
    values = tuple(
        value.name for value in written.columns(parts.get("values"), parts.at("values"), is_needed=True)
    )
    return Gone(column, tuple({"true": "t", "false": "f"}.get(value, value) for value in values))
