"""What is wrong is said with since when, what it threatens and what to do, the worst first."""

from __future__ import annotations

from typing import Any

import click
import pytest

from replicator.observe.status.facts import facts_of
from replicator.observe.status.judge import troubles
from replicator.observe.status.model import Hold, Look, RuleState, Silent
from replicator.observe.status.screen import screen
from tests.unit.looks import MB, NOW, a_copy, a_look, a_part, a_queue, a_source, a_stored
from tests.unit.surveys import a_slot

SILENT = Silent("read on clinic at db:5432: connection refused", "Is the server running?")
UNREAD = a_slot(active_pid=None, lag_bytes=5 * MB, kept_bytes=5 * MB, safe_bytes=4 * MB)
DEAD = a_part(is_alive=False, told_at=NOW - 600)


def stored(**changed: Any) -> Look:
    return a_look(stored=a_stored(**changed))


def source(**changed: Any) -> Look:
    return a_look(source=a_source(**changed))


CASES: dict[str, tuple[Look, dict[str, str]]] = {
    "nothing is wrong": (a_look(), {}),
    "a quiet source whose slot lasts for a minute only, and is read": (source(pace=1e6), {}),
    "the source is silent": (a_look(source=SILENT), {"source.silent": "error"}),
    "storage is silent": (a_look(stored=SILENT), {"storage.silent": "error"}),
    "the slot is gone": (source(slot=None), {"slot.gone": "error"}),
    "the slot is lost": (source(slot=a_slot(wal_status="lost")), {"slot.lost": "error"}),
    "the slot is about to be": (source(slot=a_slot(wal_status="unreserved")), {"slot.unreserved": "error"}),
    "nobody reads, and there are hours left": (source(slot=UNREAD, pace=200.0), {"slot.room": "warning"}),
    "nobody reads, and there are minutes left": (source(slot=UNREAD, pace=5000.0), {"slot.room": "error"}),
    "nobody reads, and there are days left": (source(slot=UNREAD, pace=1.0), {}),
    "the replicator was stopped": (
        stored(is_writing=False, recorded_at=NOW - 900, parts=(DEAD, a_part("serve"), a_part("work"))),
        {"replicate.down": "error"},
    ),
    "it waits for something": (
        stored(is_writing=False, parts=(a_part(waits_for="refused", waits_since=NOW - 9), a_part("serve"))),
        {"replicate.down": "error"},
    ),
    "nothing was ever replicated": (
        stored(
            op_id=None, shown_op_id=None, recorded_at=None, is_writing=False, parts=(), rules=(), copies=()
        ),
        {"replicate.never": "warning"},
    ),
    "it is late": (source(lag_s=100.0), {"replicate.slow": "warning"}),
    "it is very late": (source(lag_s=5000.0), {"replicate.slow": "error"}),
    "the first copy is under way": (
        stored(shown_op_id=None, copies=(a_copy(state="copying"),)),
        {"copy.first": "note"},
    ),
    "rows are missing": (stored(copies=(a_copy(has_holes=True),)), {"table.holes": "warning"}),
    "a deploy failed": (
        stored(rules=(RuleState(4, "active", None, 1.0), RuleState(5, "failed", "no table x", NOW - 50))),
        {"rules.failed": "warning"},
    ),
    "nobody serves": (stored(parts=(a_part(), a_part("work"))), {"serve.down": "error"}),
    "nobody serves, and nobody is to": (
        a_look(stored=a_stored(parts=(a_part(),)), serves=False, works=False),
        {},
    ),
    "nobody delivers, and nothing is to be delivered": (stored(parts=(a_part(), a_part("serve"))), {}),
    "nobody delivers what waits": (
        stored(parts=(a_part(), a_part("serve")), queue=a_queue(lanes={"waiting": (2, 5)}, oldest_s=3.0)),
        {"work.down": "error"},
    ),
    "the record system is silent": (
        stored(holds=(Hold("server", "connection refused", NOW - 70),)),
        {"work.circuit": "error"},
    ),
    "a template is missing": (
        stored(
            queue=a_queue(lanes={"held": (3, 9)}, oldest_s=900.0),
            holds=(Hold("template x.v1", "the server does not have it", NOW - 800),),
        ),
        {"work.held": "error"},
    ),
    "patients are parked": (
        stored(queue=a_queue(lanes={"parked": (1, 4)}, oldest_s=900.0), parked_since=NOW - 900),
        {"work.parked": "warning"},
    ),
    "delivery is late": (
        stored(queue=a_queue(lanes={"waiting": (1, 4)}, oldest_s=900.0)),
        {"work.late": "warning"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_trouble_is_told_once_and_with_what_to_do(name: str) -> None:
    look, expected = CASES[name]
    found = troubles(look)
    assert {one.code: one.level for one in found} == expected
    for one in found:
        assert one.what and one.threat and one.remedy


@pytest.mark.parametrize("name", CASES)
def test_every_look_has_a_screen_and_facts(name: str) -> None:
    look, expected = CASES[name]
    text, facts = screen(look), facts_of(look)
    for one in troubles(look):
        assert one.what.split()[0] in text
    bad = [level for level in expected.values() if level != "note"]
    assert facts["status"] == (min(bad, key=["error", "warning"].index) if bad else "ok")
    assert ("all is well" in text) == (not bad)


def test_what_is_wrong_stands_first_with_since_when_and_how_long() -> None:
    look, _ = CASES["the replicator was stopped"]
    lines = [line for line in screen(look, 100).splitlines() if line]
    assert "1 thing to look at" in lines[0]
    assert "nobody replicates" in lines[1]
    assert "since" in lines[2] and "for 10 minutes" in lines[2]
    assert "Apps and record see nothing newer" in lines[3]
    assert any("replicator run" in line for line in lines[4:6])


def test_the_worst_is_told_first_and_of_those_the_oldest() -> None:
    look = a_look(
        source=a_source(slot=a_slot(wal_status="lost")),
        stored=a_stored(
            recorded_at=NOW - 50,
            parts=(a_part(), a_part("work"), a_part("serve", is_alive=False, told_at=NOW - 900)),
            copies=(a_copy(has_holes=True),),
        ),
    )
    assert [one.code for one in troubles(look)] == ["serve.down", "slot.lost", "table.holes"]


def test_a_standby_that_waits_its_turn_is_no_trouble() -> None:
    standby = a_part(node="other:2", waits_for="another replicator writes: standing by", waits_since=NOW)
    look = stored(parts=(a_part(), standby, a_part("serve"), a_part("work")))
    assert troubles(look) == []
    assert "1 standing by" in screen(look)


def test_a_copy_shows_how_far_it_is() -> None:
    copies = (a_copy(), a_copy(name="lab_results", state="copying", rows_copied=250, rows_expected=1000))
    text = click.unstyle(screen(stored(copies=copies)))
    assert "1 of 2 copied" in text and "250 of about 1,000 rows" in text and "25%" in text
    assert "██████░░░░░░░░░░░░░░░░░░" in text


def test_a_room_that_cannot_be_known_is_said_to_be() -> None:
    look = source(slot=a_slot(active_pid=1, safe_bytes=None), limit_bytes=None, disc_bytes=None)
    assert "without a limit" in screen(look)
    assert troubles(look) == []
