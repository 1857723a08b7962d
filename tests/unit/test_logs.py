"""A mark is one line: words on a terminal, JSON elsewhere; and no line says what an error has in tow."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.logs import _Json, _Text, to_stderr
from replicator.marks import mark
from replicator.wal.lsn import Lsn

LOG = logging.getLogger("replicator")
SECRET = "Zoë, HIV positive"


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    """The log, given back as it was."""
    before, libraries = (LOG.handlers[:], LOG.propagate, LOG.level), logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = libraries
    LOG.handlers[:], LOG.propagate = before[0], before[1]
    LOG.setLevel(before[2])


def record(event: str, of: int = logging.INFO, /, **fields: object) -> logging.LogRecord:
    made = LOG.makeRecord("replicator", of, "marks.py", 1, event, (), None, extra={"fields": fields})
    made.created = 1_800_000_000.25
    return made


# -- As JSON ---------------------------------------------------------------------------------------


def test_json_says_when_how_serious_and_what_before_anything_else() -> None:
    line = _Json().format(record("stored", lsn=Lsn.parse("16/B374D848"), rows=12))
    assert line == (
        '{"time":"2027-01-15T08:00:00.250+00:00","level":"info","event":"stored",'
        '"lsn":"16/B374D848","rows":12}'
    )


def test_no_field_can_pass_itself_off_as_the_event() -> None:
    line = _Json().format(record("waiting", logging.WARNING, event="stored", level="debug", time="never"))
    said = json.loads(line)
    assert (said["event"], said["level"], said["time"][:4]) == ("waiting", "warning", "2027")


@pytest.mark.parametrize("value", [2**80, "\ud800", float("nan"), {1: 2}, {"a": {2**80}}])
def test_whatever_a_field_is_the_line_is_json(value: object) -> None:
    line = _Json().format(record("odd", value=value))
    assert "\n" not in line and json.loads(line)["event"] == "odd"


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.none() | st.booleans() | st.integers()))
def test_a_line_is_one_line_and_keeps_its_fields(fields: dict[str, Any]) -> None:
    line = _Json().format(record("odd", **fields))
    assert "\n" not in line and "\r" not in line
    said = json.loads(line)
    assert all(said[key] == value for key, value in fields.items() if key not in ("time", "level", "event"))


# -- As text ---------------------------------------------------------------------------------------


def test_text_is_the_event_and_its_fields() -> None:
    line = _Text(colour=False).format(record("stored", lsn=Lsn.parse("16/B374D848"), rows=12))
    assert line[8:] == " stored lsn=16/B374D848 rows=12"


def test_what_has_blanks_or_would_move_the_cursor_is_quoted() -> None:
    line = _Text(colour=False).format(record("waiting", why="it is away", name="\x1b[2J", line="a\nb"))
    assert line[8:] == r" waiting why='it is away' name='\x1b[2J' line='a\nb'"


@pytest.mark.parametrize(("level", "begins"), [(logging.WARNING, "\x1b[33m"), (logging.ERROR, "\x1b[31m")])
def test_what_is_not_as_it_should_be_has_a_colour_on_a_terminal_only(level: int, begins: str) -> None:
    coloured = _Text(colour=True).format(record("waiting", level))
    assert coloured.startswith(begins) and coloured.endswith("\x1b[0m")
    assert "\x1b" not in _Text(colour=False).format(record("waiting", level))
    assert "\x1b" not in _Text(colour=True).format(record("stored"))


# -- Where they go ---------------------------------------------------------------------------------


def said(monkeypatch: pytest.MonkeyPatch, **options: Any) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    to_stderr(**options)
    return out


def test_elsewhere_than_on_a_terminal_lines_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    out = said(monkeypatch)
    mark("stored", level=logging.INFO, rows=12)
    assert json.loads(out.getvalue())["rows"] == 12


def test_on_a_terminal_they_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with open(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        to_stderr()
        mark("stored", level=logging.INFO, rows=12)
        # A terminal may hand out what was written in one go in pieces.
        told = b""
        while not told.endswith(b"\n"):
            told += os.read(ours, 1000)
        assert told.decode()[8:] == " stored rows=12\r\n"
    os.close(ours)


def test_what_is_said_every_moment_is_kept_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    out = said(monkeypatch)
    mark("stored", rows=12)
    assert not out.getvalue()


def test_quiet_says_only_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    out = said(monkeypatch, quiet=True)
    mark("copying", level=logging.INFO)
    mark("waiting", level=logging.WARNING)
    assert json.loads(out.getvalue())["event"] == "waiting"


def test_a_library_is_named_and_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    out = said(monkeypatch)
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("some.library").exception("refused: %s", SECRET)
    line = json.loads(out.getvalue())
    assert (line["event"], line["level"], line["library"]) == ("library", "error", "some.library")
    assert line["why"].startswith("ValueError in test_logs.py:") and SECRET not in out.getvalue()


def test_what_a_library_has_to_say_about_no_fault_is_for_debugging(monkeypatch: pytest.MonkeyPatch) -> None:
    out = said(monkeypatch)
    logging.getLogger("other.library").warning("could not reach %s", SECRET)
    assert not out.getvalue()
    LOG.setLevel(logging.DEBUG)
    logging.getLogger("other.library").warning("could not reach %s", SECRET)
    line = json.loads(out.getvalue())
    assert (line["library"], line["level"]) == ("other.library", "debug") and SECRET not in out.getvalue()


def test_said_twice_a_line_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = said(monkeypatch), said(monkeypatch)
    mark("copying", level=logging.INFO)
    assert not first.getvalue() and len(second.getvalue().splitlines()) == 1


def test_nothing_goes_to_the_log_of_the_program_around(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = io.StringIO()
    around = logging.StreamHandler(theirs)
    logging.getLogger().addHandler(around)
    try:
        said(monkeypatch)
        mark("waiting", level=logging.WARNING)
    finally:
        logging.getLogger().removeHandler(around)
    assert not theirs.getvalue()


# -- What they never say ---------------------------------------------------------------------------


@pytest.mark.parametrize("formatter", [_Json(), _Text(colour=True), _Text(colour=False)])
def test_an_exception_logged_by_mistake_leaves_its_words_out(formatter: logging.Formatter) -> None:
    """A driver's message can quote the row; a line has the event and its fields, and nothing else."""
    try:
        raise ValueError(SECRET)
    except ValueError:
        made = LOG.makeRecord("replicator", logging.ERROR, "x.py", 1, "failed", (), sys.exc_info())
    made.stack_info = SECRET
    line = formatter.format(made)
    assert "failed" in line and SECRET not in line and "Zo" not in line


@pytest.mark.parametrize("is_journal", [True, False])
def test_the_journal_is_told_the_level_of_each_line(tmp_path: Path, is_journal: bool) -> None:
    lines = tmp_path / "lines"
    with lines.open("wb") as out:
        stat = os.fstat(out.fileno())
        stream = f"{stat.st_dev}:{stat.st_ino if is_journal else 0}"
        code = (
            "import logging; from replicator import logs; from replicator.marks import mark; logs.to_stderr()"
        )
        code += "; mark('stored', level=logging.INFO, rows=1); mark('lost', level=logging.ERROR)"
        environ = {**os.environ, "JOURNAL_STREAM": stream}
        subprocess.run([sys.executable, "-c", code], stderr=out, env=environ, check=True)
    begun = [line.partition("{")[0] for line in lines.read_text().splitlines()]
    assert begun == (["<6>", "<3>"] if is_journal else ["", ""])
