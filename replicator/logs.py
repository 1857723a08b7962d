"""Marks → lines on stderr: `stored lsn=16/B374D848 rows=12` on a terminal, JSON where nobody is looking."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import TextIO

import orjson

from replicator.errors import place_of

#: What is not as it should be catches the eye.
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}

#: What the journal calls the levels.
_PRIORITIES = {"DEBUG": "<7>", "INFO": "<6>", "WARNING": "<4>", "ERROR": "<3>", "CRITICAL": "<2>"}


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
    """For a collector of logs; the journal takes a level from the line's beginning, and leaves that out."""

    def __init__(self, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        return (_PRIORITIES.get(record.levelname, "") if self._journal else "") + self._line(record)

    def _line(self, record: logging.LogRecord) -> str:
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


class _Libraries(logging.Handler):
    """What the libraries have to say → a line of ours: who, and where. Their words may be a row's.

    They repeat, at length, what we say ourselves when a server is away; that is for debugging. A fault that
    nobody foresaw is not.
    """

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        why = f"{record.filename}:{record.lineno}" if error is None else place_of(error)
        level = logging.DEBUG if error is None else logging.ERROR
        fields = {"library": record.name, "why": why}
        logging.getLogger("replicator").log(level, "library", extra={"fields": fields})


def to_stderr(level: int = logging.INFO, *, quiet: bool = False) -> None:
    """Send marks to stderr, as text on a terminal and as JSON elsewhere."""
    out = logging.StreamHandler(sys.stderr)
    terminal = sys.stderr.isatty()
    out.setFormatter(_Text(colour=True) if terminal else _Json(_is_journal(sys.stderr)))
    log = logging.getLogger("replicator")
    log.handlers[:] = [out]
    log.propagate = False
    log.setLevel(logging.WARNING if quiet else level)
    everybody = logging.getLogger()
    if not any(isinstance(handler, _Libraries) for handler in everybody.handlers):
        everybody.addHandler(_Libraries())


def _is_journal(out: TextIO) -> bool:
    """Whether what is written there goes to systemd's journal, which says so in a variable."""
    try:
        stat = os.fstat(out.fileno())
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


def set_level(name: str) -> None:
    """From here on, marks of this level and above: `info`."""
    logging.getLogger("replicator").setLevel(name.upper())


def _word(value: object) -> str:
    """A value on its line: quoted if it holds blanks, or what a terminal would obey."""
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields
