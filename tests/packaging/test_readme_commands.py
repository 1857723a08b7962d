"""What the README says of commands, errors and versions is so: people copy it, and look things up in it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from itertools import product
from pathlib import Path

import click
import pytest

import replicator.errors
from replicator.cli import main
from replicator.errors import ReplicatorError
from replicator.observe.check_server import VERSIONS
from replicator.observe.status import judge
from tests.packaging.readme import README, ROOT, Block, blocks, commands, rows, spans, statements

_BLOCKS = blocks("sh")


def resolved(words: list[str]) -> tuple[click.Command, list[str]]:
    """The verb, and what follows it."""
    command: click.Command = main
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.commands.get(name := rest.pop(0))
        assert found is not None, f"there is no verb {name}: {' '.join(words)}"
        command = found
    return command, rest


@pytest.mark.parametrize("block", _BLOCKS, ids=[f"{n}-{one.heading}" for n, one in enumerate(_BLOCKS)])
def test_a_shell_reads_each_block_and_each_verb_takes_its_words(block: Block) -> None:
    subprocess.run(["sh", "-n"], input=block.text, text=True, check=True)
    for statement in statements(block.text):
        for program, *words in commands(statement):
            if program == "replicator":
                command, rest = resolved(words)
                assert not isinstance(command, click.Group), statement
                command.make_context(command.name, rest)  # which refuses what it does not know


def test_the_blocks_are_those_of_a_whole_page() -> None:
    programs = [words[0] for block in _BLOCKS for one in statements(block.text) for words in commands(one)]
    assert programs.count("replicator") >= 20 and {"./dev", "systemctl", "psql", "curl"} <= set(programs)


def test_every_verb_of_dev_is_there() -> None:
    said = subprocess.run([str(ROOT / "dev"), "help"], capture_output=True, text=True, check=True).stdout
    verbs = set(re.findall(r"^  (\w+)", said, re.MULTILINE))
    asked = {words[1] for words in spans() if words[0] == "./dev" and len(words) > 1 and words[1].isalpha()}
    for block in _BLOCKS:
        for statement in statements(block.text):
            asked |= {words[1] for words in commands(statement) if words[0] == "./dev"}
    assert asked and asked <= verbs


_NAMED = [words for words in spans() if words[0] == "replicator" and len(words) > 1]


@pytest.mark.parametrize("words", _NAMED, ids=" ".join)
def test_a_command_that_the_text_names_is_there_with_its_options(words: list[str]) -> None:
    # `publication plan|apply` are two.
    for variant in product(*(word.split("|") for word in words[1:])):
        command, rest = resolved(list(variant))
        known = {option for one in command.params for option in one.opts} | {"--help"}
        assert {word for word in rest if word.startswith("--")} <= known


def errors(kind: type[ReplicatorError] = ReplicatorError) -> set[str]:
    below = kind.__subclasses__()
    named = set().union(*(errors(one) for one in below))
    # What stands for several has no row of its own.
    return named | {one.__name__ for one in below if one.__module__ == replicator.errors.__name__}


def codes() -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(Path(judge.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Trouble":
            code = node.args[1]
            assert isinstance(code, ast.Constant), "a code is written out"
            found.add(str(code.value))
    return found


def test_each_error_and_each_trouble_has_a_meaning_a_threat_and_a_remedy() -> None:
    told = rows("When things go wrong")
    named = [name for what, *_ in told for name in re.findall(r"`([^`]+)`", what)]
    assert len(codes()) > 10 and len(errors()) > 10
    assert set(named) == errors() | codes()
    assert len(named) == len(set(named)), "each has one row"
    assert all(len(row) == 4 and all(row) for row in told)


def test_versions_are_those_that_are_tested() -> None:
    sdks: dict[str, str] = {}
    for path in ("package.json", "browser/package.json"):
        sdks |= json.loads((ROOT / "tests" / "real_client" / path).read_text())["dependencies"]
    table = {what: (tested, rest) for what, tested, rest in rows("What it works with")}
    clients = dict(re.findall(r"`(@powersync/\w+)` ([\d.]+\d)", table["clients"][0]))
    assert len(clients) == 2 and clients == {name: sdks[name] for name in clients}
    majors = [
        int(one) for one in re.findall(r"\b1\d\b", " ".join(table["Postgres, as source and as storage"]))
    ]
    assert sorted(majors) == list(range(VERSIONS[0], VERSIONS[1] + 1))
    compose = (ROOT / "docker" / "compose.yaml").read_text()
    (server,) = re.findall(r"EHRbase ([\d.]+\d)", table["openEHR server"][1])
    assert f"ehrbase/ehrbase:{server}\n" in compose
    lowest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert lowest is not None and table["Python"][0] == lowest[1]


def test_every_place_it_points_to_is_there() -> None:
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        there = target[1:] in anchors if target.startswith("#") else (ROOT / target).exists()
        assert there, target
