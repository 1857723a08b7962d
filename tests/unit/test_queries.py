"""SQL is found by name; a name that is not there, or stands there twice, is an error at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator import queries
from replicator.queries import Queries

ROOT = Path(__file__).parents[2]
TEXT = """-- What this file is for.

-- name: take
-- One sentence.
SELECT 'a -- b' ;

-- name:give
DELETE FROM jobs
WHERE id = %(id)s::bigint

"""


def test_blocks_are_found_by_their_names() -> None:
    made = Queries("jobs", TEXT)
    assert made.take == b"-- One sentence.\nSELECT 'a -- b' ;"
    assert made.give == b"DELETE FROM jobs\nWHERE id = %(id)s::bigint"
    assert list(made.blocks) == ["take", "give"]


def test_what_stands_before_the_first_name_belongs_to_none() -> None:
    assert not any(b"What this file is for" in text for text in Queries("jobs", TEXT).blocks.values())


def test_a_misspelt_name_says_which_file_was_meant() -> None:
    with pytest.raises(AttributeError, match=r"sql/jobs\.sql has no block named tkae"):
        _ = Queries("jobs", TEXT).tkae


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sql/jobs\.sql names take twice"):
        Queries("jobs", TEXT + TEXT)


def test_a_file_is_read_once() -> None:
    assert queries.load("buckets") is queries.load("buckets")


def test_rooms_of_the_house_are_found() -> None:
    assert (queries.house("sql") / "schema.sql").is_file()
    assert (queries.house("config") / "rules.yaml").is_file()


# -- What the package asks for ---------------------------------------------------------------------


def asked() -> Iterator[tuple[str, str]]:
    """Every (file, block) that a module names, through whatever it calls the file."""
    for path in (ROOT / "replicator").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        files = {
            target.id: call.args[0].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("queries.load(")
            for target, call in [(node.targets[0], node.value)]
            if isinstance(target, ast.Name) and isinstance(call, ast.Call)
            if isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id in files:
                    yield files[node.value.id], node.attr


def files() -> list[str]:
    """Every file of named blocks, by the name it is loaded by."""
    sql = queries.house("sql")
    paths = [path for path in sql.rglob("*.sql") if path.parent.name != "migrations"]
    return sorted(str(path.relative_to(sql).with_suffix("")) for path in paths)


def test_every_block_is_asked_for_by_somebody_and_every_one_asked_for_is_there() -> None:
    there = {(file, name) for file in files() for name in queries.load(file).blocks}
    wanted = set(asked())
    assert len(wanted) > 50
    assert wanted - there == set()
    # The traffic of the demo's clinic chooses among its statements by chance.
    assert {name for name in there - wanted if name[0] != "clinic"} == set()


def test_no_block_is_empty_and_every_parameter_has_a_name() -> None:
    for file in files():
        for name, text in queries.load(file).blocks.items():
            assert text, f"{file}.{name} is empty"
            # Doubled, it is a percent sign of the statement's own.
            assert b"%s" not in text.replace(b"%%", b""), f"{file}.{name} has a parameter without a name"


def test_every_server_can_read_our_sql() -> None:
    """Whatever the encoding of its database has: an arrow in a comment would be refused."""
    paths = sorted((ROOT / "sql").rglob("*.sql"))
    assert len(paths) > 20
    assert [path.name for path in paths if not path.read_bytes().isascii()] == []
