"""Names of buckets → the numbers their ops go by in storage.

A number, once given, stays: so what is known here never becomes wrong, and a name is asked for once. Numbers
are given on a connection of their own, outside the transaction that stores the ops: that one is in the middle
of taking ops in. If it is given up, what is left behind is a bucket without ops, which nobody sees.
"""

from __future__ import annotations

from collections.abc import Sequence

from replicator import queries
from replicator.database import Connection, rows

_q = queries.load("buckets")

#: So many names are kept, and as many of those that were asked for before them.
_MOST = 200_000


class Numbers:
    """The numbers of buckets, as one writer has come to know them."""

    def __init__(self, connection: Connection, most: int = _MOST) -> None:
        self._connection, self._most = connection, most
        self._known: dict[str, int] = {}
        self._before: dict[str, int] = {}

    async def of(self, names: Sequence[str]) -> list[int]:
        """The number of each of these buckets, in the order of the names."""
        try:
            return list(map(self._known.__getitem__, names))
        except KeyError:
            pass
        found = {name: self._known.get(name) or self._before.get(name) for name in set(names)}
        unknown = [name for name, number in found.items() if number is None]
        if unknown:
            found |= dict(await rows(self._connection, _q.number_buckets, names=unknown))
        if len(self._known) >= self._most:
            self._before, self._known = self._known, {}
        self._known.update(found)  # type: ignore[arg-type]  # none of them is without a number by now
        return list(map(self._known.__getitem__, names))
