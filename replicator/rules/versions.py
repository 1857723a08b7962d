"""Rules × what the set before them came to → the version of each name, and rules with these names. No I/O.

A set of rules is deployed beside another one, which goes on meanwhile. So that both can be kept at once,
every bucket and every lookup has a version in its name, `3#user_data["u1"]`: the number of the deploy that
last changed what it holds. A name that is new begins empty, and is never used again for something else; a
definition that means what it meant keeps its name, and its clients what they have of it.

A lookup that brings rows into buckets goes by the version of the definition it does so for: together with
its entries the rows are kept that look something up in it, which are those of that definition. One that only
says which buckets a request leads to is shared by whoever asks the same, as long as anybody does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from replicator.rules.digest import basis_of, digest_of
from replicator.rules.model import (
    DataQuery,
    Definition,
    Find,
    Lookup,
    ParameterQuery,
    Rules,
    Variant,
)


@dataclass(frozen=True, slots=True)
class Named:
    """One definition of a set: since which deploy it means what it does."""

    version: int
    digest: str
    #: What its buckets' names begin with, without the version.
    variants: tuple[str, ...]
    #: The lookups that bring rows into them.
    lookups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Versions:
    """The version of every name of one set of rules."""

    #: Lookups of sets with another basis have nothing in common.
    basis: str
    definitions: dict[str, Named]
    #: Of the lookups that say which buckets a request leads to.
    lookups: dict[str, int]

    def buckets(self) -> set[str]:
        """What the names of its buckets begin with, up to the bracket."""
        return {
            versioned_name(one.version, variant)
            for one in self.definitions.values()
            for variant in one.variants
        }

    def maintained(self) -> set[str]:
        """The names of its lookups."""
        return {versioned_name(version, lookup) for version, lookup in self._lookups()}

    def _lookups(self) -> Iterator[tuple[int, str]]:
        for one in self.definitions.values():
            for lookup in one.lookups:
                yield one.version, lookup
        for lookup, version in self.lookups.items():
            yield version, lookup

    def find(self, lookup: str) -> int | None:
        """The version in which this lookup is kept already."""
        return max((version for version, one in self._lookups() if one == lookup), default=None)

    def as_json(self) -> dict[str, Any]:
        return {
            "basis": self.basis,
            "definitions": {
                name: {
                    "version": one.version,
                    "digest": one.digest,
                    "variants": one.variants,
                    "lookups": one.lookups,
                }
                for name, one in self.definitions.items()
            },
            "lookups": self.lookups,
        }

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Versions:
        definitions = {
            name: Named(one["version"], one["digest"], tuple(one["variants"]), tuple(one["lookups"]))
            for name, one in said["definitions"].items()
        }
        return cls(said["basis"], definitions, dict(said["lookups"]))


def versioned_name(version: int, name: str) -> str:
    return f"{version}#{name}"


def versions_of(rules: Rules, number: int, before: Versions | None) -> Versions:
    """The versions of a set that is the deploy of this number, after the set in force."""
    basis = basis_of(rules.dialect)
    kept = before.definitions if before is not None else {}
    definitions: dict[str, Named] = {}
    for definition in rules.definitions:
        digest, known = digest_of(definition, rules.dialect), kept.get(definition.name)
        version = known.version if known is not None and known.digest == digest else number
        variants = tuple(sorted(variant.name for variant in definition.variants))
        definitions[definition.name] = Named(version, digest, variants, tuple(sorted(_joined(definition))))
    known_lookups = before if before is not None and before.basis == basis else None
    found: dict[str, int] = {}
    for lookup in sorted(_found(rules)):
        version_kept = known_lookups.find(lookup) if known_lookups is not None else None
        found[lookup] = number if version_kept is None else version_kept
    return Versions(basis, definitions, found)


def versioned(rules: Rules, versions: Versions) -> Rules:
    """The rules with every name in its version."""
    by_id = {lookup.id: lookup for lookup in rules.lookups}
    lookups: dict[str, Lookup] = {}
    for version, lookup in versions._lookups():
        name = versioned_name(version, lookup)
        lookups[name] = replace(by_id[lookup], id=name)
    definitions = tuple(_versioned(one, versions) for one in rules.definitions)
    return replace(rules, definitions=definitions, lookups=tuple(lookups.values()))


def only_new(rules: Rules, versions: Versions, number: int) -> Rules:
    """What of these rules, already in their versions, the deploy of this number has brought."""
    definitions = [one for one in rules.definitions if versions.definitions[one.name].version == number]
    mine = versioned_name(number, "")
    lookups = [lookup for lookup in rules.lookups if lookup.id.startswith(mine)]
    return replace(rules, definitions=tuple(definitions), lookups=tuple(lookups), writes=())


def _joined(definition: Definition) -> set[str]:
    return {
        join.lookup
        for variant in definition.variants
        for query in variant.data
        for term in query.terms
        for join in term.joins
    }


def _found(rules: Rules) -> set[str]:
    return {
        step.lookup
        for variant in rules.variants()
        for query in variant.queries
        for step in query.steps
        if isinstance(step, Find)
    }


def _versioned(definition: Definition, versions: Versions) -> Definition:
    version = versions.definitions[definition.name].version

    def data(query: DataQuery) -> DataQuery:
        terms = [
            replace(
                term,
                joins=tuple(replace(j, lookup=versioned_name(version, j.lookup)) for j in term.joins),
            )
            for term in query.terms
        ]
        return replace(query, terms=tuple(terms))

    def asked(query: ParameterQuery) -> ParameterQuery:
        steps = [
            replace(step, lookup=versioned_name(versions.lookups[step.lookup], step.lookup))
            if isinstance(step, Find)
            else step
            for step in query.steps
        ]
        return replace(query, steps=tuple(steps))

    def variant(one: Variant) -> Variant:
        return replace(
            one,
            name=versioned_name(version, one.name),
            queries=tuple(map(asked, one.queries)),
            data=tuple(map(data, one.data)),
        )

    return replace(definition, variants=tuple(map(variant, definition.variants)))
