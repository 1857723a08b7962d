"""An operational template (OPT 1.4, XML) → what stands where in a canonical composition of it. No I/O.

A web template leaves out what its paths do not name: histories, trees, and what they are called. Whoever
writes a composition in canonical form has to write those, too, each with its type, its id and its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from replicator.errors import ReplicatorError

_NS = "{http://schemas.openehr.org/v1}"
_XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
#: `/items[at0004,'Systolic']`: an attribute, which of its nodes, and which of several of that id.
_STEP = re.compile(
    r"/(?P<attribute>\w+)"
    r"(?:\[(?P<id>[^\],' ]+)(?:(?: and name/value ?= ?|, ?)'(?P<name>(?:[^'\\]|\\.)*)')?[^\]]*\])?"
)


class NotATemplate(ReplicatorError):
    """What the server sent as an operational template is none."""


class Step(NamedTuple):
    """One step of a path within a composition."""

    attribute: str
    #: An archetype's, or a code within one; none where the attribute holds one thing that has no id.
    id: str = ""
    #: Which of those, where a template has several of one id.
    name: str = ""

    def __str__(self) -> str:
        return f"/{self.attribute}[{self.id}]" if self.id else f"/{self.attribute}"


class Part(NamedTuple):
    """What stands at the end of a path."""

    rm_type: str
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Shape:
    """All parts of one template, by their paths without names; several where names tell them apart."""

    parts: Mapping[str, tuple[Part, ...]]

    @property
    def root(self) -> Part:
        return self.parts[""][0]

    def part(self, path: str, name: str = "") -> Part | None:
        """What stands at a path; the one of this name, if one has it."""
        found = self.parts.get(path, ())
        return next((part for part in found if part.name == name), found[0] if found else None)


def steps_of(aql: str) -> tuple[Step, ...]:
    """The steps of a path as web templates write it."""
    return tuple(
        Step(
            match["attribute"],
            match["id"] or "",
            re.sub(r"\\(.)", r"\1", match["name"] or ""),
        )
        for match in _STEP.finditer(aql)
    )


def read_shape(content: object) -> Shape:
    """The shape of what a server answered as an operational template."""
    if not isinstance(content, str) or "<!DOCTYPE" in content:
        raise _wrong("it is not XML, or declares a DOCTYPE")
    try:
        definition = ElementTree.fromstring(content.encode()).find(f"{_NS}definition")
    except ElementTree.ParseError:
        raise _wrong("it is not XML") from None
    if definition is None:
        raise _wrong("it has no definition")
    parts: dict[str, tuple[Part, ...]] = {}
    for path, part in _parts(definition, "", {}):
        parts[path] = (*parts.get(path, ()), part)
    if "" not in parts or parts[""][0].rm_type != "COMPOSITION":
        raise _wrong("its root is no COMPOSITION")
    return Shape(parts)


def _wrong(what: str) -> NotATemplate:
    return NotATemplate(
        f"the server's operational template cannot be understood: {what}",
        "Is ehr.url the base of an openEHR REST API, and not of something in front of it?",
    )


def _parts(node: Element, path: str, terms: Mapping[str, str]) -> Iterator[tuple[str, Part]]:
    """A node's own part, and those below it; `terms` are what its archetype calls its codes."""
    archetype, code = _text(node, "archetype_id/value"), _text(node, "node_id")
    if archetype:
        terms = _terms(node)
    yield path, Part(_text(node, "rm_type_name"), archetype or code, _named(node) or terms.get(code, code))
    for attribute in node.findall(f"{_NS}attributes"):
        name = _text(attribute, "rm_attribute_name")
        for child in attribute.findall(f"{_NS}children"):
            if child.get(_XSI_TYPE) == "ARCHETYPE_SLOT" or name == "name":
                continue
            id = _text(child, "archetype_id/value") or _text(child, "node_id")
            yield from _parts(child, f"{path}{Step(name, id)}", terms)


def _named(node: Element) -> str:
    """The one name that a template gives a node instead of its archetype's."""
    for attribute in node.findall(f"{_NS}attributes"):
        if _text(attribute, "rm_attribute_name") == "name":
            names = [item.text for item in attribute.iter(f"{_NS}list") if item.text]
            return names[0].strip() if len(names) == 1 else ""
    return ""


def _terms(node: Element) -> dict[str, str]:
    found: dict[str, str] = {}
    for definition in node.findall(f"{_NS}term_definitions"):
        for item in definition.findall(f"{_NS}items"):
            if item.get("id") == "text" and item.text:
                found[definition.get("code", "")] = item.text.strip()
    return found


def _text(node: Element, path: str) -> str:
    found = node.find("/".join(_NS + name for name in path.split("/")))
    return found.text.strip() if found is not None and found.text else ""
