"""A named point the program passes → a log line, and a signal to whoever waits for it.

The same names serve the operator's log, the tests that wait (no sleeping), and the tests that make the
program fail exactly there. A mark's fields are keys, positions and counts; never a value of a row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

Listener = Callable[[str, dict[str, object]], None]

log = logging.getLogger("replicator")
#: Who is called at every mark; empty in production. A listener may raise: that is how tests inject faults.
listeners: list[Listener] = []


def mark(name: str, *, level: int = logging.DEBUG, **fields: object) -> None:
    """Say that `name` has been reached, with what identifies it."""
    for listener in tuple(listeners):
        listener(name, fields)
    if log.isEnabledFor(level):
        log.log(level, name, extra={"fields": fields})
