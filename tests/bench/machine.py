"""This machine → the few words about it without which a number means nothing."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import TypeAlias

Machine: TypeAlias = dict[str, str | int]


def machine(postgres: str) -> Machine:
    """What the numbers were measured on; `postgres` is the release that served."""
    return {
        "cpu": _found("/proc/cpuinfo", r"model name\s*: (.+)") or platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "python": platform.python_version(),
        "postgres": postgres,
    }


def sentence(facts: Machine) -> str:
    """The same for people."""
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory']}; "
        f"Python {facts['python']}, Postgres {facts['postgres']}"
    )


def memory_peak_mb() -> float:
    """The most memory this process has had in RAM."""
    peak_kb = _found("/proc/self/status", r"VmHWM:\s*(\d+) kB")
    if not peak_kb:
        import resource  # where there is no /proc; on Linux it would tell the parent's peak, too

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return int(peak_kb) / 1024


def _found(path: str, pattern: str) -> str:
    try:
        found = re.search(pattern, Path(path).read_text(encoding="utf-8"))
    except OSError:
        return ""
    return found[1].strip() if found else ""
