"""A checkpoint wakes those whom it concerns, and is no work for anybody else."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager

import pytest

from replicator.buckets.model import Checkpoint, OpId, Told
from replicator.buckets.write_checkpoints import Client
from replicator.database import Connection
from replicator.errors import Unavailable
from replicator.rules.compile import Need
from replicator.sync.feed import Feed, Moment, Viewer
from replicator.wal.lsn import Lsn

_MANY = 2_000


def _away() -> AbstractAsyncContextManager[Connection]:
    """A storage that nobody is to ask."""
    raise Unavailable("storage is away", "It is not to be asked.")


def _feed() -> Feed:
    return Feed("", "replicator", "slot", _away)


def _joined(feed: Feed, user: str, buckets: Iterable[str] = (), needs: Iterable[Need] = ()) -> Viewer:
    viewer = Viewer(Client(user, "phone"))
    feed.join(viewer)
    feed.depend(viewer, buckets, needs)
    viewer.is_to_ask = False
    return viewer


def _tell(feed: Feed, buckets: Iterable[str] | None, lookups: Iterable[str] | None) -> None:
    told = Told(
        None if buckets is None else frozenset(buckets), None if lookups is None else frozenset(lookups)
    )
    feed._move(Moment(Checkpoint(OpId(7), Lsn(7)), 1), told)


async def test_what_concerns_one_of_many_is_work_for_one() -> None:
    feed = _feed()
    viewers = [_joined(feed, f"u{n}", [f"mine[{n}]"], [("members", f"{n}")]) for n in range(_MANY)]
    _tell(feed, ["mine[5]", "nobody's[]"], ["members\t6"])
    assert [n for n, viewer in enumerate(viewers) if viewer.bell.is_rung] == [5, 6]
    assert viewers[5].changed == {"mine[5]"} and not viewers[5].is_to_ask
    assert viewers[6].is_to_ask and not viewers[6].changed


async def test_what_all_share_wakes_all_of_them() -> None:
    feed = _feed()
    viewers = [_joined(feed, f"u{n}", [f"mine[{n}]", "everyone[]"]) for n in range(_MANY)]
    _tell(feed, ["everyone[]"], [])
    assert all(viewer.bell.is_rung and viewer.changed == {"everyone[]"} for viewer in viewers)


@pytest.mark.parametrize("buckets, lookups", [(None, ()), ((), None), (None, None)])
async def test_where_it_is_not_known_what_changed_everybody_looks(
    buckets: Iterable[str] | None, lookups: Iterable[str] | None
) -> None:
    feed = _feed()
    viewer = _joined(feed, "u1", ["mine[1]"], [("members", "1")])
    _tell(feed, buckets, lookups)
    assert viewer.bell.is_rung
    assert viewer.changed == ({"mine[1]"} if buckets is None else set())
    assert viewer.is_to_ask == (lookups is None)


async def test_what_one_does_not_depend_on_any_more_does_not_wake_it() -> None:
    feed = _feed()
    viewer = _joined(feed, "u1", ["old[]", "kept[]"], [("members", "1")])
    feed.depend(viewer, ["kept[]", "new[]"], [("members", "2")])
    _tell(feed, ["old[]"], ["members\t1"])
    assert (viewer.changed, viewer.is_to_ask) == (set(), False)
    _tell(feed, ["kept[]", "new[]"], ["members\t2"])
    assert (viewer.changed, viewer.is_to_ask) == ({"kept[]", "new[]"}, True)


async def test_who_has_left_leaves_nothing() -> None:
    feed = _feed()
    stays = _joined(feed, "u1", ["mine[1]"], [("members", "1")])
    for viewer in [
        _joined(feed, f"u{n % 3}", ["mine[1]", f"mine[{n}]"], [("members", "1")]) for n in range(9)
    ]:
        feed.chimes.stir_in(viewer.bell, 20.0)
        feed.leave(viewer)
    assert feed._viewers == {stays} and feed._by_client == {stays.client: {stays}}
    assert feed._by_bucket == {"mine[1]": {stays}} and feed._by_need == {("members", "1"): {stays}}
    assert not feed.chimes._due
