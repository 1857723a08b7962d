"""Ops, as far as rows are concerned → blocks of whole ones, once the numbers of their buckets are known.

Storage may have to be asked for those. Then more are added meanwhile, and nothing is held up.
"""

from __future__ import annotations

import asyncio

from replicator.buckets.changed import Changed
from replicator.buckets.encode import number_ops
from replicator.buckets.numbers import Numbers
from replicator.rules.model import Put, Remove
from replicator.rules.printed import Intended, print_all

#: So many are numbered together.
_NUMBERED = 500


class Held:
    """What has been added to a batch last; in the end it is blocks, in the order in which it was added."""

    def __init__(self, numbers: Numbers, changed: Changed) -> None:
        """`changed` is told of the buckets."""
        self._numbers, self._changed = numbers, changed
        #: What lacks its numbers, and the op that its first one follows.
        self._last, self._after = Intended([], []), 0
        #: The same, of those whose buckets' numbers are being looked up.
        self._foreseen: tuple[Intended, int] | None = None
        self._blocks: list[bytes] = []

    def add(self, buckets: list[str], ops: list[Put | Remove | bytes], after: int) -> None:
        """These follow the op of this id, and all that was added before."""
        if not self._last.ops:
            self._after = after
        self._last.buckets.extend(buckets)
        self._last.ops.extend(ops)

    @property
    def is_due(self) -> bool:
        """Whether it is worth while to number what is here."""
        return len(self._last.ops) >= _NUMBERED

    async def number_soon(self) -> None:
        """Number what is here; or, where storage has to be asked for its buckets, what was before it."""
        await self._number_foreseen()
        last, self._last = self._last, Intended([], [])
        buckets = self._numbers.known(last.buckets)
        if buckets is not None:
            self._number(last.ops, buckets, self._after)
        else:
            self._foreseen = last, self._after
            self._numbers.foresee(last.buckets)
            await asyncio.sleep(0)  # storage is to be asked now

    async def number_all(self) -> None:
        """Number all that is here: whatever is added next may not follow it without a gap."""
        await self._number_foreseen()
        if self._last.ops:
            last, self._last = self._last, Intended([], [])
            self._number(last.ops, await self._numbers.of(last.buckets), self._after)

    async def _number_foreseen(self) -> None:
        foreseen, self._foreseen = self._foreseen, None
        if foreseen is not None:
            intended, after = foreseen
            self._number(intended.ops, await self._numbers.of(intended.buckets), after)

    def _number(self, ops: list[Put | Remove | bytes], buckets: list[int], after: int) -> None:
        """Give ops their ids, which count on from one."""
        self._changed.add(buckets, after)
        self._blocks.append(number_ops(print_all(ops), after, buckets))

    def blocks(self) -> list[bytes]:
        """The blocks that there are, to be taken away."""
        blocks, self._blocks = self._blocks, []
        return blocks
