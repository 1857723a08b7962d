"""The fields and groups of a mapping file → Fields and Groups. No I/O.

root/section/entry/element: column              the short form
root/section/entry/other:                       the long one
  column: status                                or constant: text, or expression: text
  unit: mm[Hg]                                  or {column: unit, values: {mmol/l: mmol/L}, default: "1"}
  values: {final: at0010, draft: {code: at0011, label: Draft, terminology: local}}
  required: true
"""

from __future__ import annotations

from yaml import MappingNode, Node, ScalarNode

from replicator.ehr.model import (
    Children,
    Code,
    CodeColumn,
    Column,
    Constant,
    Field,
    Group,
    NullFlavour,
    Unit,
)
from replicator.ehr.written import SOURCES, Keys, Written
from replicator.text.nodes import Entry, dotted, is_null

KEYS = (
    *SOURCES,
    "unit",
    "values",
    "terminology",
    "code",
    "denominator",
    "null_flavour",
    "required",
    "when",
)
FLAVOURS = {flavour.name.lower(): flavour for flavour in NullFlavour}
#: What the elements of an array are called.
ELEMENT = "element"


def read_fields(written: Written, node: Node | None, path: str) -> tuple[Field, ...]:
    """A mapping from FLAT paths to what stands there."""
    what = "a mapping from paths to columns is expected here"
    read = (_field(written, entry, path) for entry in written.entries(node, path, what))
    return tuple(field for field in read if field is not None)


def _field(written: Written, entry: Entry, above: str) -> Field | None:
    flat = written.flat_path(entry, above)
    path = dotted(above, entry.name)
    at = written.place(entry.key)
    if isinstance(entry.value, ScalarNode):
        column = written.column(entry.value, path)
        return None if flat is None or column is None else Field(flat, at, column)
    keys = written.keys(entry.value, path, KEYS)
    if keys is None or (source := written.source(keys)) is None or flat is None:
        return None
    flavour = written.choice(keys.get("null_flavour"), keys.at("null_flavour"), FLAVOURS)
    when = written.choice(keys.get("when"), keys.at("when"), ("number", "text"))
    field = Field(
        flat,
        at,
        source,
        unit=_unit(written, keys.get("unit"), keys.at("unit")),
        values=_codes(written, keys.get("values"), keys.at("values")),
        terminology=written.words(keys.get("terminology"), keys.at("terminology")),
        code=_code_column(written, keys.get("code"), keys.at("code")),
        denominator=_denominator(written, keys),
        null_flavour=FLAVOURS[flavour] if flavour else None,
        required=written.flag(keys.get("required"), keys.at("required"), False),
        when="number" if when == "number" else "text" if when == "text" else None,
    )
    _refuse_what_clashes(written, field, keys)
    return field


def _refuse_what_clashes(written: Written, field: Field, keys: Keys) -> None:
    if field.required and field.null_flavour:
        what = "a required value cannot be missing: leave null_flavour or required out"
        written.refuse(keys.get("null_flavour"), keys.at("null_flavour"), what)
    if isinstance(field.source, Constant) and (field.null_flavour or field.when or field.required):
        written.refuse(
            keys.node, keys.path, "a constant is never missing: leave required, null_flavour, when out"
        )


def _unit(written: Written, node: Node | None, path: str) -> Unit | None:
    if not isinstance(node, MappingNode):
        text = written.words(node, path)
        return None if text is None or node is None else Unit(Constant(text, written.place(node)))
    keys = written.keys(node, path, ("column", "values", "default"), ("column",))
    if keys is None or (column := written.column(keys.get("column"), keys.at("column"))) is None:
        return None
    return Unit(
        column,
        texts(written, keys.get("values"), keys.at("values")),
        written.words(keys.get("default"), keys.at("default")),
    )


def texts(written: Written, node: Node | None, path: str) -> dict[str, str]:
    """A mapping from texts to texts."""
    found: dict[str, str] = {}
    for entry in written.entries(node, path, "a mapping is expected here, such as {from: to}"):
        if (text := written.words(entry.value, dotted(path, entry.name))) is not None:
            found[entry.name] = text
    return found


def _codes(written: Written, node: Node | None, path: str) -> dict[str, Code] | None:
    if node is None:
        return None
    found: dict[str, Code] = {}
    for entry in written.entries(node, path, "a mapping is expected here, from values to codes"):
        code = _code(written, entry.value, dotted(path, entry.name))
        if code is None:
            continue
        found[entry.name] = code
        if entry.name in ("true", "false") and not entry.key.style:
            found.setdefault(entry.name[0], code)  # the source prints booleans as t and f
    if isinstance(node, MappingNode) and not node.value:
        written.refuse(node, path, "no values: leave it out, or name them")
    return found


def _code(written: Written, node: Node, path: str) -> Code | None:
    if isinstance(node, ScalarNode) and not is_null(node):
        text = written.words(node, path)
        return None if text is None else Code(text, written.place(node))
    keys = written.keys(node, path, ("code", "label", "terminology"), ("code",))
    code = written.words(keys.get("code"), keys.at("code")) if keys else None
    if keys is None or code is None:
        return None
    label = written.words(keys.get("label"), keys.at("label"))
    terminology = written.words(keys.get("terminology"), keys.at("terminology"))
    return Code(code, written.place(node), label, terminology)


def _code_column(written: Written, node: Node | None, path: str) -> CodeColumn | None:
    if node is None:
        return None
    keys = written.keys(node, path, ("column", "array", "terminology"), ("terminology",))
    if keys is None:
        return None
    given = [name for name in ("column", "array") if keys.get(name) is not None]
    if len(given) != 1:
        written.refuse(node, path, "column or array is expected: the one, and not the other")
        return None
    column = written.column(keys.get(given[0]), keys.at(given[0]))
    terminology = written.words(keys.get("terminology"), keys.at("terminology"))
    return CodeColumn(column, terminology, given == ["array"]) if column and terminology else None


def _denominator(written: Written, keys: Keys) -> float | None:
    if keys.get("denominator") is None:
        return None
    return float(written.number(keys.get("denominator"), keys.at("denominator"), 100, 1, 1_000_000_000))


# Groups.


def read_groups(written: Written, node: Node | None, path: str) -> tuple[Group, ...]:
    """A mapping from the path of a node that repeats to what it repeats for."""
    what = "a mapping from paths to groups is expected here"
    read = (_group(written, entry, path) for entry in written.entries(node, path, what))
    return tuple(group for group in read if group is not None)


def _group(written: Written, entry: Entry, above: str) -> Group | None:
    flat = written.flat_path(entry, above)
    path = dotted(above, entry.name)
    keys = written.keys(entry.value, path, ("array", "rows", "fields"), ("fields",))
    if keys is None:
        return None
    if flat is not None and "|" in flat:
        written.refuse(entry.key, path, "a group's path has no |suffix")
    array, rows = keys.get("array"), keys.get("rows")
    if (array is None) == (rows is None):
        written.refuse(keys.node, path, "array or rows is expected: the one, and not the other")
        return None
    each: Column | Children | None
    if array is not None:
        each = written.column(array, keys.at("array"))
    else:
        each = _children(written, rows, keys.at("rows")) if rows is not None else None
    fields = read_fields(written, keys.get("fields"), keys.at("fields"))
    if each is None or flat is None or not fields:
        return None
    return Group(flat, written.place(entry.key), each, fields)


def _children(written: Written, node: Node, path: str) -> Children | None:
    keys = written.keys(node, path, ("table", "parent", "order"), ("table", "parent", "order"))
    if keys is None or (table := keys.get("table")) is None:
        return None
    name = written.words(table, keys.at("table"))
    parent = texts(written, keys.get("parent"), keys.at("parent"))
    order = tuple(
        column.name for column in written.columns(keys.get("order"), keys.at("order"), is_needed=True)
    )
    if name is None or not parent or not order:
        return None
    return Children(qualified(name), written.place(table), parent, order)


def qualified(table: str) -> str:
    """A table's name with its schema."""
    return table if "." in table else f"public.{table}"
