"""A report reads well: what is alike is said once, and a script holds every statement in order."""

from __future__ import annotations

import subprocess
import sys

from replicator.observe.report import Group, Report, comment, facts_of, script_of, text_of
from replicator.observe.units import size, span
from replicator.wal.finding import Finding


def a_finding(name: str, level: str = "error", **changed: str) -> Finding:
    values = {
        "code": "table.key",
        "about": name,
        "what": f"{name} is wrong",
        "why": "why",
        "sql": f"FIX {name};",
    }
    return Finding(level, **values | changed)  # type: ignore[arg-type]  # the levels of this file


def plain(report: Report) -> list[str]:
    import click

    return click.unstyle(text_of(report)).splitlines()


def test_what_is_alike_is_explained_once() -> None:
    report = Report((Group("tables", "", (a_finding("a"), a_finding("b"))),))
    assert plain(report)[:6] == [
        "error    a is wrong",
        "         b is wrong",
        "         why",
        "           FIX a;",
        "           FIX b;",
        "",
    ]
    assert report.exit_code == 1


def test_a_group_without_fault_is_one_line_and_notes_do_not_count() -> None:
    note = a_finding("a", "note", sql="")
    report = Report((Group("server", "all well", ()), Group("tables", "two", (note,))))
    assert plain(report)[0] == "ok       server: all well"
    assert plain(report)[2] == "ok       tables: two"
    assert plain(report)[-1] == "ok: this source can be replicated (1 note)"
    assert report.exit_code == 0


def test_a_script_ends_with_what_settings_need() -> None:
    restart = a_finding("wal_level", sql="ALTER SYSTEM SET wal_level = 'logical'; -- then: restart Postgres")
    reload = a_finding("keep", sql="ALTER SYSTEM SET keep = '1GB'; -- then: SELECT pg_reload_conf();")
    script = script_of(Report((Group("server", "", (restart, reload)),)))
    assert script.splitlines()[-2:] == [
        "SELECT pg_reload_conf();",
        "-- Now restart Postgres, and look again: replicator check",
    ]
    assert script_of(Report((Group("server", "", ()),))) == "-- nothing to mend"


def test_what_no_sql_mends_is_a_comment_in_the_script() -> None:
    script = script_of(Report((Group("tables", "", (a_finding("a\nDROP TABLE b;", sql=""),)),)))
    assert all(line.startswith("--") or not line for line in script.splitlines())
    assert comment("a\nb\r\x0bc") == "-- a b c"


def test_facts_count_by_level() -> None:
    report = Report((Group("tables", "", (a_finding("a"), a_finding("b", "warning"))),), error_code=2)
    facts = facts_of(report)
    assert facts["ok"] is False and facts["summary"] == {"errors": 1, "warnings": 1, "notes": 0}
    assert report.exit_code == 2


def test_sizes_and_spans_are_words() -> None:
    assert [size(n) for n in (0, 1023, 1536, 12 << 10, 5 << 30, 2 << 50)] == [
        "0 bytes",
        "1023 bytes",
        "1.5 kB",
        "12 kB",
        "5.0 GB",
        "2048 TB",
    ]
    assert [span(s) for s in (1, 90, 300, 7200, 100 * 3600, 5 * 86400)] == [
        "1 second",
        "90 seconds",
        "5 minutes",
        "2 hours",
        "4 days",
        "5 days",
    ]


def test_help_of_every_verb_has_an_example() -> None:
    for verb in ("check", "publication plan", "publication apply", "slot list", "slot create", "slot drop"):
        said = subprocess.run(
            [sys.executable, "-m", "replicator", *verb.split(), "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert f"replicator {verb}" in said.partition("Example:")[2], verb
