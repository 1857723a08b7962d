"""The text of a column → what stands at a leaf of a composition, by the leaf's type. No I/O.

A leaf's value has parts, each with a suffix: a quantity has `|magnitude` and `|unit`, a text has one part
without. ValueError names the rule that a value broke; it never repeats the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from replicator.ehr import prints
from replicator.ehr.model import Code, Column, Constant, Field, Row, Unit
from replicator.ehr.webtemplate import ANY, Input, Node, Option, Range

Json: TypeAlias = str | int | float | bool
Parts: TypeAlias = dict[str, Json]

#: Types of the record model → the suffixes their values have besides those of their inputs.
SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "DV_TEXT": ("",),
    "DV_CODED_TEXT": ("code", "value", "terminology", "other"),
    "DV_QUANTITY": ("magnitude", "unit", "precision"),
    "DV_PROPORTION": ("numerator", "denominator", "type", "precision"),
    "DV_ORDINAL": ("code", "value", "ordinal"),
    "DV_SCALE": ("code", "value", "ordinal"),
    "DV_COUNT": ("",),
    "DV_BOOLEAN": ("",),
    "DV_DATE": ("",),
    "DV_DATE_TIME": ("",),
    "DV_TIME": ("",),
    "DV_DURATION": ("",),
    "DV_IDENTIFIER": ("", "id", "type", "issuer", "assigner"),
    "DV_URI": ("",),
    "DV_EHR_URI": ("",),
    "DV_PARSABLE": ("", "formalism"),
    "CODE_PHRASE": ("code", "terminology"),
    "STRING": ("",),
    "PARTY_PROXY": ("name", "id", "id_scheme", "id_namespace"),
}
#: Denominators → the record model's number for that kind of proportion: unitary, percent.
KINDS_OF_PROPORTION = {1.0: 1, 100.0: 2}
CODED = frozenset({"DV_CODED_TEXT", "DV_ORDINAL", "DV_SCALE", "CODE_PHRASE"})


@dataclass(frozen=True, slots=True)
class Slot:
    """A field, and the leaf it fills."""

    field: Field
    node: Node
    #: With indices; `:#` is the number of the element, in a group.
    path: str
    suffix: str = ""
    #: The entry (an observation, an instruction, …) it is part of; empty outside of one.
    entry: str = ""

    @property
    def column(self) -> str:
        """What a refusal names."""
        source = self.field.source
        return source.name if isinstance(source, Column) else type(source).__name__.lower()


def parts(slot: Slot, text: str, row: Row, zone: int) -> Parts:
    """What stands at the slot's leaf for a value that is not missing."""
    if slot.suffix:
        return _one_part(slot, text)
    make = _MAKE.get(slot.node.rm_type)
    if make is None:
        raise ValueError(f"a {slot.node.rm_type} cannot be written")
    return make(slot, text, row, zone)


def _one_part(slot: Slot, text: str) -> Parts:
    part = slot.node.input(slot.suffix)
    translated = _translated(slot.field, text)
    match part.type if part else "":
        case "DECIMAL":
            found = prints.number(translated)
            _within(part.range if part else ANY, found)
            return {slot.suffix: found}
        case "INTEGER":
            return {slot.suffix: prints.whole(translated)}
    if part is not None and part.options and not part.is_open:
        _option(part.options, translated)
    return {slot.suffix: translated}


def _code_of(field: Field, text: str) -> Code | None:
    if field.values is None:
        return None
    if (code := field.values.get(text)) is None:
        raise ValueError("not one of the values of the mapping")
    return code


def _translated(field: Field, text: str) -> str:
    code = _code_of(field, text)
    return text if code is None else code.code


def _option(options: tuple[Option, ...], value: str) -> Option:
    for option in options:
        if option.value == value:
            return option
    raise ValueError("not one of the codes of the template")


def _within(limits: Range, found: float) -> None:
    if not limits.holds(found):
        raise ValueError("outside the template's range")


def _listed(slot: Slot, value: str) -> None:
    """Refuse what is not in the template's list, if it has one and it is closed."""
    part = slot.node.input("")
    if part is not None and part.options and not part.is_open:
        _option(part.options, value)


# Text and codes.


def _text(slot: Slot, text: str, row: Row, zone: int) -> Parts:
    code = _code_of(slot.field, text)
    _listed(slot, (code.label or code.code) if code else text)
    if code is None:
        found: Parts = {"": text}
        for number, beside in enumerate(_codes_beside(slot.field, row)):
            found |= _mapped(beside, slot.field.code.terminology if slot.field.code else "", number)
        return found
    # What is mapped to a code, at a leaf without any, is its label and a reference to the code.
    terminology = code.terminology or slot.field.terminology
    if terminology is None:
        return {"": code.label or code.code}
    return {"": code.label or code.code} | _mapped(code.code, terminology, 0)


def _mapped(code: str, terminology: str, number: int) -> Parts:
    return {
        f"/_mapping:{number}|match": "=",
        f"/_mapping:{number}/target|code": code,
        f"/_mapping:{number}/target|terminology": terminology,
    }


def _codes_beside(field: Field, row: Row) -> list[str]:
    """The codes that a text refers to, from a column of their own."""
    if field.code is None or not (text := (row.get(field.code.column.name) or "").strip()):
        return []
    found = prints.elements(text) if field.code.is_array else [text]
    return [code for code in found if code and code.strip()]


def _coded(slot: Slot, text: str, row: Row, zone: int) -> Parts:
    field, part = slot.field, slot.node.input("code") or Input("code", "TEXT")
    if field.code is not None:
        return _coded_beside(field, part, text, row)
    code = _code_of(field, text)
    value = code.code if code else text
    terminology = (code.terminology if code else None) or field.terminology
    label = code.label if code else None
    if terminology in (None, part.terminology) and part.options and not part.is_open:
        label = label or _option(part.options, value).label
    elif label is None:
        label = next((option.label for option in part.options if option.value == value), value)
    return {"code": value, "value": label, "terminology": terminology or part.terminology or "local"}


def _coded_beside(field: Field, part: Input, text: str, row: Row) -> Parts:
    assert field.code is not None
    code = next(iter(_codes_beside(field, row)), None)
    if code is None and part.is_open:
        return {"other": text}
    if code is None:
        raise ValueError(f"no code in {field.code.column.name}, and the template takes no plain text")
    if part.options and not part.is_open:
        _option(part.options, code)
    return {"code": code, "value": text, "terminology": field.code.terminology}


def _ordinal(slot: Slot, text: str, row: Row, zone: int) -> Parts:
    value = _translated(slot.field, text).strip()
    for part in slot.node.inputs:
        for option in part.options:
            if option.ordinal is not None and value in (option.value, str(option.ordinal)):
                return {"code": option.value, "value": option.label, "ordinal": option.ordinal}
    raise ValueError("not one of the codes of the template")


def _code_phrase(slot: Slot, text: str, row: Row, zone: int) -> Parts:
    found = _coded(slot, text, row, zone)
    return {suffix: found[suffix] for suffix in ("code", "terminology") if suffix in found}


# Numbers.


def _quantity(slot: Slot, text: str, row: Row, zone: int) -> Parts:
    magnitude = prints.number(_translated(slot.field, text))
    unit = _unit(slot.field.unit, row)
    if (part := slot.node.input("magnitude")) is not None:
        _within(part.range, magnitude)
    if (part := slot.node.input("unit")) is not None and part.options:
        found = next((option for option in part.options if option.value == unit), None)
        if found is None and not part.is_open:
            raise ValueError("not one of the units of the template")
        _within(found.range if found else ANY, magnitude)
    return {"magnitude": magnitude, "unit": unit}


def _unit(unit: Unit | None, row: Row) -> str:
    if unit is None:
        raise ValueError("no unit in the mapping")
    if isinstance(unit.source, Constant):
        return unit.source.text
    written = (row.get(unit.source.name) or "").strip()
    if not written:
        if unit.default is None:
            raise ValueError(f"no unit in {unit.source.name}")
        return unit.default
    if unit.values and written not in unit.values:
        raise ValueError("a unit that the mapping does not name")
    return unit.values.get(written, written)


def _proportion(slot: Slot, text: str, row: Row, zone: int) -> Parts:
    numerator = prints.number(_translated(slot.field, text))
    if (part := slot.node.input("numerator")) is not None:
        _within(part.range, numerator)
    if (fixed := fixed_denominator(slot.node)) is not None:
        return {"numerator": numerator, "denominator": fixed}
    if (denominator := slot.field.denominator) is None:
        raise ValueError("no denominator in the mapping")
    # Where the template leaves the kind open, it has to be said: a ratio, if it is no other.
    kind = KINDS_OF_PROPORTION.get(denominator, 0)
    return {"numerator": numerator, "denominator": denominator, "type": kind}


def fixed_denominator(node: Node) -> float | None:
    """The denominator, if the template leaves no choice."""
    part = node.input("denominator")
    return part.range.low if part and part.range.low and part.range.low == part.range.high else None


def _count(slot: Slot, text: str, row: Row, zone: int) -> Parts:
    found = prints.whole(_translated(slot.field, text))
    if (part := slot.node.input("")) is not None:
        _within(part.range, found)
    return {"": found}


def _boolean(slot: Slot, text: str, row: Row, zone: int) -> Parts:
    found = prints.boolean(_translated(slot.field, text))
    _listed(slot, str(found).lower())
    return {"": found}


# What has one part, read in one way.

_Read: TypeAlias = Callable[[str, int], Json]


def _simple(read: _Read) -> Callable[[Slot, str, Row, int], Parts]:
    return lambda slot, text, row, zone: {"": read(_translated(slot.field, text), zone)}


_PLAIN = _simple(lambda text, zone: text)
_MAKE: Mapping[str, Callable[[Slot, str, Row, int], Parts]] = {
    "DV_TEXT": _text,
    "DV_CODED_TEXT": _coded,
    "CODE_PHRASE": _code_phrase,
    "DV_ORDINAL": _ordinal,
    "DV_SCALE": _ordinal,
    "DV_QUANTITY": _quantity,
    "DV_PROPORTION": _proportion,
    "DV_COUNT": _count,
    "DV_BOOLEAN": _boolean,
    "DV_DATE": _simple(prints.day),
    "DV_DATE_TIME": _simple(prints.date_time),
    "DV_TIME": _simple(lambda text, zone: prints.clock(text)),
    "DV_DURATION": _simple(lambda text, zone: prints.duration(text)),
    "DV_IDENTIFIER": lambda slot, text, row, zone: {"id": _translated(slot.field, text)},
    "DV_URI": _PLAIN,
    "DV_EHR_URI": _PLAIN,
    "DV_PARSABLE": _PLAIN,
    "STRING": _PLAIN,
    "PARTY_PROXY": lambda slot, text, row, zone: {"name": _translated(slot.field, text)},
}
WRITABLE = frozenset(_MAKE)
