"""A field × the leaf it fills → what of it cannot be meant, and where. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from replicator.ehr.leaves import CODED, SUFFIXES, WRITABLE, Slot, fixed_denominator, parts
from replicator.ehr.model import Code, Constant, Place
from replicator.ehr.webtemplate import Input
from replicator.text.nodes import nearest

Misfits: TypeAlias = Iterator[tuple[Place, str]]


def misfits(slot: Slot) -> Misfits:
    """What is wrong with a field at this leaf."""
    node, field = slot.node, slot.field
    if slot.suffix:
        yield from _suffix(slot)
    elif node.rm_type not in WRITABLE:
        yield field.at, f"a {node.rm_type} cannot be written as a whole: give one of its parts with |suffix"
        return
    if slot.suffix and (field.unit or field.code or field.terminology or field.denominator):
        yield field.at, "a single part (|suffix) takes no unit, code, terminology or denominator"
        return
    found = list(_type(slot))
    yield from found
    if isinstance(field.source, Constant) and not found:
        yield from _constant(slot)


def _suffix(slot: Slot) -> Misfits:
    known = {part.suffix for part in slot.node.inputs} | set(SUFFIXES.get(slot.node.rm_type, ()))
    if slot.suffix not in known:
        names = sorted(known - {""})
        yield (
            slot.field.at,
            f"|{slot.suffix} is no part of a {slot.node.rm_type}{nearest(slot.suffix, names)}",
        )


def _type(slot: Slot) -> Misfits:
    node, field = slot.node, slot.field
    is_quantity = node.rm_type == "DV_QUANTITY" and not slot.suffix
    if field.unit and not is_quantity:
        yield field.at, f"a {node.rm_type} has no unit"
    if is_quantity:
        yield from _quantity(slot)
    if field.denominator and node.rm_type != "DV_PROPORTION":
        yield field.at, f"a {node.rm_type} has no denominator"
    if node.rm_type == "DV_PROPORTION" and not slot.suffix:
        yield from _proportion(slot)
    if field.code and node.rm_type not in ("DV_TEXT", "DV_CODED_TEXT"):
        yield field.at, f"a {node.rm_type} has no code beside its text"
    if field.code and field.code.is_array and node.rm_type != "DV_TEXT":
        yield field.code.column.at, "a coded text has one code: column is expected, and not array"
    if field.code and field.values is not None:
        yield field.at, "values and code are given together: leave one out"
    if field.terminology and node.rm_type not in CODED | {"DV_TEXT"}:
        yield field.at, f"a {node.rm_type} has no terminology"
    if node.rm_type in CODED:
        yield from _coded(slot)


def _quantity(slot: Slot) -> Misfits:
    field, part = slot.field, slot.node.input("unit")
    allowed = [option.value for option in part.options] if part and not part.is_open else []
    if field.unit is None:
        yield field.at, f"a unit is missing{_one_of(allowed)}"
        return
    unit = field.unit
    written = [unit.source.text] if isinstance(unit.source, Constant) else [*unit.values.values()]
    written += [unit.default] if unit.default else []
    for name in written:
        if allowed and name not in allowed:
            yield unit.source.at, f"the template does not know this unit{_one_of(allowed)}"


def _proportion(slot: Slot) -> Misfits:
    fixed, field = fixed_denominator(slot.node), slot.field
    if fixed is None and field.denominator is None:
        yield field.at, "a denominator is missing, such as 100 for a percentage"
    if fixed is not None and field.denominator not in (None, fixed):
        yield field.at, f"the template's denominator is {fixed:g}"


def _coded(slot: Slot) -> Misfits:
    field = slot.field
    part = slot.node.input(slot.suffix or "code") or slot.node.input("") or Input("code", "TEXT")
    ordinals = {str(option.ordinal) for option in part.options if option.ordinal is not None}
    known = {option.value for option in part.options} | ordinals
    for code in (field.values or {}).values():
        yield from _code(code, part, known, field.terminology)
    if (
        field.values is None
        and field.code is None
        and not known
        and not field.terminology
        and not slot.suffix
    ):
        yield (
            field.at,
            "the template lists no codes: give values, or a terminology, or a code beside the text",
        )


def _code(code: Code, part: Input, known: set[str], terminology: str | None) -> Misfits:
    told = code.terminology or terminology
    is_closed = bool(known) and not part.is_open
    if is_closed and told not in (None, part.terminology):
        yield code.at, f"the template takes codes of {part.terminology or 'local'} only"
    elif is_closed and code.code not in known:
        yield code.at, f"the template does not know this code{_one_of(sorted(known))}"
    elif not known and told is None and not part.terminology:
        yield code.at, "a terminology is missing"
    elif code.code not in known and code.label is None:
        yield code.at, "a label is missing: the template has none for this code"


def _one_of(names: list[str]) -> str:
    return f": it takes {', '.join(names[:12])}{', …' if len(names) > 12 else ''}" if names else ""


def _constant(slot: Slot) -> Misfits:
    """A constant is composed once, here: it would break its rule in every row."""
    source = slot.field.source
    assert isinstance(source, Constant)
    if slot.field.unit and not isinstance(slot.field.unit.source, Constant):
        return
    try:
        parts(slot, source.text, {}, 0)
    except ValueError as error:
        yield source.at, str(error)
