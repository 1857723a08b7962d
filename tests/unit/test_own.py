"""Which names mean tables of storage."""

from __future__ import annotations

import re

import pytest

from replicator.ehr.queue_mirrored import MIRROR
from replicator.errors import SourceUnready
from replicator.queries import house
from replicator.wal.own import SHOWN, TABLES, is_meant, require_foreign


def test_the_tables_are_those_that_storage_has() -> None:
    schema = (house("sql") / "schema.sql").read_text()
    assert set(re.findall(r"^CREATE (?:UNLOGGED )?TABLE (\w+)", schema, re.MULTILINE)) == TABLES
    assert {MIRROR} == SHOWN


@pytest.mark.parametrize("name", sorted(TABLES - SHOWN))
def test_rules_may_name_none_of_them(name: str) -> None:
    with pytest.raises(SourceUnready, match=f"the rules name replicator.{name}, a table of the storage"):
        require_foreign([("public", "visits"), ("replicator", name)], "replicator")


def test_rules_may_name_what_is_made_for_them_and_whatever_else_is_called_so() -> None:
    require_foreign([("replicator", MIRROR), ("replicator", "visits"), ("public", "ops")], "replicator")
    require_foreign([("public", "visits")], "public")


def test_a_name_that_may_mean_many_means_none_of_them() -> None:
    many = [("replicator", "%"), ("repl%", "ops"), ("public", "%")]
    assert not is_meant(many, "replicator", "ops", "replicator")
    assert not is_meant(many, "replicator", MIRROR, "replicator")
    assert is_meant([*many, ("replicator", MIRROR)], "replicator", MIRROR, "replicator")
    assert is_meant(many, "replicator", "visits", "replicator")
    assert is_meant(many, "public", "ops", "replicator")
