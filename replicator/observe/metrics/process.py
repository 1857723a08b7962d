"""This process → what every exporter says of its own: memory, descriptors, processor time."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from replicator.observe.metrics.text import Family

_STARTED_AT = time.time()
_PAGE = os.sysconf("SC_PAGE_SIZE")


def families() -> Iterator[Family]:
    """By the names that dashboards know."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield _one("process_cpu_seconds_total", "counter", "Processor time.", used.ru_utime + used.ru_stime)
    yield _one("process_start_time_seconds", "gauge", "When it started.", _STARTED_AT)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        descriptors = len(os.listdir("/proc/self/fd"))
    except (OSError, ValueError):
        return  # no Linux
    yield _one("process_resident_memory_bytes", "gauge", "Memory.", pages * _PAGE)
    yield _one("process_open_fds", "gauge", "Open descriptors.", descriptors)


def _one(name: str, kind: str, help: str, value: float) -> Family:
    return Family(name, "counter" if kind == "counter" else "gauge", help, [({}, value)])
