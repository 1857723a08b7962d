"""Type oids → what the types are made of, as far as values must be taken apart. No I/O.

The oids of built-in types never change, so they are known without asking. What a database defines itself is
added as its catalogue describes it; a type that nobody has described is taken as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from replicator.wal.types import Type

#: How many arrays and objects may stand within one another in one value.
NESTING_MAX: Final = 10

BOOL, BYTEA = 16, 17
JSONS: Final = frozenset((114, 3802))
INTEGERS: Final = frozenset((20, 21, 23, 26))
REALS: Final = frozenset((700, 701))
DATE, TIME, TIMESTAMP, TIMESTAMPTZ = 1082, 1083, 1114, 1184
PG_LSN = 3220
UUID = 2950
#: What Postgres prints in letters, digits and signs that JSON takes as they are. True: it may be stored out
#: of line, so that it may be UNCHANGED.
PLAIN: Final[Mapping[int, bool]] = {
    **dict.fromkeys((27, 28, 29, 829, 774, 1186, 1266, 2950, 5069), False),  # tid, xid …, uuid, xid8
    **dict.fromkeys((650, 869, 1560, 1562, 1700), True),  # cidr, inet, bit, varbit, numeric
}

#: Every array of a built-in type whose values are not themselves taken apart → that type.
_ARRAYS: Final = {
    **{143: 142, 199: 114, 271: 5069, 629: 628, 651: 650, 719: 718, 775: 774, 791: 790, 1000: 16, 1001: 17},
    **{1002: 18, 1003: 19, 1005: 21, 1006: 22, 1007: 23, 1008: 24, 1009: 25, 1010: 27, 1011: 28, 1012: 29},
    **{1013: 30, 1014: 1042, 1015: 1043, 1016: 20, 1017: 600, 1018: 601, 1019: 602, 1020: 603, 1021: 700},
    **{1022: 701, 1027: 604, 1028: 26, 1034: 1033, 1040: 829, 1041: 869, 1115: 1114, 1182: 1082, 1183: 1083},
    **{1185: 1184, 1187: 1186, 1231: 1700, 1270: 1266, 1561: 1560, 1563: 1562, 2201: 1790, 2207: 2202},
    **{2208: 2203, 2209: 2204, 2210: 2205, 2211: 2206, 2949: 2970, 2951: 2950, 3221: 3220, 3643: 3614},
    **{3644: 3642, 3645: 3615, 3735: 3734, 3770: 3769, 3807: 3802, 4073: 4072, 4090: 4089, 4097: 4096},
    **{4192: 4191, 5039: 5038},
}
#: Range, its multirange, and what they range over.
_RANGES: Final = (
    *((3904, 4451, 23), (3906, 4532, 1700), (3908, 4533, 1114)),
    *((3910, 4534, 1184), (3912, 4535, 1082), (3926, 4536, 20)),
)
#: Arrays of those.
_ARRAYS_OF_RANGES: Final = {
    **{3905: 3904, 3907: 3906, 3909: 3908, 3911: 3910, 3913: 3912, 3927: 3926},
    **{6150: 4451, 6151: 4532, 6152: 4533, 6153: 4534, 6155: 4535, 6157: 4536},
}
_BOX = 603


def _built_in() -> dict[int, Type]:
    types = [
        Type(array, "array", element, ";" if element == _BOX else ",")
        for array, element in (_ARRAYS | _ARRAYS_OF_RANGES).items()
    ]
    types += [Type(oid, "base") for oid in _ARRAYS.values()]
    types += [Type(oid, "range", element) for oid, _, element in _RANGES]
    types += [Type(oid, "multirange", element) for _, oid, element in _RANGES]
    return {one.oid: one for one in types}


_BUILT_IN: Final = _built_in()


@dataclass(frozen=True, slots=True)
class Types:
    """Every type that is known: the built-in ones, and those a database's catalogue described."""

    described: Mapping[int, Type] = field(default_factory=dict)

    def find(self, oid: int) -> Type:
        """What is known of this type; a stranger is a base type, and its values are text."""
        return _BUILT_IN.get(oid) or self.described.get(oid) or Type(oid, "base")

    def unknown(self, oids: Iterable[int]) -> frozenset[int]:
        """Which of these the catalogue should be asked about."""
        return frozenset(oid for oid in oids if oid not in _BUILT_IN and oid not in self.described)

    def with_types(self, described: Iterable[Type]) -> Types:
        """These types and more; what is described again is taken as described last."""
        return Types({**self.described, **{one.oid: one for one in described}})

    def is_custom(self, oid: int) -> bool:
        """Whether values are taken apart only where the rules say `custom_postgres_types`."""
        return oid not in _ARRAYS and self.find(oid).kind not in ("base", "enum")


#: Enough for a database that defines no types.
BUILT_IN: Final = Types()
