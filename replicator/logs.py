"""Marks → lines on stderr: `stored lsn=16/B374D848 rows=12` on a terminal, JSON where nobody is looking."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

import orjson

#: What is not as it should be catches the eye.
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}


class _Text(logging.Formatter):
    """For a person."""

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        fields = " ".join(f"{key}={_word(value)}" for key, value in _fields(record).items())
        line = f"{at} {record.getMessage()} {fields}".rstrip()
        colour = _COLOURS.get(record.levelname, "") if self._colour else ""
        return f"{colour}{line}\x1b[0m" if colour else line


class _Json(logging.Formatter):
    """For a collector of logs."""

    def format(self, record: logging.LogRecord) -> str:
        head = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        said = head | _fields(record) | head  # first in the line, and no field overrules it
        try:
            return orjson.dumps(said, default=str, option=orjson.OPT_PASSTHROUGH_SUBCLASS).decode()
        except TypeError:  # a number beyond 64 bits, or half a character in the name of a file
            return json.dumps(said, default=str)


def to_stderr(level: int = logging.INFO, *, quiet: bool = False) -> None:
    """Send marks to stderr, as text on a terminal and as JSON elsewhere."""
    out = logging.StreamHandler(sys.stderr)
    terminal = sys.stderr.isatty()
    out.setFormatter(_Text(colour=True) if terminal else _Json())
    log = logging.getLogger("replicator")
    log.handlers[:] = [out]
    log.propagate = False
    log.setLevel(logging.WARNING if quiet else level)


def _word(value: object) -> str:
    """A value on its line: quoted if it holds blanks, or what a terminal would obey."""
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields
