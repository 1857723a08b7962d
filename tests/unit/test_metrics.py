"""What is counted adds up, is told as Prometheus reads it, and is what dashboard and alerts ask for."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from replicator import queries
from replicator.observe.metrics import gathered, process
from replicator.observe.metrics.figures import JOB_BOUNDS, Counted, Figures, Histogram
from replicator.observe.metrics.text import Family, exposed
from replicator.observe.status.model import Look, Silent
from tests.unit.looks import MB, NOW, a_look, a_part, a_queue, a_source, a_stored

CONFIG = queries.house("config")
ALERTS, DASHBOARD = CONFIG / "prometheus" / "alerts.yml", CONFIG / "grafana" / "replicator.json"
NAME = re.compile(r"\breplicator_[a-z_]+\b")
#: What a histogram, or a label, makes of a name.
ENDINGS = re.compile(r"_(bucket|sum|count)$")
PROMTOOL = os.environ.get("REPLICATOR_TEST_PROMTOOL") or shutil.which("promtool")
NO_PROMTOOL = "promtool is not here; on Debian: apt-get install prometheus"

FULL = a_look(
    source=a_source(limit_bytes=10 * MB),
    stored=a_stored(queue=a_queue(lanes={"parked": (1, 4)}, oldest_s=9.0, errors={"server": 2})),
)


def told(look: Look) -> str:
    return exposed([*gathered.families(look, Histogram(JOB_BOUNDS)), *process.families()])


def samples(text: str) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def names(text: str) -> set[str]:
    return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}


def asked() -> set[str]:
    expressions = re.findall(r"^\s+expr: .*(?:\n {10,}.*)*", ALERTS.read_text(), re.MULTILINE)
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        expressions += [target["expr"] for target in panel.get("targets", ())]
    assert len(expressions) > 40, "both files have been read"
    return {ENDINGS.sub("", name) for text in expressions for name in NAME.findall(text)}


def test_dashboard_and_alerts_ask_for_what_there_is() -> None:
    there = names(told(FULL))
    assert asked() - {ENDINGS.sub("", name) for name in there} == set()


def test_every_metric_that_can_be_wrong_is_on_the_dashboard() -> None:
    shown = {ENDINGS.sub("", name) for name in NAME.findall(DASHBOARD.read_text())}
    hidden = {"replicator_slot_exists", "replicator_slot_active"}
    hidden |= {"replicator_slot_lost", "replicator_checkpoint_op_id", "replicator_ehr_configured"}
    assert {
        ENDINGS.sub("", one) for one in names(told(FULL)) if one.startswith("replicator")
    } - shown == hidden


@pytest.mark.skipif(PROMTOOL is None, reason=NO_PROMTOOL)
def test_alarms_are_raised_when_they_should_be_and_not_before() -> None:
    tests = Path(__file__).parent / "alerts_test.yml"
    for command in (["check", "rules", str(ALERTS)], ["test", "rules", str(tests)]):
        done = subprocess.run([str(PROMTOOL), *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason=NO_PROMTOOL)
def test_prometheus_finds_nothing_wrong_with_what_is_told() -> None:
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=told(FULL), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_every_metric_says_what_it_is_before_its_samples() -> None:
    text = told(FULL)
    assert len(re.findall("^# HELP ", text, re.MULTILINE)) == len(names(text))
    for line in text.splitlines():
        assert line.startswith("# ") or re.fullmatch(
            r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [-+0-9.eInf]+', line
        ), line


def test_what_is_not_known_is_not_told_as_nought() -> None:
    silent = Silent("no answer", "")
    found = samples(told(a_look(source=silent, stored=silent)))
    assert found["replicator_source_up"] == found["replicator_storage_up"] == 0
    assert not any(name.startswith(("replicator_slot", "replicator_ehr")) for name in found)
    assert "replicator_slot_seconds_to_full" not in samples(told(a_look(source=a_source(pace=None))))


def test_what_several_processes_have_counted_adds_up_also_of_those_that_have_ended() -> None:
    parts = (a_part(), a_part(is_alive=False), a_part("serve"))
    found = samples(told(a_look(stored=a_stored(parts=parts))))
    assert found["replicator_source_rows_total"] == 3 * 12
    assert found['replicator_errors_total{part="replicate",event="waiting"}'] == 4
    assert found['replicator_commit_to_checkpoint_seconds_bucket{le="0.05"}'] == 3
    assert found["replicator_commit_to_checkpoint_seconds_count"] == 3
    assert found['replicator_restarts_total{part="replicate"}'] == 2
    assert found['replicator_processes{part="replicate"}'] == 1
    assert found["replicator_clients"] == 3


def test_a_histogram_counts_up_to_each_bound_and_what_arrives_before_it_was_sent() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (-5.0, 0.5, 1.0, 1.5, 99.0):
        histogram.observe(value)
    text = exposed([Family("h", "histogram", "x", [({}, histogram)])])
    found = samples(text)
    assert [found[f'h_bucket{{le="{le}"}}'] for le in ("1", "2", "+Inf")] == [3, 4, 5]
    assert (found["h_count"], found["h_sum"]) == (5, 0.5 + 1.0 + 1.5 + 99.0)


def test_labels_are_escaped() -> None:
    text = exposed([Family("x", "gauge", "x", [({"a": 'q"\\\n'}, 1)])])
    assert text.splitlines()[-1] == r'x{a="q\"\\\n"} 1'


def test_warnings_are_counted_by_event_and_what_is_only_said_is_not() -> None:
    figures = Figures()
    handler = Counted(figures)
    for level, event in ((logging.INFO, "stored"), (logging.WARNING, "waiting"), (logging.ERROR, "waiting")):
        record = logging.makeLogRecord({"msg": event, "levelno": level})
        if level >= handler.level:
            handler.handle(record)
    assert figures.counters["errors"] == {"waiting": 2}


def test_figures_of_another_release_are_added_as_far_as_they_are_known() -> None:
    figures = Figures()
    figures.add(
        {"counters": {"new": {"": 1}, "rows": {"": 2}}, "histograms": {"new": {"counts": [], "sum": 0}}}
    )
    figures.add({"histograms": {"commit_to_client": {"counts": [1, 2], "sum": 3.0}}})
    assert figures.counters["rows"] == {"": 2} and figures.histograms["commit_to_client"].count == 0
    figures.add(figures.facts())
    assert figures.counters["rows"] == {"": 4}


def test_a_batch_is_counted_with_each_of_its_commits() -> None:
    figures = Figures()
    figures.stored(5, 7, 900, [NOW - 0.02, NOW - 0.2], NOW)
    assert {name: sum(of.values()) for name, of in figures.counters.items() if of} == {
        "rows": 5, "ops": 7, "bytes": 900, "transactions": 2,
    }  # fmt: skip
    assert figures.histograms["commit_to_checkpoint"].count == 2
