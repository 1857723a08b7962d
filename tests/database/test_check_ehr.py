"""`replicator check --ehr` compares a mapping with the source and the record system, and says what is off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from replicator.cli import main
from replicator.ehr.sandbox.opt import web_template_of
from replicator.ehr.sandbox.server import Sandbox
from tests.database.queued import MAPPING, OPT, sandbox_with_template, write_config
from tests.fixtures.postgres import Database

#: Of the test clinic's tables, those that one template of the sandbox fits.
FITTING = MAPPING[: MAPPING.index("  merging:")]
READING = "rate: {column: rate, unit: /min}"


@pytest.fixture
async def sandbox(database: Database) -> AsyncIterator[Sandbox]:
    for table in ("users", "readings"):
        database.execute(
            f"CREATE TABLE {table} "
            "(id text PRIMARY KEY, patient_id text, rate integer, at timestamptz, active boolean, born date)"
        )
    async with sandbox_with_template(database.owner_dsn) as sandbox:
        yield sandbox


class Asked:
    """The verb, for a mapping of this text."""

    def __init__(self, folder: Path, database: Database, url: str) -> None:
        self.config = write_config(folder, database, url)
        self.mapping = folder / "ehr.yaml"

    async def __call__(self, mapping: str, *argv: str) -> Result:
        self.mapping.write_text(mapping)
        given = ["check", "--ehr", *argv, "--config", str(self.config)]
        return await asyncio.to_thread(CliRunner().invoke, main, given)


@pytest.fixture
def asked(tmp_path: Path, database: Database, sandbox: Sandbox) -> Asked:
    return Asked(tmp_path, database, sandbox.url)


async def test_what_fits_is_said_to_with_the_hash_of_each_template(asked: Asked) -> None:
    result = await asked(FITTING, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = orjson.loads(result.stdout)
    assert (found["fits"], found["problems"]) == (True, [])
    readings = next(table for table in found["tables"] if table["mapping"] == "readings")
    assert readings["template"] == "replicator.pulse.v1" and len(readings["hash"]) == 64
    assert readings["columns_not_in_the_record"] == ["active", "born"]
    shown = (await asked(FITTING)).stdout
    assert f"hash {readings['hash']}" in shown and "fits the source" in shown
    again = FITTING.replace(
        "template: replicator.pulse.v1",
        f"template: {{id: replicator.pulse.v1, hash: {readings['hash'][:16]}}}",
    )
    assert (await asked(again)).exit_code == 0


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        (READING, "rat: {column: rate, unit: /min}", "no such path in the template, did you mean"),
        (READING, "rate: {column: rat, unit: /min}", "no such column, did you mean rate?"),
        (READING, "rate: {column: rate, unit: mg}", "the template does not know this unit: it takes /min"),
        (READING, "rate: {column: born, unit: /min}", "this column's type cannot be read as a DV_QUANTITY"),
        ("template: replicator.pulse.v1", "template: replicator.puls.v1", "the server has no template of"),
        (
            "template: replicator.pulse.v1",
            "template: {id: replicator.pulse.v1, hash: abcdef0123456789}",
            "another version of this template",
        ),
        ("  readings:", "  reading:", "the source has no such table"),
        ("    patient: patient_id", "    patient: patient", "no such column, did you mean patient_id?"),
    ],
)  # fmt: skip
async def test_what_does_not_fit_is_told_at_its_place(
    asked: Asked, written: str, instead: str, said: str
) -> None:
    mapping = FITTING.replace(written, instead)
    assert mapping != FITTING
    result = await asked(mapping, "--json")
    assert result.exit_code == 2, result.output
    found = orjson.loads(result.stdout)
    (problem,) = found["problems"]
    assert said in problem["what"], problem
    line = mapping.splitlines()[problem["line"] - 1]
    assert instead.strip() in line and problem["column"] > 1
    shown = (await asked(mapping)).stdout
    assert f"{asked.mapping}:{problem['line']}:{problem['column']}: {problem['key']}: " in shown


async def test_what_contributions_need_of_a_template_is_asked_for_where_a_mapping_is_atomic(
    asked: Asked, sandbox: Sandbox
) -> None:
    result = await asked(FITTING.replace("ctx:", "atomic: true\nctx:", 1))
    assert result.exit_code == 0, result.output
    await sandbox.add_templates([{**web_template_of(OPT), "templateId": "replicator.other.v1"}])
    other = MAPPING[MAPPING.index("  other:") :].replace("key: id", "table: readings\n    key: id")
    assert (await asked(FITTING + other)).exit_code == 0
    result = await asked(FITTING + other + "    atomic: true\n", "--json")
    assert result.exit_code == 2
    (problem,) = orjson.loads(result.stdout)["problems"]
    assert problem["key"] == "tables.other.atomic" and "the template itself" in problem["what"]


async def test_a_mapping_that_cannot_be_read_is_told_by_the_same_facts(asked: Asked) -> None:
    result = await asked(FITTING.replace("patient: id", "patien: id"), "--json")
    assert result.exit_code == 2
    found = orjson.loads(result.stdout)
    assert found["fits"] is False
    assert "did you mean patient?" in str(found["problems"])


async def test_a_server_that_is_not_there_or_lets_nobody_in_is_one_error(
    asked: Asked, database: Database, tmp_path: Path
) -> None:
    async with Sandbox(database.owner_dsn, credentials=("worker", "secret")) as closed:
        asked.config = write_config(tmp_path, database, closed.url)
        result = await asked(FITTING)
        assert (result.exit_code, "Check ehr.url and ehr.auth" in result.stderr) == (2, True)
    asked.config = write_config(tmp_path, database, "http://127.0.0.1:1/")
    result = await asked(FITTING)
    assert (result.exit_code, "nobody listens there" in result.stderr) == (1, True)
