"""Rules × a table's name → a short text that is another one when rows of the table belong elsewhere. No I/O.

What is stored was made by the rules of its time. Where this text is not the one that was kept with it, the
table is copied again. How the rules are written, and what they say of other tables or of who asks, is not in
it.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from hashlib import sha256

from replicator.rules.model import Rules

#: To be raised when a release makes something else of the same rules.
_MEANING = 2


def digest_of(rules: Rules, namespace: str, name: str) -> str:
    """What the rules make of the rows of one table: where they are put, as what, and what they lead to."""
    # Between variants order means nothing: their buckets have different names.
    queries = [
        (variant.name, variant.as_text or (False,) * len(variant.parameters), *_meant(query))
        for variant in sorted(rules.variants(), key=lambda variant: variant.name)
        for query in variant.data
        if query.table.matches(namespace, name)
    ]
    lookups = [
        _meant(lookup)
        for lookup in sorted(rules.lookups, key=lambda lookup: lookup.id)
        if lookup.table.matches(namespace, name)
    ]
    # What says nothing about it is not in it, so that what was stored before there was such a thing stands.
    writes = [_meant(write) for write in rules.writes if write.table.matches(namespace, name)]
    meaning = (_MEANING, rules.dialect, queries, lookups, *([writes] if writes else []))
    return sha256(repr(meaning).encode()).hexdigest()[:32]


def _meant(part: object) -> tuple[object, ...]:
    """A part of the rules without the words it was written in."""
    if is_dataclass(part):
        named = [getattr(part, field.name) for field in fields(part) if field.name != "text"]
        return (type(part).__name__, *map(_meant, named))
    if isinstance(part, tuple):
        return tuple(map(_meant, part))
    return (part,)
