"""What tests wait for is itself to be relied on."""

from __future__ import annotations

import asyncio
import threading

import pytest

from replicator.marks import mark
from tests.fixtures.signals import Signals


async def test_a_mark_passed_before_the_wait_answers_it(signals: Signals) -> None:
    mark("stored", lsn=7)
    assert await signals.wait("stored") == {"lsn": 7}


async def test_a_mark_from_another_thread_wakes_the_loop(signals: Signals) -> None:
    waiting = asyncio.create_task(signals.wait("stored", lsn=7))
    await asyncio.sleep(0)  # so that it waits already
    thread = threading.Thread(target=mark, args=["stored"], kwargs={"lsn": 7})
    thread.start()
    assert await waiting == {"lsn": 7}
    thread.join()


async def test_each_mark_answers_one_wait(signals: Signals) -> None:
    for lsn in (1, 2, 3):
        mark("stored", lsn=lsn)
    assert await signals.wait("stored", lsn=2) == {"lsn": 2}
    assert await signals.wait("stored") == {"lsn": 1}
    assert await signals.wait("stored") == {"lsn": 3}
    with pytest.raises(TimeoutError, match=r"no mark stored .*the last marks:\n  stored {'lsn': 1}"):
        await signals.wait("stored", timeout=0.01)


async def test_a_field_may_be_asked_a_question(signals: Signals) -> None:
    mark("stored", lsn=1)
    mark("stored")
    mark("stored", lsn=9)
    assert await signals.wait("stored", lsn=lambda lsn: lsn >= 5) == {"lsn": 9}


async def test_what_is_forgotten_answers_no_wait_but_counts(signals: Signals) -> None:
    mark("stored", lsn=1)
    signals.forget()
    mark("stored", lsn=2)
    assert await signals.wait("stored") == {"lsn": 2}
    assert signals.count("stored") == 2
    assert signals.count("stored", lsn=1) == 1
    assert signals.count("sent") == 0


def test_a_thread_may_wait(signals: Signals) -> None:
    thread = threading.Thread(target=mark, args=["stored"])
    thread.start()
    assert signals.wait_in_thread("stored") == {}
    thread.join()
    with pytest.raises(TimeoutError):
        signals.wait_in_thread("stored", timeout=0.01)


def test_a_failpoint_raises_at_the_nth_mark_only(signals: Signals) -> None:
    mark("stored")
    failpoint = signals.fail_at("stored", nth=2, error=ValueError("as told"))
    mark("stored")
    mark("sent")
    early = failpoint.met
    with pytest.raises(ValueError, match="as told"):
        mark("stored")
    assert (early, failpoint.met) == (False, True)
    mark("stored")
    assert signals.count("stored") == 4


def test_a_failpoint_without_a_name_counts_every_mark(signals: Signals) -> None:
    signals.fail_at(None, nth=2, error=ConnectionError)
    mark("stored")
    with pytest.raises(ConnectionError):
        mark("sent")


def test_closed_signals_hear_nothing() -> None:
    signals = Signals()
    signals.open()
    mark("stored")
    signals.close()
    mark("stored")
    assert signals.count("stored") == 1
