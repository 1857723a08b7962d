"""A Look, and the ages of jobs → every metric there is. No I/O.

Any server tells of the whole system, so scraping one is enough; where several are scraped, `max` over them
is what one of them says. Names and labels are a promise: dashboards and alerts go by them (config/grafana,
config/prometheus), and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterator

from replicator import __version__
from replicator.observe.metrics.figures import Figures, Histogram
from replicator.observe.metrics.text import Family, Labels
from replicator.observe.status.model import Look, Silent, Source, Stored

_PARTS = ("replicate", "serve", "work")
_COPIES = ("wanted", "copying", "copied")
_LANES = ("waiting", "held", "parked")
_NONE: Labels = {}


def families(look: Look, job_ages: Histogram) -> Iterator[Family]:
    """All of them, as they are now."""
    source, stored = look.source, look.stored
    yield Family("replicator_build_info", "gauge", "The release.", [({"version": __version__}, 1)])
    yield _gauge("source_up", "Whether the source answers.", float(not isinstance(source, Silent)))
    yield _gauge("storage_up", "Whether storage answers.", float(not isinstance(stored, Silent)))
    if not isinstance(source, Silent):
        yield from _of_source(source)
    if not isinstance(stored, Silent):
        yield from _of_stored(stored, look.at)
        yield from _of_record(look, stored, job_ages)
        yield from _counted(stored)


def _gauge(name: str, help: str, value: float | None) -> Family:
    return Family(f"replicator_{name}", "gauge", help, [(_NONE, value)])


def _of_source(source: Source) -> Iterator[Family]:
    slot = source.slot
    lag = None if slot is None or slot.lag_bytes is None else max(0, slot.lag_bytes)
    is_lost = slot is not None and (slot.wal_status == "lost" or slot.invalidation_reason is not None)
    yield _gauge("slot_exists", "Whether there is a slot.", float(slot is not None))
    yield _gauge("slot_lost", "Whether the log that the slot needs is gone.", float(is_lost))
    yield _gauge(
        "slot_active", "Whether the slot is read.", float(slot is not None and slot.active_pid is not None)
    )
    yield _gauge("slot_lag_bytes", "What the source has written since the slot's confirmed position.", lag)
    yield _gauge(
        "slot_lag_seconds", "How late the slot's reader is, as the source sees it.", source.lag_s or 0.0
    )
    yield _gauge(
        "slot_retained_bytes", "The log that the source keeps for the slot.", slot and slot.kept_bytes
    )
    yield _gauge(
        "slot_room_bytes", "What may still be written, unread, until slot or disk end.", source.room_bytes
    )
    yield _gauge("slot_seconds_to_full", "How long that lasts at the log's pace.", source.seconds_to_full)
    written = [(_NONE, float(source.position))]
    yield Family(
        "replicator_source_log_bytes_total", "counter", "How far the source's log has come.", written
    )


def _of_stored(stored: Stored, now: float) -> Iterator[Family]:
    age = None if stored.recorded_at is None else max(0.0, now - stored.recorded_at)
    yield _gauge("checkpoint_age_seconds", "Since a checkpoint was stored; on a quiet source it grows.", age)
    yield _gauge("checkpoint_op_id", "The newest op that is stored.", stored.op_id)
    yield _gauge("writer_up", "Whether somebody replicates.", float(stored.is_writing))
    copies = [
        ({"state": state}, float(sum(one.state == state for one in stored.copies))) for state in _COPIES
    ]
    yield Family("replicator_tables", "gauge", "Tables by how far their copies have come.", copies)
    under_way = [one for one in stored.copies if one.state != "copied"]
    rows = float(sum(one.rows_copied for one in under_way))
    expected = float(sum(max(one.rows_expected, one.rows_copied) for one in under_way))
    yield _gauge("snapshot_rows_copied", "Rows copied, of tables that are being copied.", rows)
    yield _gauge("snapshot_rows_expected", "About how many rows these tables have.", expected)
    yield _gauge(
        "tables_with_holes", "Tables of which rows are missing.", sum(c.has_holes for c in stored.copies)
    )
    active, preparing = stored.rule("active"), stored.rule("preparing")
    yield _gauge("rules_version", "The rules in force.", active and active.id)
    yield _gauge("rules_deploying", "Whether others are being prepared.", float(preparing is not None))
    yield _gauge("rules_failed", "Whether the last deploy failed.", float(stored.rule("failed") is not None))
    yield _gauge("clients", "Apps that are connected.", stored.clients)
    alive = [({"part": name}, float(len(stored.alive(name)))) for name in _PARTS]
    yield Family("replicator_processes", "gauge", "Processes that run, by part.", alive)


def _of_record(look: Look, stored: Stored, job_ages: Histogram) -> Iterator[Family]:
    queue = stored.queue
    yield _gauge("ehr_configured", "Whether there is a record system.", float(look.works))
    yield _gauge("ehr_jobs_undelivered", "Changes that are not in the record yet.", queue.undelivered)
    lanes = [({"state": state}, float(queue.lanes.get(state, (0, 0))[0])) for state in _LANES]
    yield Family("replicator_ehr_lanes", "gauge", "Patients whose changes wait, by why.", lanes)
    yield _gauge("ehr_oldest_job_seconds", "For how long the oldest change waits.", queue.oldest_s or 0.0)
    is_open = stored.outage is not None
    yield _gauge("ehr_circuit_open", "Whether the record system cannot be used.", float(is_open))
    waited_for = len(stored.holds) - is_open
    yield _gauge("ehr_holds", "What many patients wait for, such as a template.", waited_for)
    classes = [({"class": name}, float(count)) for name, count in sorted(queue.errors.items())]
    yield Family("replicator_ehr_jobs_failing", "gauge", "Undelivered changes by their last error.", classes)
    yield Family(
        "replicator_ehr_job_age_seconds",
        "histogram",
        "From the change's being queued to its delivery.",
        [(_NONE, job_ages)],
    )


#: What is counted → its metric, and what that is.
_COUNTED = {
    "rows": ("source_rows_total", "Row changes read from the source's log and stored."),
    "transactions": ("source_transactions_total", "Transactions read from the source's log and stored."),
    "ops": ("ops_total", "Ops stored in buckets."),
    "bytes": ("ops_bytes_total", "What these ops come to, about."),
    "sent": ("checkpoints_sent_total", "Checkpoints sent to apps that follow."),
}
_HISTOGRAMS = {
    "commit_to_checkpoint": "From a commit on the source to the stored checkpoint that holds it.",
    "commit_to_client": "From a commit on the source to its having been sent to an app that follows.",
}


def _counted(stored: Stored) -> Iterator[Family]:
    by_part = {name: Figures() for name in _PARTS}
    for one in stored.parts:
        by_part[one.part].add(one.figures)
    everything = Figures()
    for figures in by_part.values():
        everything.add(figures.facts())
    for name, (metric, help) in _COUNTED.items():
        total = sum(everything.counters[name].values())
        yield Family(f"replicator_{metric}", "counter", help, [(_NONE, total)])
    for name, help in _HISTOGRAMS.items():
        samples = [(_NONE, everything.histograms[name])]
        yield Family(f"replicator_{name}_seconds", "histogram", help, samples)
    errors = [
        ({"part": part, "event": event}, count)
        for part, figures in by_part.items()
        for event, count in sorted(figures.counters["errors"].items())
    ]
    yield Family("replicator_errors_total", "counter", "Warnings and errors logged, by event.", errors)
    restarts = [
        ({"part": name}, float(sum(one.starts - 1 for one in stored.parts if one.part == name)))
        for name in _PARTS
    ]
    yield Family(
        "replicator_restarts_total", "counter", "Processes in the place of one that broke off.", restarts
    )
