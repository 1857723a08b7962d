"""Workers divide what a record system is to get at once: never more in all, and evenly."""

from __future__ import annotations

import pytest

from replicator.database import Connect
from replicator.ehr.lanes_seats import Seats
from replicator.ehr.pace import Pace

pytestmark = pytest.mark.migrated

URL = "http://record.example"


def seats(connect: Connect, name: str, most: int = 10, lease_s: float = 3600, url: str = URL) -> Seats:
    return Seats(connect, name, url, Pace(most, lease_s=lease_s))


async def test_one_alone_has_all(connect: Connect) -> None:
    assert await seats(connect, "one").settle(0) == 10


async def test_one_that_comes_gets_its_part_when_the_others_have_let_go_of_it(connect: Connect) -> None:
    one, other = seats(connect, "one"), seats(connect, "other")
    await one.settle(0)
    assert await other.settle(0) == 0
    assert await one.settle(10) == 5, "no lane more, while ten are at work"
    assert await other.settle(0) == 0, "all ten are still at work"
    assert await one.settle(7) == 5
    assert await other.settle(0) == 3
    assert await one.settle(2) == 5
    assert await other.settle(3) == 5


@pytest.mark.parametrize("workers", [3, 4, 12])
async def test_the_sum_is_never_more_however_many_come(connect: Connect, workers: int) -> None:
    there = [seats(connect, str(number)) for number in range(workers)]
    for _ in range(4):
        allowed = [await each.settle(0) for each in there]
        assert sum(allowed) <= 10
    assert sum(allowed) == 10
    assert max(allowed) <= -(-10 // workers)


async def test_one_that_ends_leaves_its_part_at_once_and_one_that_stands_still_after_its_lease(
    connect: Connect,
) -> None:
    stays = seats(connect, "stays")
    async with seats(connect, "ends") as ends:
        await ends.settle(0)
        await stays.settle(0)
        await ends.settle(0)
        assert await stays.settle(0) == 5
    assert await stays.settle(0) == 10
    await seats(connect, "still", lease_s=0).settle(0)
    assert await stays.settle(0) == 10


async def test_workers_of_another_record_system_are_not_counted(connect: Connect) -> None:
    await seats(connect, "other", url="http://other.example").settle(0)
    assert await seats(connect, "one").settle(0) == 10
