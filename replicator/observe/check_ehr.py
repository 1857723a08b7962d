"""A mapping × the source's columns × the record system's own templates → everything that does not fit.

It only looks: at the source's catalogue, and at templates, which are no health data. What it finds nothing
wrong with can be composed; whether a value satisfies its rule, each row shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import NamedTuple

from replicator.config import Config
from replicator.database import connected
from replicator.ehr.bind import bind, validate
from replicator.ehr.canonical import misfit
from replicator.ehr.client import Answer, Client, Limits, auth_from, trusting
from replicator.ehr.columns import read_catalogue
from replicator.ehr.deliver_plans import NOT_GIVEN, unusable
from replicator.ehr.mapping import load_mapping
from replicator.ehr.model import RecordMapping, TableMapping
from replicator.ehr.retry import Hold
from replicator.ehr.shape import Shape, read_shape
from replicator.ehr.tables import Columns, unread
from replicator.ehr.webtemplate import WebTemplate, read_web_template
from replicator.errors import ConfigError, Unavailable
from replicator.text.nodes import Problem

#: A server that is asked by a person at a terminal.
_ANSWER_S = 30.0


class Mapped(NamedTuple):
    """What a mapping comes to, and what is wrong with it."""

    mapping: RecordMapping
    server: str
    #: Every template the server has, by its id.
    listed: tuple[str, ...]
    templates: Mapping[str, WebTemplate]
    columns: Columns
    problems: tuple[Problem, ...]

    @property
    def exit_code(self) -> int:
        return ConfigError.exit_code if self.problems else 0

    def facts(self) -> dict[str, object]:
        return {
            "mapping": self.mapping.file,
            "server": self.server,
            "fits": not self.problems,
            "problems": [asdict(problem) for problem in self.problems],
            "tables": [self._table(table) for table in self.mapping.tables.values()],
            "server_templates": list(self.listed),
        }

    def _table(self, table: TableMapping) -> dict[str, object]:
        id = table.template.id if table.template else None
        known = self.templates.get(id or "")
        return {
            "mapping": table.name,
            "table": table.table,
            "template": id,
            "hash": known.hash if known else None,
            "columns_not_in_the_record": [*unread(table, self.columns)],
        }

    def text(self) -> str:
        lines = [str(problem) for problem in self.problems]
        if self.problems:
            lines.append(f"{len(self.problems)} to mend before anything can be delivered to {self.server}")
        for table in self.mapping.tables.values():
            lines += self._lines(table)
        lacking = {table.template.id for table in self.mapping.tables.values() if table.template}
        if self.listed and lacking - set(self.listed):
            lines.append(f"the server has these templates: {', '.join(sorted(self.listed))}")
        if not self.problems:
            lines.append(f"{self.mapping.file} fits the source and {self.server}")
        return "\n".join(lines)

    def _lines(self, table: TableMapping) -> list[str]:
        found = self._table(table)
        what = f"{table.name} → {found['template'] or 'the status of the EHR'}"
        lines = [what + (f", hash {found['hash']}" if found["hash"] else "")]
        if unwritten := found["columns_not_in_the_record"]:
            assert isinstance(unwritten, list)
            lines.append(f"    neither written nor ignored: {', '.join(unwritten)}")
        return lines


async def check_ehr(config: Config) -> Mapped:
    """Ask the source and the record system, and compare."""
    if config.ehr.url is None:
        raise ConfigError("no record system is configured", "Set ehr.url to the root of its openEHR API.")
    mapping = load_mapping(config.ehr.mapping_path)
    auth = auth_from({name: secret.get_secret_value() for name, secret in config.ehr.auth.items()})
    async with connected(config.source_dsn, "check") as source:
        columns = (await read_catalogue(source, mapping)).columns
    limits, tls = Limits(answer_s=_ANSWER_S), trusting(config.ehr.ca_file)
    async with Client(config.ehr.url, auth=auth, limits=limits, tls=tls) as client:
        listed = await client.templates()
        if isinstance(listed, Answer):
            raise _refused(config.ehr.url, listed)
        templates = await _templates(client, mapping, config.ehr.url)
        shapes = {id: await _shape(client, id, config.ehr.url) for id in _atomic(mapping) & {*templates}}
    problems = validate(mapping, templates, columns)
    problems = problems or _not_canonical(mapping, templates, shapes)
    return Mapped(mapping, config.ehr.url, listed, templates, columns, tuple(problems))


async def _templates(client: Client, mapping: RecordMapping, url: str) -> dict[str, WebTemplate]:
    """Those of the mapping that the server has."""
    found: dict[str, WebTemplate] = {}
    for id in dict.fromkeys(table.template.id for table in mapping.tables.values() if table.template):
        answer = await client.web_template(id)
        why = unusable(answer)
        if why is None:
            found[id] = read_web_template(answer.body)
        elif not (isinstance(why, Hold) and why.scope == "template"):
            raise _refused(url, answer)
    return found


def _atomic(mapping: RecordMapping) -> set[str]:
    return {table.template.id for table in mapping.tables.values() if table.atomic and table.template}


async def _shape(client: Client, template: str, url: str) -> Shape | None:
    answer = await client.operational_template(template)
    if answer.status == NOT_GIVEN:
        return None
    if not answer.ok:
        raise _refused(url, answer)
    return read_shape(answer.body)


def _not_canonical(
    mapping: RecordMapping, templates: Mapping[str, WebTemplate], shapes: Mapping[str, Shape | None]
) -> list[Problem]:
    """What stands in the way of contributions, which take compositions in no other form."""
    found: list[Problem] = []
    for table in mapping.tables.values():
        if table.template is None or not table.atomic:
            continue
        plan, _ = bind(mapping, table, templates[table.template.id])
        shape = shapes[table.template.id]
        what = misfit(plan, shape) if shape else "the server does not give the template itself"
        if what is not None:
            found.append(Problem(mapping.file, *table.at, f"tables.{table.name}.atomic", what))
    return found


def _refused(url: str, answer: Answer) -> ConfigError | Unavailable:
    if answer.status >= 500:
        return Unavailable(f"{url} answers {answer.summary}", "Try again when it works.")
    return ConfigError(f"{url} answers {answer.summary}", "Check ehr.url and ehr.auth.")
