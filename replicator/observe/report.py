"""Findings → what a DBA reads in a terminal, a script to paste, or facts for a program. No I/O."""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import click

from replicator.wal.finding import Finding, Level
from replicator.wal.mend import LOCK_TIMEOUT

LEVELS: tuple[Level, ...] = ("error", "warning", "note")
_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan", "ok": "green"}
_INDENT = " " * 9
_RESTART = "restart Postgres"
_RELOAD = "pg_reload_conf()"
#: What findings about these mend may need the lock of a table.
_LOCKS = ("table", "publication")


@dataclass(frozen=True, slots=True)
class Group:
    """What was looked at together."""

    name: str
    #: What there is to say when nothing is wrong.
    facts: str
    findings: tuple[Finding, ...]

    @property
    def is_ok(self) -> bool:
        return all(finding.level == "note" for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found, in the order in which to mend it."""

    groups: tuple[Group, ...]
    #: What to end with if there is an error.
    error_code: int = 1

    @property
    def findings(self) -> list[Finding]:
        return [finding for group in self.groups for finding in group.findings]

    @property
    def exit_code(self) -> int:
        return self.error_code if any(finding.level == "error" for finding in self.findings) else 0


def facts_of(report: Report) -> dict[str, object]:
    """For programs."""
    counts = Counter(finding.level for finding in report.findings)
    summary = {f"{level}s": counts[level] for level in LEVELS}
    findings = [asdict(finding) for finding in report.findings]
    return {"ok": report.exit_code == 0, "summary": summary, "findings": findings}


def text_of(report: Report, width: int = 100) -> str:
    """For people: a paragraph for what is right, and one for each thing that is not."""
    lines: list[str] = []
    for group in report.groups:
        if group.is_ok:
            lines += [_head("ok", f"{group.name}: {group.facts}" if group.facts else group.name), ""]
        for alike in _alike(group.findings):
            lines += [*_paragraph(alike, width), ""]
    return "\n".join([*lines, _summary(report)])


def script_of(report: Report) -> str:
    """All the SQL of all findings, in order, with what each is for; what no SQL mends, as comments."""
    blocks = [_block(alike) for alike in _alike(report.findings)]
    text = "\n".join(block for block in blocks if block)
    if any(finding.sql and finding.group in _LOCKS for finding in report.findings):
        text = f"{LOCK_TIMEOUT}  -- rather give up than let the application queue behind us\n\n{text}"
    if _RELOAD in text:
        text += "\nSELECT pg_reload_conf();"
    if _RESTART in text:
        text += f"\n-- Now {_RESTART}, and look again: replicator check"
    return text or "-- nothing to mend"


def _block(alike: Sequence[Finding]) -> str:
    comments = [comment(finding.what) for finding in alike]
    statements = [finding.sql for finding in alike if finding.sql]
    if statements:
        where = ["-- In the database buckets are kept in:"] if alike[0].group == "storage" else []
        return "\n".join([*where, *comments, *statements, ""])
    return "\n".join([*comments, "-- (no SQL mends this)", ""]) if alike[0].level == "error" else ""


def comment(text: str) -> str:
    """A line of SQL that does nothing, whatever is in it: a name may hold a line break."""
    return "-- " + " ".join(text.split())


def _alike(findings: Sequence[Finding]) -> Iterator[list[Finding]]:
    """Findings that say the same of several things, together."""
    for _, alike in itertools.groupby(findings, key=lambda one: (one.level, one.code, one.why)):
        yield list(alike)


def _paragraph(alike: Sequence[Finding], width: int) -> Iterator[str]:
    level = alike[0].level
    for place, finding in enumerate(alike):
        first, *more = textwrap.wrap(finding.what, width - len(_INDENT)) or [""]
        yield _head(level if place == 0 else "", click.style(first, bold=True))
        yield from (_INDENT + click.style(line, bold=True) for line in more)
    for paragraph in alike[0].why.splitlines():
        for line in textwrap.wrap(paragraph, width - len(_INDENT)):
            yield _INDENT + click.style(line, dim=True)
    for line in "\n".join(finding.sql for finding in alike if finding.sql).splitlines():
        yield _INDENT + "  " + line


def _head(level: str, text: str) -> str:
    return click.style(f"{level:<8}", fg=_COLOURS.get(level), bold=True) + " " + text


def _summary(report: Report) -> str:
    counts = Counter(finding.level for finding in report.findings)
    told = [
        f"{counts[level]} {level}{'' if counts[level] == 1 else 's'}" for level in LEVELS if counts[level]
    ]
    if report.exit_code == 0:
        ending = f" ({', '.join(told)})" if told else ""
        return click.style("ok", fg="green", bold=True) + f": this source can be replicated{ending}"
    fixable = any(finding.sql for finding in report.findings)
    script = "; all of the SQL above as one script: replicator check --sql" if fixable else ""
    return click.style("not yet", fg="red", bold=True) + f": {', '.join(told)}{script}"
