"""Names are written as Postgres itself would write them."""

from __future__ import annotations

import random
import string
from typing import TYPE_CHECKING

from replicator.wal.names import qualify, quote

if TYPE_CHECKING:
    from tests.fixtures.postgres import Database


def test_every_word_with_a_meaning_is_quoted(database: Database) -> None:
    words = database.execute("SELECT word FROM pg_get_keywords() WHERE catcode <> 'U'")
    assert len(words) > 100
    assert [word for (word,) in words if quote(word) == word] == []


def test_ordinary_names_are_quoted_exactly_where_postgres_does(
    database: Database, rng: random.Random
) -> None:
    letters = string.ascii_letters + string.digits + "_$ .\"'\\-äß\n;"
    names = ["".join(rng.choices(letters, k=rng.randint(1, 12))) for _ in range(500)]
    names += ["vital_signs", "_a1", "1a", "user", "Odd Name", 'a"b', "é", "public"]
    found = database.execute("SELECT n, quote_ident(n) FROM unnest(%s::text[]) AS n", [names])
    assert {name: quote(name) for name, _ in found} == dict(found)


def test_a_table_is_called_by_its_schema_and_its_name() -> None:
    assert qualify("clinic", "Odd Name") == 'clinic."Odd Name"'
    assert qualify("public", "vital_signs") == "public.vital_signs"
