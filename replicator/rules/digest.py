"""A definition of the rules → a short text that is another one when its buckets hold something else. No I/O.

Where this text is the one that was kept, the buckets are kept, and with them what clients have of them. So
how the rules are written is not in it; nor is who gets a bucket and how urgently, which is decided when they
ask.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from hashlib import sha256

from replicator.rules.expression import Dialect
from replicator.rules.model import Definition

#: To be raised when a release makes something else of the same rules.
MEANING = 3


def basis_of(dialect: Dialect) -> str:
    """What two lookups must have in common, besides their ids, to lead to the same values."""
    return _short((MEANING, dialect))


def digest_of(definition: Definition, dialect: Dialect) -> str:
    """Which rows a definition's buckets hold, under which names and as what."""
    # Between variants order means nothing: their buckets have different names.
    variants = [
        (
            variant.name,
            len(variant.parameters),
            variant.as_text or (False,) * len(variant.parameters),
            *map(_meant, variant.data),
        )
        for variant in sorted(definition.variants, key=lambda variant: variant.name)
    ]
    return _short((MEANING, dialect, variants))


def _meant(part: object) -> tuple[object, ...]:
    """A part of the rules without the words it was written in."""
    if is_dataclass(part):
        named = [getattr(part, field.name) for field in fields(part) if field.name != "text"]
        return (type(part).__name__, *map(_meant, named))
    if isinstance(part, tuple):
        return tuple(map(_meant, part))
    return (part,)


def _short(meaning: object) -> str:
    return sha256(repr(meaning).encode()).hexdigest()[:32]
