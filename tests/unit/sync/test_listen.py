"""A server makes room for as many connections as it is to have, as far as the system lets it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from replicator.sync import listen
from tests.fixtures.signals import Signals


@contextmanager
def _limited_to(files: int) -> Iterator[int]:
    """With the limit that a shell may give; what it can be raised to."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, before[0]), before[1]))
    try:
        yield before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_on_files_is_raised_to_what_is_wanted() -> None:
    with _limited_to(200):
        assert listen._descriptors(230) == 230
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 230


def test_a_limit_that_is_enough_stays() -> None:
    with _limited_to(200):
        assert listen._descriptors(150) == 150
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 200


async def test_what_cannot_be_had_is_said(signals: Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    with _limited_to(200):
        monkeypatch.setattr(resource, "setrlimit", lambda *_: (_ for _ in ()).throw(OSError("not allowed")))
        try:
            assert listen._strangers_most(100) == 100
        finally:
            monkeypatch.undo()
    said = await signals.wait("few descriptors")
    assert said["there"] == 200
