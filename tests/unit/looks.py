"""A look at a system on which nothing is wrong, to be changed in one respect at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from replicator.ehr.queue_health import Health
from replicator.observe.metrics.figures import Figures
from replicator.observe.status.model import Copy, Look, PartState, RuleState, Source, Stored
from tests.unit.surveys import a_slot

NOW = 1_800_000_000.0
MB = 1 << 20


def a_part(part: str = "replicate", **changed: Any) -> PartState:
    figures = Figures()
    figures.stored(12, 15, 4000, [NOW - 0.04], NOW)
    figures.count("errors", 2, "waiting")
    told = figures.facts() | {"clients": 3 if part == "serve" else 0}
    whole = PartState(part, "host:1", True, 2, NOW - 7200, NOW - 60, None, None, told)
    return whole._replace(**changed)


def a_copy(**changed: Any) -> Copy:
    return Copy("public", "vital_signs", "copied", 40, 40, False, None, NOW - 7000)._replace(**changed)


def a_queue(**changed: Any) -> Health:
    return replace(Health({}, None, {}, {"done": 7}, {}), **changed)


def a_source(**changed: Any) -> Source:
    slot = a_slot(
        active_pid=1, active_application="replicator", lag_bytes=100, kept_bytes=1000, safe_bytes=9 * MB
    )
    return replace(Source(slot, 5000, 10 * MB, None, 100.0, 3600.0, 0.1), **changed)


def a_stored(**changed: Any) -> Stored:
    return replace(
        Stored(
            100,
            "0/1A2B3C4",
            NOW - 3,
            NOW - 3.5,
            100,
            True,
            (a_copy(),),
            (RuleState(4, "active", None, NOW - 5000),),
            (a_part(), a_part("serve"), a_part("work")),
            a_queue(),
            (),
            None,
        ),
        **changed,
    )


def a_look(**changed: Any) -> Look:
    whole = Look(
        NOW, "replicator", "powersync", "clinic at db:5432", "clinic at db:5432 schema replicator",
        a_source(), a_stored(), True, True,
    )  # fmt: skip
    return replace(whole, **changed)
