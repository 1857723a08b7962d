"""A rules file, and perhaps the source it is for → everything that is wrong with it, or may not be meant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from replicator.config import Config
from replicator.database import connected
from replicator.observe.rules.tables import Seen, see
from replicator.observe.rules.worst import warning_of, worst
from replicator.observe.survey import be_harmless
from replicator.rules.model import Rules, Warned
from replicator.rules.parse import load_rules
from replicator.text.counted import counted
from replicator.text.nodes import Problem, Problems
from replicator.wal import own
from replicator.wal.names import quote


@dataclass(frozen=True, slots=True)
class Validated:
    """What became of one file."""

    file: str
    rules: Rules | None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Warned, ...] = ()
    #: What the source has of the tables; None if nobody looked.
    seen: Seen | None = None
    publication: str = ""
    #: That one user may come to more buckets than are served, and by what.
    too_many: str | None = None

    @property
    def missing(self) -> int:
        """How many things the source lacks without which there is nothing to replicate."""
        named = sum(warned.is_missing for warned in self.warnings)
        seen = self.seen
        if seen is None:
            return named
        untold = [name for name in self.untold if not name.endswith("%")]
        return named + len(untold) + len(seen.others) + len(seen.unpublished)

    @property
    def untold(self) -> list[str]:
        """The tables that are not there, and have not been told where they are named, as most are."""
        missing = self.seen.missing if self.seen else ()
        return [name for name in missing if not any(f"no table {name}" in w.what for w in self.warnings)]

    @property
    def exit_code(self) -> int:
        return 2 if self.problems else 1 if self.missing else 0


async def validate(path: Path, config: Config | None) -> Validated:
    """Read the rules; with a configuration, again with what its source says of the tables they name."""
    try:
        rules = load_rules(path)
        if config is None:
            return Validated(str(path), rules, (), _warnings(rules))
        name = config.source.publication
        async with connected(config.source_dsn, "rules validate") as source, source.transaction():
            await be_harmless(source)
            seen = await see(source, rules, name, config.storage.schema_name)
            too_many = warning_of(await worst(source, rules, seen), config.sync.max_buckets)
        rules = load_rules(path, seen.known)
    except Problems as refused:
        return Validated(str(path), None, refused.problems)
    return Validated(str(path), rules, (), _warnings(rules), seen, name, too_many)


def _warnings(rules: Rules) -> tuple[Warned, ...]:
    """Everything to think about, in the order of the file."""
    return tuple(sorted((*rules.warnings, *rules.for_everybody), key=lambda one: (one.line, one.column)))


def text_of(validated: Validated) -> str:
    """A line for everything there is to say, and one for the whole."""
    lines = [str(problem) for problem in validated.problems]
    for warned in validated.warnings:
        place = f"{warned.file}:{warned.line}:{warned.column}"
        lines.append(f"{place}: {'missing' if warned.is_missing else 'warning'}: {warned.key}: {warned.what}")
    return "\n".join([*lines, *_of_source(validated), f"{validated.file}: {_summary(validated)}"])


def facts_of(validated: Validated) -> dict[str, object]:
    """For programs."""
    seen = validated.seen
    looked = seen and {
        "publication": validated.publication,
        "missing": seen.missing,
        "unpublished": seen.unpublished,
        "not_tables": [name for name, _ in seen.others],
        "too_many_buckets": validated.too_many,
    }
    return {
        "file": validated.file,
        "ok": validated.exit_code == 0,
        "problems": [asdict(problem) for problem in validated.problems],
        "warnings": [asdict(warned) for warned in validated.warnings],
        "source": looked,
        **(_counts(validated.rules) if validated.rules else {}),
    }


def _of_source(validated: Validated) -> Iterator[str]:
    if validated.seen is None:
        return
    yield from (f"source: no table {name}" for name in validated.untold)
    for name, kind in validated.seen.others:
        why = own.WHY if kind == own.KIND else "only the changes of tables are in the log"
        yield f"source: {name} is {kind}: {why}"
    if validated.too_many:
        yield f"source: warning: {validated.too_many}"
    name = quote(validated.publication)
    for table in validated.seen.unpublished:
        yield f"source: {table} is not in publication {name}; see: replicator publication plan"


def _counts(rules: Rules) -> dict[str, int]:
    return {
        "definitions": len(rules.definitions),
        "tables": len(rules.tables()),
        "lookups": len(rules.lookups),
    }


def _summary(validated: Validated) -> str:
    if validated.rules is None:
        return counted(len(validated.problems), "problem")
    counts = [counted(count, what.removesuffix("s")) for what, count in _counts(validated.rules).items()]
    if validated.missing:
        counts.append(f"{validated.missing} missing")
    if warnings := sum(not warned.is_missing for warned in validated.warnings):
        counts.append(counted(warnings, "warning"))
    return ", ".join(counts)
