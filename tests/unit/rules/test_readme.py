"""The README's rules → read as they stand there: what people copy has to work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from replicator.rules.parse import parse_rules

_README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
_FILES = [
    block
    for block in re.findall(r"^```yaml\n(.*?)^```", _README, re.DOTALL | re.MULTILINE)
    if "bucket_definitions:" in block or "streams:" in block
]


@pytest.mark.parametrize("text", _FILES, ids=range(len(_FILES)))
def test_rules_in_the_readme_are_understood_without_a_doubt(text: str) -> None:
    rules = parse_rules(text, "README.md")
    assert rules.definitions and not rules.warnings


def test_there_are_rules_in_the_readme() -> None:
    assert len(_FILES) >= 2
