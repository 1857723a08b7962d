"""How much one worker does at once, and for how long. No I/O: values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """What the configuration decides, and what does not show."""

    #: Lanes at a time, and so requests; of all workers together.
    concurrency: int = 16
    #: Requests a second, of all workers together; None for as many as the server takes.
    rate: float | None = None
    #: Jobs of a lane that are taken together.
    jobs: int = 20
    lease_s: float = 60.0
    #: How long a request may take.
    timeout_s: float = 60.0
    #: How long what is finished is kept.
    keep_s: float = 30 * 86_400.0
    #: How long requests that are under way are given when the worker is to stop.
    stop_s: float = 20.0
