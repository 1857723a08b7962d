"""The house stands as drawn: imports point one way, and every file says what it is for."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "replicator"
MODULES = sorted(PACKAGE.rglob("*.py"))

#: What stands under everything and may be imported from anywhere; each may import those before it.
GROUND = (
    "errors",
    "marks",
    "pulse",
    "patience",
    "notify",
    "logs",
    "queries",
    "text",
    "binary_copy",
    "dsn",
    "settings",
    "config",
    "database",
)
#: The nouns, and which other nouns each may import. Data flows left to right, imports right to left.
NOUNS = {
    "wal": set[str](),
    "rules": {"wal"},
    "buckets": {"wal", "rules"},
    "sync": {"wal", "rules", "buckets"},
    "ehr": {"wal", "rules"},
    "observe": {"wal", "rules", "buckets", "sync", "ehr"},
    "demo": {"wal", "rules", "buckets", "sync", "ehr", "observe"},
}
VERBS = {
    "replicate",
    "copying",
    "serve",
    "work",
    "supervise",
    "cli",
    "cli_buckets",
    "cli_deploy",
    "cli_rules",
    "cli_source",
    "cli_status",
    "cli_token",
    "cli_queue",
    "cli_run",
    "files",
    "part",
    "together",
}
#: The demo is a program of its own around the verbs, not a noun they are made of.
MAY_RUN_VERBS = {
    ("demo", "supervise"),
    ("demo", "together"),
    ("__main__", "cli"),
    ("replicate", "copying"),
    ("together", "part"),
    ("cli_run", "cli"),
    ("cli_run", "files"),
    ("cli_run", "part"),
    ("cli_run", "serve"),
    ("cli_run", "supervise"),
    ("cli_run", "together"),
    ("cli_run", "work"),
    ("cli_queue", "cli"),
    ("cli_buckets", "cli"),
    ("cli_rules", "cli"),
    ("cli_deploy", "cli"),
    ("cli_deploy", "cli_rules"),
    ("cli_source", "cli"),
    ("cli_status", "cli"),
    ("cli_token", "cli"),
}
#: What touches the world: files, sockets, clocks, chance.
WORLD = {
    "asyncio",
    "os",
    "socket",
    "select",
    "subprocess",
    "time",
    "random",
    "secrets",
    "uuid",
    "psycopg",
    "psycopg_pool",
    "aiohttp",
    "threading",
}
#: What they have that only rearranges text.
PURE = ("psycopg.conninfo", "psycopg.sql", "psycopg.Error")


def room(path: Path) -> str:
    """The noun or the top-level module a file belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every module a file imports, by its dotted name; also those imported inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are written in full"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_imported(path: Path) -> set[str]:
    known = {room(module) for module in MODULES} - {"__init__"}
    parts = (name.split(".") for name in imports(path))
    return {name[1] for name in parts if name[0] == "replicator" and len(name) > 1 and name[1] in known}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    here = room(path)
    if here in {"__init__", "cli", "supervise"}:
        return  # the map, and the two that put everything together
    for there in rooms_imported(path) - {here}:
        if here in GROUND:
            assert there in GROUND[: GROUND.index(here)], f"{here} must not know {there}"
        elif there in VERBS:
            assert (here, there) in MAY_RUN_VERBS, f"{here} must not import the verb {there}"
        elif here in NOUNS and there in NOUNS:
            assert there in NOUNS[here], f"{here} must not know {there}"


def test_every_room_is_drawn() -> None:
    drawn = set(GROUND) | set(NOUNS) | VERBS | {"__init__", "__main__"}
    assert {room(path) for path in MODULES} <= drawn


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_first_line_says_the_purpose(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text))
    assert text.startswith('"""'), "the first line is the docstring"
    assert docstring and len(docstring.splitlines()[0]) > 20
    assert path.name == "__init__.py" or "→" in docstring.splitlines()[0] or ":" in docstring.splitlines()[0]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_says_no_io_does_none(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    if "No I/O." in docstring.splitlines()[0]:
        named = {name for name in imports(path) if name != "psycopg" and not name.startswith(PURE)}
        touched = {name.split(".")[0] for name in named} & WORLD
        assert not touched, f"says No I/O. but imports {touched}"


def test_the_package_imports_without_what_only_tests_need() -> None:
    code = "import sys, replicator.cli; print(*sorted(m.split('.')[0] for m in sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"pytest", "hypothesis", "testcontainers", "pg8000", "rich"} & set(said.split())
