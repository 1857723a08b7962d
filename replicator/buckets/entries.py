"""Enters and Leaves, and the op ids they get → changes of the table `lookups`."""

from __future__ import annotations

from collections.abc import Iterable

from replicator import queries
from replicator.database import Connection
from replicator.rules.lookups import OUTER
from replicator.rules.route import Enter, Leave

_q = queries.load("lookups")

#: So many are kept back at most.
_HELD = 5000


class Entries:
    """What has been entered and left since it was last sent.

    Nobody sees what is between two checkpoints, so of one entry only the last word counts.
    """

    def __init__(self) -> None:
        #: By lookup, key, value and subkey: whether it stands now, and since or until which op.
        self._last: dict[tuple[str, str, str, str], tuple[bool, int]] = {}

    @property
    def is_full(self) -> bool:
        return len(self._last) >= _HELD

    def add(self, entries: Iterable[Enter | Leave], op_id: int) -> int:
        """Note these, with the ids that follow `op_id`; answers the last one."""
        for entry in entries:
            op_id += 1
            # Struck off first: what is entered again comes after what was left meanwhile.
            lookup, key, value, subkey = entry
            self._last.pop((lookup, key, value, subkey), None)
            self._last[lookup, key, value, subkey] = type(entry) is Enter, op_id
        return op_id

    async def send(self, connection: Connection) -> None:
        """Have storage make it so, inside its open transaction."""
        if not self._last:
            return
        ended = [(*entry, op_id) for entry, (_, op_id) in self._last.items()]
        rows_ended = [entry for entry in ended if entry[0].startswith(OUTER)]
        begun = [(*entry, op_id) for entry, (stands, op_id) in self._last.items() if stands]
        self._last.clear()
        if len(rows_ended) < len(ended):
            plain = [entry for entry in ended if not entry[0].startswith(OUTER)]
            await connection.execute(_q.leave, _columns(plain))
        if rows_ended:
            await connection.execute(_q.leave_rows, _columns(rows_ended))
        if begun:
            await connection.execute(_q.enter, _columns(begun))


def _columns(entries: list[tuple[str, str, str, str, int]]) -> dict[str, object]:
    lookups, keys, values, subkeys, op_ids = zip(*entries, strict=True)
    return {
        "lookups": list(lookups),
        "keys": list(keys),
        "values": list(values),
        "subkeys": list(subkeys),
        "op_ids": list(op_ids),
    }
