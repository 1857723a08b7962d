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
from typing import NamedTuple

from replicator.ehr import prints
from replicator.ehr.about import Flat, NotComposed, Stamp, head, refusal, supplied, time
from replicator.ehr.bind import GroupPlan, Plan
from replicator.ehr.fields import ELEMENT
from replicator.ehr.leaves import Parts, Slot, parts
from replicator.ehr.model import Children, Column, Constant, Expression, Formula, Row

__all__ = ["Flat", "NotComposed", "Stamp", "compose"]


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
    #: Compiled expressions, by their ids.
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
    began = time(plan, row)
    flat = head(plan, row, stamp, began)
    for each in content:
        flat |= {_key(each.path, suffix): value for suffix, value in each.parts.items()}
    needed = plan.demanded.beside(tuple(each.path for each in content))
    if needed.missing:
        raise refusal(
            plan, _column_for(plan, needed.missing[0]), needed.missing[0], "the template demands a value"
        )
    for path, node in needed.supplied:
        flat |= supplied(plan, path, node.id, began)
    return flat


def _key(path: str, suffix: str) -> str:
    if not suffix or suffix.startswith("/"):
        return f"{path}{suffix}"
    return f"{path}|{suffix}"


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
        raise refusal(plan, each.name, group.group.path, str(error)) from None
    return [{**rows.row, ELEMENT: element} for element in found if (element or "").strip()]


def _fill(plan: Plan, slot: Slot, row: Row, formulas: Mapping[str, Formula], number: int) -> Iterator[Filled]:
    path, entry = slot.path.replace(":#", f":{number}"), slot.entry.replace(":#", f":{number}")
    text = _text(plan, slot, row, formulas, path)
    field = slot.field
    is_constant = isinstance(field.source, Constant)
    if text is not None and field.when is not None and prints.is_number(text) != (field.when == "number"):
        return
    if text is None and field.required:
        raise refusal(plan, slot.column, path, "required, and missing")
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
            raise refusal(plan, slot.column, path, str(error)) from None


def _text(plan: Plan, slot: Slot, row: Row, formulas: Mapping[str, Formula], path: str) -> str | None:
    """The value's text; None for NULL and for mere blanks, which the record does not take."""
    match slot.field.source:
        case Constant(text):
            found: str | None = text
        case Column(name):
            if name not in row:
                raise refusal(plan, name, path, "the row has no such column")
            found = row[name]
        case Expression() as expression:
            found = _computed(plan, expression, row, formulas, path)
    return found if found is not None and found.strip() else None


def _computed(
    plan: Plan, expression: Expression, row: Row, formulas: Mapping[str, Formula], path: str
) -> str | None:
    if (formula := formulas.get(expression.id)) is None:
        raise refusal(plan, "expression", path, "nobody compiled it")
    try:
        return formula(row)
    except Exception:
        # Whatever it is, it may hold the row's values; and one row must not stop the others.
        raise refusal(plan, "expression", path, "it cannot be computed for this row") from None


def _with_content(plan: Plan, filled: Sequence[Filled]) -> list[Filled]:
    """What stands in an entry of which the row says something, and what stands in no entry."""
    live = {each.entry for each in filled if not each.is_constant}
    if not live - {""}:
        raise refusal(plan, "", "", "nothing would be in the record: every mapped column is empty")
    return [each for each in filled if not each.entry or each.entry in live]
