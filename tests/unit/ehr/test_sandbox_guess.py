"""The templates that a sandbox makes of a mapping fit that mapping, and every row that it can compose."""

from __future__ import annotations

import pytest

from replicator.ehr.bind import validate
from replicator.ehr.mapping import load_mapping
from replicator.ehr.sandbox.guess import guessed
from replicator.ehr.webtemplate import read_web_template
from tests.unit.ehr.clinic_columns import COLUMNS
from tests.unit.ehr.forms import CONFIG

DEMO = {
    "public.users": dict.fromkeys(("id",), 2950),
    "public.vital_signs": COLUMNS["public.vital_signs"],
    "public.lab_results": COLUMNS["public.lab_results"],
    "public.immunizations": COLUMNS["public.immunizations"],
}


@pytest.mark.parametrize(("file", "columns"), [("ehr.yaml", COLUMNS), ("ehr/clinic.yaml", DEMO)])
def test_what_is_guessed_fits_the_mapping(file: str, columns: dict[str, dict[str, int]]) -> None:
    mapping = load_mapping(CONFIG / file)
    made = [read_web_template(each) for each in guessed(mapping, columns)]
    assert {each.id for each in made} == {
        table.template.id for table in mapping.tables.values() if table.template
    }
    assert validate(mapping, {each.id: each for each in made}, columns) == []
    assert all("sandbox" in str(each["concept"]) for each in guessed(mapping, columns))
