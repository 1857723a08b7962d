"""Whole rules files, as people write them → the plans beside them, told in a line for each part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.rules.expression import Call, Column, Found, Literal, Metadata, Request
from replicator.rules.model import (
    Brought,
    DataQuery,
    Each,
    Find,
    ForEach,
    Key,
    Lookup,
    Rules,
    Star,
    Term,
    Variant,
    When,
)
from replicator.rules.parse import load_rules

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.yaml"))


def told(rules: Rules) -> str:
    lookups = {lookup.id: lookup for lookup in rules.lookups}
    return "".join(f"{line}\n" for variant in rules.variants() for line in _variant(variant, lookups))


def _variant(variant: Variant, lookups: dict[str, Lookup]) -> Iterator[str]:
    yield f"{variant.name}[{', '.join(variant.parameters)}]"
    for query in variant.queries:
        yield f"  to [{_all(query.values)}] at priority {query.priority}"
        for step in query.steps:
            match step:
                case When(condition):
                    yield f"    when {_brief(condition.test)}"
                case ForEach(of):
                    yield f"    for each of {_brief(of)}"
                case Find(lookup, keys):
                    yield f"    find [{_all(keys)}] in {_lookup(lookups[lookup])}"
    for data in variant.data:
        yield from _data(data, lookups)


def _data(data: DataQuery, lookups: dict[str, Lookup]) -> Iterator[str]:
    columns = [
        "*" if isinstance(column, Star) else f"{column.name}: {_brief(column.value)}"
        for column in data.columns
    ]
    yield f"  of {data.table} as {data.output}: {', '.join(columns)}"
    for term in data.terms:
        yield from _term(term, lookups)


def _term(term: Term, lookups: dict[str, Lookup]) -> Iterator[str]:
    yield f"    in [{_all(term.values)}]"
    yield from (f"      if {_brief(predicate.test)}" for predicate in term.filters)
    for window in term.windows:
        word = "until" if window.is_until else "since"
        yield f"      {word} {_brief(window.moment)} + {window.seconds:.0f} s"
    for join in term.joins:
        yield f"      finding [{_brief(join.key)}] in {_lookup(lookups[join.lookup])}"
    yield from (f"      if {_brief(term.values[at])} is {_brief(other)}" for at, other in term.same)


def _lookup(lookup: Lookup) -> str:
    filters = "".join(f", if {_brief(predicate.test)}" for predicate in lookup.filters)
    windows = "".join(
        f", until {_brief(window.moment)} + {window.seconds:.0f} s" for window in lookup.windows
    )
    return f"{lookup.table}([{_all(lookup.keys)}] -> [{_all(lookup.values)}]{filters}{windows})"


def _all(values: tuple[Key | Brought, ...]) -> str:
    return ", ".join(map(_brief, values))


def _brief(value: Key | Brought) -> str:
    match value:
        case Each(of):
            return f"each {_brief(of)}"
        case Brought(join, at):
            return f"finding {join}.{at}"
        case Found(step, at):
            return f"step {step}.{at}"
        case Column(name) | Metadata(name):
            return name
        case Literal(written):
            return repr(written)
        case Request(what):
            return f"request {what}"
        case Call(name, args):
            return f"{name}({', '.join(map(_brief, args))})"
    raise AssertionError(value)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_file_comes_to_the_plan_beside_it(path: Path) -> None:
    rules = load_rules(path)
    assert told(rules) == path.with_suffix(".plan").read_text()
    assert rules.warnings == ()


def test_every_plan_has_its_file() -> None:
    folder = EXAMPLES[0].parent
    assert sorted(folder.glob("*.plan")) == [path.with_suffix(".plan") for path in EXAMPLES]
    assert len(EXAMPLES) > 12
