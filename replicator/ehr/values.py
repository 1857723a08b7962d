"""The parts of a leaf, as the FLAT format has them → the reference model's own JSON. No I/O.

{"magnitude": 120, "unit": "mm[Hg]"}  →  {"_type": "DV_QUANTITY", "magnitude": 120, "units": "mm[Hg]"}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from replicator.ehr.leaves import KINDS_OF_PROPORTION, Parts

Made: TypeAlias = dict[str, Any]

_MAPPING = re.compile(r"_mapping:(\d+)\|match")


def text(value: object) -> Made:
    return {"_type": "DV_TEXT", "value": value}


def code_phrase(code: object, terminology: object) -> Made:
    named = {"_type": "TERMINOLOGY_ID", "value": terminology}
    return {"_type": "CODE_PHRASE", "terminology_id": named, "code_string": code}


def coded(value: object, code: object, terminology: object) -> Made:
    return {"_type": "DV_CODED_TEXT", "value": value, "defining_code": code_phrase(code, terminology)}


def null_flavour(parts: Parts) -> Made | None:
    """Why there is no value, if that is what they say."""
    if "_null_flavour|code" not in parts:
        return None
    return coded(*(parts[f"_null_flavour|{name}"] for name in ("value", "code", "terminology")))


def value_of(rm_type: str, parts: Parts) -> Any:
    """The value of a leaf; ValueError if it cannot be written."""
    make = _MAKE.get(rm_type)
    if make is None:
        raise ValueError(f"a {rm_type} cannot be written")
    return make(parts)


def _text(parts: Parts) -> Made:
    made = text(parts[""])
    numbers = sorted(int(found[1]) for name in parts if (found := _MAPPING.fullmatch(name)))
    if numbers:
        made["mappings"] = [_mapping(parts, f"_mapping:{number}") for number in numbers]
    return made


def _mapping(parts: Parts, above: str) -> Made:
    target = code_phrase(parts[f"{above}/target|code"], parts[f"{above}/target|terminology"])
    return {"_type": "TERM_MAPPING", "match": parts[f"{above}|match"], "target": target}


def _coded(parts: Parts) -> Made:
    if "other" in parts:
        return text(parts["other"])
    return coded(parts["value"], parts["code"], parts["terminology"])


def _code(parts: Parts) -> Made:
    return code_phrase(parts["code"], parts["terminology"])


def _ordinal(rm_type: str) -> Callable[[Parts], Made]:
    return lambda parts: {
        "_type": rm_type,
        "value": parts["ordinal"],
        "symbol": coded(parts["value"], parts["code"], "local"),
    }


def _quantity(parts: Parts) -> Made:
    made = {"_type": "DV_QUANTITY", "magnitude": parts["magnitude"], "units": parts["unit"]}
    return made | ({"precision": parts["precision"]} if "precision" in parts else {})


def _proportion(parts: Parts) -> Made:
    denominator = parts["denominator"]
    kind = parts.get("type", KINDS_OF_PROPORTION.get(float(denominator), 0))
    given: Made = {name: parts[name] for name in ("numerator", "denominator", "precision") if name in parts}
    return {"_type": "DV_PROPORTION", **given, "type": kind}


def _identifier(parts: Parts) -> Made:
    names = ("id", "type", "issuer", "assigner")
    given = {name: parts[name] for name in names if name in parts}
    return {"_type": "DV_IDENTIFIER", **({"id": parts[""]} if "" in parts else {}), **given}


def _party(parts: Parts) -> Made:
    return {"_type": "PARTY_IDENTIFIED", "name": parts["name"]}


def _plain(rm_type: str, name: str = "value") -> Callable[[Parts], Made]:
    return lambda parts: {"_type": rm_type, name: parts[""]}


_MAKE: Mapping[str, Callable[[Parts], Any]] = {
    "DV_TEXT": _text,
    "DV_CODED_TEXT": _coded,
    "CODE_PHRASE": _code,
    "DV_ORDINAL": _ordinal("DV_ORDINAL"),
    "DV_SCALE": _ordinal("DV_SCALE"),
    "DV_QUANTITY": _quantity,
    "DV_PROPORTION": _proportion,
    "DV_IDENTIFIER": _identifier,
    "DV_COUNT": _plain("DV_COUNT", "magnitude"),
    "DV_PARSABLE": lambda parts: _plain("DV_PARSABLE")(parts) | {"formalism": parts.get("formalism", "")},
    "PARTY_PROXY": _party,
    "STRING": lambda parts: parts[""],
} | {
    name: _plain(name)
    for name in ("DV_BOOLEAN", "DV_DATE", "DV_DATE_TIME", "DV_TIME", "DV_DURATION", "DV_URI", "DV_EHR_URI")
}
