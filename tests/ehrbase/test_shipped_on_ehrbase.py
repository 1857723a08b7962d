"""config/ehr.yaml fits the templates of it that others publish, and its rows are delivered to an EHRbase."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from uuid import uuid4

import orjson
import pytest
import yaml
from click.testing import CliRunner

from replicator.cli import main
from replicator.database import migrate
from replicator.ehr.client import Client
from tests.ehrbase.records import Place
from tests.ehrbase.test_worker_on_both import configured, deliver
from tests.fixtures.ehrbase import Absent, templates
from tests.fixtures.postgres import Database
from tests.unit.ehr.clinic_columns import COLUMNS
from tests.unit.ehr.forms import CONFIG

#: The first of these tests waits until the server is fetched and runs.
pytestmark = [pytest.mark.ehrbase, pytest.mark.timeout(600)]
#: Mapping → its template's file, a row of its table, and what of that the record says.
PUBLISHED = {
    "immunizations": (
        "IDCR - Immunisation summary.v0.opt",
        {
            "vaccine_name": "BCG",
            "vaccine_code": "19",
            "dose_number": "1",
            "administration_date": "2026-01-02",
        },
        ("BCG", "19"),
    ),
    "problems": (
        "IDCR - Problem List.v1.opt",
        {
            "record_type": "diagnosis",
            "title": "Malaria",
            "description": "since the journey",
            "diagnosis_codes": "{B54,1F4Z}",
            "encounter_date": "2026-01-02 03:04:05+00",
        },
        ("Malaria", "since the journey", "B54", "1F4Z"),
    ),
}


@pytest.fixture
def place(ehrbase: Place) -> Place:
    return ehrbase


def shipped() -> str:
    """The mapping with no other tables than these; JSON is YAML."""
    said = yaml.safe_load((CONFIG / "ehr.yaml").read_text())
    return json.dumps({**said, "tables": {name: said["tables"][name] for name in PUBLISHED}})


def written(database: Database, table: str, row: dict[str, str]) -> None:
    """A table of the clinic, with a row."""
    types = {
        name: database.execute("SELECT format_type(%s, NULL)", [oid]) for name, oid in COLUMNS[table].items()
    }
    columns = ", ".join(f"{name} {found}" for name, ((found,),) in types.items())
    database.execute(f"CREATE TABLE {table} ({columns}, PRIMARY KEY (id))")
    values = {"id": str(uuid4()), "patient_id": str(uuid4()), **row}
    places = ", ".join(["%s"] * len(values))
    database.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", list(values.values()))


async def test_the_shipped_mapping_fits_published_templates_and_its_rows_are_delivered(
    place: Place, client: Client, database: Database, tmp_path: Path
) -> None:
    try:
        folder = await asyncio.to_thread(templates, os.environ)
    except Absent as reason:
        pytest.skip(f"no templates: {reason}")
    for name, (file, row, _) in PUBLISHED.items():
        uploaded = await client.upload_template((folder / file).read_bytes())
        assert uploaded.status in (201, 409), uploaded.summary
        written(database, "public.medical_records" if name == "problems" else f"public.{name}", row)
    await migrate(database.dsn, "replicator")
    config = configured(tmp_path, database, place, shipped())

    async def told(*argv: str) -> dict[str, object]:
        full = [*argv, "--config", str(tmp_path / "replicator.yaml"), "--json"]
        result = await asyncio.to_thread(CliRunner().invoke, main, full)
        assert result.exit_code == 0, result.output
        found: dict[str, object] = orjson.loads(result.stdout)
        return found

    assert (await told("check", "--ehr"))["fits"] is True
    assert (await told("queue", "rebuild", "--why", "to see it", "--yes"))["rows"] == len(PUBLISHED)
    await deliver(config, database)
    delivered = database.execute(
        "SELECT mapping, state, ehr_id::text, composition_id::text FROM replicator.ehr_sync_queue"
    )
    assert sorted(mapping for mapping, *_ in delivered) == sorted(PUBLISHED)
    for mapping, state, ehr, composition in delivered:
        assert state == "done"
        read = json.dumps((await client.composition(ehr, composition)).body)
        assert all(f'"{said}"' in read for said in PUBLISHED[mapping][2]), mapping
