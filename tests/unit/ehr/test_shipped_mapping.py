"""config/ehr.yaml, with the clinic's columns and web templates that follow the documented ones."""

from __future__ import annotations

import re

import pytest

from replicator.ehr.bind import validate
from replicator.ehr.compose import Flat, Stamp, compose
from replicator.ehr.identity import ChangeId
from replicator.ehr.mapping import load_mapping
from replicator.ehr.model import Row
from replicator.ehr.tables import unread
from replicator.wal.lsn import Lsn
from tests.unit.ehr.clinic_columns import COLUMNS
from tests.unit.ehr.forms import CONFIG, formulas, plan_of, templates

SHIPPED = load_mapping(CONFIG / "ehr.yaml")
STAMP = Stamp("k1", ChangeId(Lsn.parse("16/B374D848"), 3))
ABOUT = ("category", "language", "territory", "composer", "context", "_feeder_audit")


def content(name: str, row: Row) -> Flat:
    """What a row comes to, without what is said of every composition, and from the root on."""
    plan = plan_of(SHIPPED, name)
    whole = {column: None for column in COLUMNS[plan.table.table]} | dict(row)
    flat = compose(plan, whole, STAMP, formulas=formulas(plan, **COLUMNS[plan.table.table]))
    root = f"{plan.template.root}/"
    assert all(path.startswith(root) for path in flat)
    return {
        path.removeprefix(root): value
        for path, value in flat.items()
        if not path.removeprefix(root).startswith(ABOUT)
        and "/language|" not in path
        and "/encoding|" not in path
    }


def test_it_fits_the_tables_and_the_templates() -> None:
    assert validate(SHIPPED, templates(), COLUMNS) == []


@pytest.mark.parametrize("name", [name for name, table in SHIPPED.tables.items() if table.status is None])
def test_every_column_is_written_or_ignored_by_name(name: str) -> None:
    assert unread(SHIPPED.tables[name], COLUMNS) == []


def test_vital_signs() -> None:
    row = {
        "recorded_at": "2026-01-02 03:04:05.5+01",
        "blood_pressure_systolic": "120",
        "blood_pressure_diastolic": "80",
        "temperature_celsius": "37.2",
        "oxygen_saturation": "98",
        "notes": "at rest",
    }
    time = "2026-01-02T03:04:05.500+01:00"
    assert content("vital_signs", row) == {
        "vital_signs/blood_pressure/systolic|magnitude": 120.0,
        "vital_signs/blood_pressure/systolic|unit": "mm[Hg]",
        "vital_signs/blood_pressure/diastolic|magnitude": 80.0,
        "vital_signs/blood_pressure/diastolic|unit": "mm[Hg]",
        "vital_signs/body_temperature/temperature|magnitude": 37.2,
        "vital_signs/body_temperature/temperature|unit": "°C",
        "vital_signs/indirect_oximetry/spo2|numerator": 98.0,
        "vital_signs/indirect_oximetry/spo2|denominator": 100.0,
        "vital_signs/clinical_synopsis/synopsis": "at rest",
        "vital_signs/blood_pressure/time": time,
        "vital_signs/body_temperature/time": time,
        "vital_signs/indirect_oximetry/time": time,
    }


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ("4.9", "mmol/L", {"quantity_value|magnitude": 4.9, "quantity_value|unit": "mmol/L"}),
        ("4.9", None, {"quantity_value|magnitude": 4.9, "quantity_value|unit": "1"}),
        ("positive", None, {"text_value": "positive"}),
        ("<0.5", "mg/L", {"text_value": "<0.5"}),
    ],
)
def test_lab_results_are_numbers_or_words(value: str, unit: str | None, expected: Flat) -> None:
    row = {
        "test_name": "Potassium",
        "test_code": "2823-3",
        "result_value": value,
        "unit": unit,
        "result_date": "2026-01-02 03:04:05+00",
    }
    event = "laboratory_test_result/any_event:0"
    analyte = f"{event}/laboratory_analyte_result:0"
    assert content("lab_results", row) == {
        f"{event}/test_name": "Potassium",
        f"{event}/test_name/_mapping:0|match": "=",
        f"{event}/test_name/_mapping:0/target|code": "2823-3",
        f"{event}/test_name/_mapping:0/target|terminology": "LOINC",
        f"{analyte}/analyte_name": "Potassium",
        **{f"{analyte}/analyte_result:0/{path}": found for path, found in expected.items()},
        f"{event}/time": "2026-01-02T03:04:05+00:00",
    }


def test_prescriptions() -> None:
    row = {
        "medication_name": "Amoxicillin",
        "dosage": "500 mg",
        "frequency": "three times a day",
        "created_at": "2026-01-02 03:04:05+00",
    }
    assert content("prescriptions", row) == {
        "medication_order/order:0/medication_item": "Amoxicillin",
        "medication_order/order:0/timing": "three times a day",
        "medication_order/order:0/timing|formalism": "text/plain",
        "medication_order/order:0/action_archetype_id": "/.*/",
        "medication_order/narrative": "Amoxicillin 500 mg, three times a day",
    }


def test_immunisations() -> None:
    row = {
        "vaccine_name": "BCG",
        "vaccine_code": "19",
        "dose_number": "1",
        "administration_date": "2026-01-02",
    }
    given = "immunisation_procedure:0"
    assert content("immunizations", row) == {
        f"{given}/immunisation_name": "BCG",
        f"{given}/immunisation_name/_mapping:0|match": "=",
        f"{given}/immunisation_name/_mapping:0/target|code": "19",
        f"{given}/immunisation_name/_mapping:0/target|terminology": "CVX",
        f"{given}/series_number": 1,
        f"{given}/ism_transition/careflow_step|code": "at0006",
        f"{given}/ism_transition/careflow_step|value": "Immunisation administered",
        f"{given}/ism_transition/careflow_step|terminology": "local",
        f"{given}/ism_transition/current_state|code": "245",
        f"{given}/ism_transition/current_state|value": "active",
        f"{given}/ism_transition/current_state|terminology": "openehr",
        f"{given}/time": "2026-01-02T00:00:00+00:00",
    }


def test_problems() -> None:
    row = {"title": "Malaria", "diagnosis_codes": "{B54,1F4Z}", "created_at": "2026-01-02 03:04:05+00"}
    name = "problems_and_issues:0/problem_diagnosis:0/problem_diagnosis_name"
    assert content("problems", row) == {
        name: "Malaria",
        f"{name}/_mapping:0|match": "=",
        f"{name}/_mapping:0/target|code": "B54",
        f"{name}/_mapping:0/target|terminology": "ICD-10",
        f"{name}/_mapping:1|match": "=",
        f"{name}/_mapping:1/target|code": "1F4Z",
        f"{name}/_mapping:1/target|terminology": "ICD-10",
    }


def test_notes() -> None:
    row = {"title": "Visit", "description": "well", "encounter_date": "2026-01-02 03:04:05+00"}
    assert content("notes", row) == {"clinical_synopsis:0/notes": "Visit: well"}


def test_the_demos_mapping_fits_the_demos_tables() -> None:
    demo = load_mapping(CONFIG / "ehr" / "clinic.yaml")
    assert validate(demo, templates(), clinic_tables()) == []
    assert {
        name: unread(table, clinic_tables()) for name, table in demo.tables.items() if table.template
    } == {
        "vital_signs": [],
        "lab_results": [],
        "immunizations": [],
    }


def clinic_tables() -> dict[str, dict[str, int]]:
    """The columns in sql/clinic.sql. Their types are not looked at: 0 is none that is known."""
    text = (CONFIG.parent / "sql" / "clinic.sql").read_text()
    tables = re.findall(r"CREATE TABLE (\w+) \((.*?)\n\);", text, re.DOTALL)
    assert len(tables) == 7
    return {
        f"public.{name}": dict.fromkeys(re.findall(r"^    (\w+) ", body, re.M), 0) for name, body in tables
    }


def test_demographics_are_no_composition() -> None:
    assert SHIPPED.tables["users"].status is not None
    assert SHIPPED.tables["users"].template is None
