"""A row × the Plan of its table → a composition in the FLAT format, or a refusal. No I/O.

The same row, change and plan give the same composition, byte for byte: nothing here asks a clock, and nothing
is drawn. A value that is missing is left out; an entry with nothing but constants is left out with them,
for a blood pressure of which only the cuff is known is none.

    pressure/sitting/blood_pressure/systolic|magnitude: 120
    pressure/sitting/blood_pressure/systolic|unit:      mm[Hg]
    pressure/_uid:                                       f8c3…::clinic.record::1
    pressure/_feeder_audit/originating_system_audit|version_id: 16/B374D848:3
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from replicator.ehr import prints
from replicator.ehr.bind import GroupPlan, Plan
from replicator.ehr.demands import demands
from replicator.ehr.fields import ELEMENT
from replicator.ehr.identity import ChangeId
from replicator.ehr.leaves import Json, Parts, Slot, parts
from replicator.ehr.model import Children, Column, Constant, Ctx, Expression, Formula, Row, TableMapping
from replicator.ehr.parts import SETTINGS
from replicator.errors import ReplicatorError

Flat: TypeAlias = dict[str, Json]

#: openEHR's codes for what a composition is, if the template does not say: an event.
EVENT = ("433", "event")
LABEL_OF_SETTING = {code: name for name, code in SETTINGS.items()}


class NotComposed(ReplicatorError):
    """A row that cannot become a composition. It names the column, the path and the rule, never the value."""

    def __init__(self, table: str, column: str, path: str, rule: str) -> None:
        where = f"{table}.{column}" if column else table
        super().__init__(
            f"{where} → {path}: {rule}" if path else f"{where}: {rule}",
            "Correct the row in the source, or the mapping; then retry the job.",
        )
        self.table, self.column, self.path, self.rule = table, column, path, rule


class Stamp(NamedTuple):
    """Where a composition comes from, and what it is to be called."""

    #: The key of the row, as text.
    key: str
    change: ChangeId
    #: `uuid::system::version`; None leaves the name to the server, as an update does.
    uid: str | None = None


class Filled(NamedTuple):
    """A slot and what it came to."""

    slot: Slot
    #: With the number of its element instead of `#`.
    path: str
    entry: str
    parts: Parts
    #: Whether it is there whatever the row holds.
    is_constant: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """Everything a composition is made from."""

    row: Row
    #: Rows of other tables that belong to it, by table and in order.
    children: Mapping[str, Sequence[Row]]
    #: Compiled expressions, by their text.
    formulas: Mapping[str, Formula]


def compose(
    plan: Plan,
    row: Row,
    stamp: Stamp,
    *,
    children: Mapping[str, Sequence[Row]] | None = None,
    formulas: Mapping[str, Formula] | None = None,
    is_gone: bool = False,
) -> Flat:
    """The composition of a row; NotComposed if it breaks a rule, and nothing else."""
    rows = Rows(row, children or {}, formulas or {})
    filled = list(_filled(plan, rows, is_gone))
    content = _with_content(plan, filled)
    flat = _head(plan, row, stamp)
    time = _time(plan, row)
    for each in content:
        flat |= {_key(each.path, suffix): value for suffix, value in each.parts.items()}
    needed = demands(plan.template, [each.path for each in content])
    if needed.missing:
        raise _not(
            plan, _column_for(plan, needed.missing[0]), needed.missing[0], "the template demands a value"
        )
    for path, node in needed.supplied:
        flat |= _supplied(plan, path, node.id, time)
    return flat


def _key(path: str, suffix: str) -> str:
    if not suffix or suffix.startswith("/"):
        return f"{path}{suffix}"
    return f"{path}|{suffix}"


def _not(plan: Plan, column: str, path: str, rule: str) -> NotComposed:
    return NotComposed(plan.table.table, column, path, rule)


def _column_for(plan: Plan, path: str) -> str:
    """The column that would have filled a path."""
    return next((slot.column for slot in plan.slots if slot.path == path), "")


# Values.


def _filled(plan: Plan, rows: Rows, is_gone: bool) -> Iterator[Filled]:
    slots = {(slot.path, slot.suffix, slot.field.when): slot for slot in plan.slots}
    if is_gone:
        slots |= {(slot.path, slot.suffix, slot.field.when): slot for slot in plan.marked}
    for slot in slots.values():
        yield from _fill(plan, slot, rows.row, rows.formulas, 0)
    for group in plan.groups:
        for number, element in enumerate(_elements(plan, group, rows)):
            for slot in group.slots:
                yield from _fill(plan, slot, element, rows.formulas, number)


def _elements(plan: Plan, group: GroupPlan, rows: Rows) -> list[Row]:
    each = group.group.each
    if isinstance(each, Children):
        return list(rows.children.get(each.table, ()))
    text = rows.row.get(each.name)
    if text is None:
        return []
    try:
        found = prints.elements(text)
    except ValueError as error:
        raise _not(plan, each.name, group.group.path, str(error)) from None
    return [{**rows.row, ELEMENT: element} for element in found if (element or "").strip()]


def _fill(plan: Plan, slot: Slot, row: Row, formulas: Mapping[str, Formula], number: int) -> Iterator[Filled]:
    path, entry = slot.path.replace(":#", f":{number}"), slot.entry.replace(":#", f":{number}")
    text = _text(plan, slot, row, formulas, path)
    field = slot.field
    is_constant = isinstance(field.source, Constant)
    if text is not None and field.when is not None and prints.is_number(text) != (field.when == "number"):
        return
    if text is None and field.required:
        raise _not(plan, slot.column, path, "required, and missing")
    if text is None and field.null_flavour is not None:
        flavour: Parts = {
            "/_null_flavour|code": field.null_flavour.value,
            "/_null_flavour|value": field.null_flavour.label,
            "/_null_flavour|terminology": "openehr",
        }
        yield Filled(slot, path, entry, flavour, True)
    elif text is not None:
        try:
            yield Filled(slot, path, entry, parts(slot, text, row, plan.mapping.zone), is_constant)
        except ValueError as error:
            raise _not(plan, slot.column, path, str(error)) from None


def _text(plan: Plan, slot: Slot, row: Row, formulas: Mapping[str, Formula], path: str) -> str | None:
    """The value's text; None for NULL and for mere blanks, which the record does not take."""
    match slot.field.source:
        case Constant(text):
            found: str | None = text
        case Column(name):
            if name not in row:
                raise _not(plan, name, path, "the row has no such column")
            found = row[name]
        case Expression(text):
            found = _computed(plan, text, row, formulas, path)
    return found if found is not None and found.strip() else None


def _computed(plan: Plan, text: str, row: Row, formulas: Mapping[str, Formula], path: str) -> str | None:
    if (formula := formulas.get(text)) is None:
        raise _not(plan, "expression", path, "nobody compiled it")
    try:
        return formula(row)
    except Exception:
        # Whatever it is, it may hold the row's values; and one row must not stop the others.
        raise _not(plan, "expression", path, "it cannot be computed for this row") from None


def _with_content(plan: Plan, filled: Sequence[Filled]) -> list[Filled]:
    """What stands in an entry of which the row says something, and what stands in no entry."""
    live = {each.entry for each in filled if not each.is_constant}
    if not live - {""}:
        raise _not(plan, "", "", "nothing of this row would be in the record: every mapped column is empty")
    return [each for each in filled if not each.entry or each.entry in live]


# What is said of a composition as a whole.


def _ctx(plan: Plan) -> Ctx:
    ctx = plan.table.ctx
    assert ctx is not None, "a table with a template has a ctx"
    return ctx


def _time(plan: Plan, row: Row) -> str:
    names, path = [column.name for column in _ctx(plan).time], f"{plan.template.root}/context/start_time"
    column = next((name for name in names if row.get(name)), names[-1])
    if not (text := row.get(column)):
        raise _not(plan, column, path, "required, and missing")
    try:
        return prints.date_time(text, plan.mapping.zone)
    except ValueError as error:
        raise _not(plan, column, path, str(error)) from None


def _head(plan: Plan, row: Row, stamp: Stamp) -> Flat:
    root, ctx = plan.template.root, _ctx(plan)
    flat: Flat = {f"{root}/_uid": stamp.uid} if stamp.uid is not None else {}
    flat |= {f"{root}/category|{suffix}": value for suffix, value in _category(plan).items()}
    flat |= {
        f"{root}/language|code": ctx.language,
        f"{root}/language|terminology": "ISO_639-1",
        f"{root}/territory|code": ctx.territory,
        f"{root}/territory|terminology": "ISO_3166-1",
        f"{root}/composer|name": _composer(plan, ctx, row),
    }
    if f"{root}/context" in plan.template.nodes:
        flat |= {
            f"{root}/context/start_time": _time(plan, row),
            f"{root}/context/setting|code": ctx.setting,
            f"{root}/context/setting|value": LABEL_OF_SETTING[ctx.setting],
            f"{root}/context/setting|terminology": "openehr",
        }
        if ctx.facility is not None and (facility := _said(ctx.facility, row)):
            flat[f"{root}/context/_health_care_facility|name"] = facility
    return flat | _audit(plan, stamp)


def _category(plan: Plan) -> Parts:
    node = plan.template.node(f"{plan.template.root}/category")
    part = node.input("code") if node is not None else None
    code, label = (part.options[0].value, part.options[0].label) if part and part.options else EVENT
    return {"code": code, "value": label, "terminology": "openehr"}


def _composer(plan: Plan, ctx: Ctx, row: Row) -> str:
    if (name := _said(ctx.composer, row) or ctx.composer_default) is None:
        column = ctx.composer.name if isinstance(ctx.composer, Column) else ""
        raise _not(plan, column, f"{plan.template.root}/composer", "required, and missing")
    return name


def _said(source: Column | Constant, row: Row) -> str | None:
    text = source.text if isinstance(source, Constant) else row.get(source.name)
    return text if text and text.strip() else None


def _audit(plan: Plan, stamp: Stamp) -> Flat:
    """By this a composition says which row and which change it is, also if our own memory is lost."""
    above, system = f"{plan.template.root}/_feeder_audit", plan.mapping.system
    return {
        f"{above}/originating_system_audit|system_id": system,
        f"{above}/originating_system_audit|version_id": str(stamp.change),
        f"{above}/originating_system_item_id:0|id": stamp.key,
        f"{above}/originating_system_item_id:0|type": plan.table.table,
        f"{above}/originating_system_item_id:0|issuer": system,
        f"{above}/originating_system_item_id:0|assigner": system,
    }


def _supplied(plan: Plan, path: str, name: str, time: str) -> Flat:
    match name:
        case "language":
            return {f"{path}|code": _ctx(plan).language, f"{path}|terminology": "ISO_639-1"}
        case "encoding":
            return {f"{path}|code": "UTF-8", f"{path}|terminology": "IANA_character-sets"}
        case "time" | "origin":
            return {path: time}
    return {}  # the subject of an entry is the EHR's own, and the rest stands in the head


# Who an EHR is about.


class Flags(NamedTuple):
    """What an EHR's status says besides whom it is about."""

    is_modifiable: bool
    is_queryable: bool


def status_flags(table: TableMapping, row: Row) -> Flags:
    """The flags of a row that is a patient; nothing else of it goes into the record."""
    status = table.status
    columns = (status.modifiable, status.queryable) if status is not None else (None, None)
    return Flags(*(column is None or row.get(column.name) != "f" for column in columns))
