"""What ./dev offers, and what it says to a word it does not know."""

from __future__ import annotations

import pytest

from tests.dev.machine import Machine


@pytest.mark.parametrize("words", [(), ("help",), ("-h",), ("--help",)])
def test_help_has_a_line_for_each_verb_and_needs_no_python(bare: Machine, words: tuple[str, ...]) -> None:
    bare.check_out_tiny()
    end = bare.dev(*words)
    assert (end.code, end.lines) == (0, [])
    verbs = [line.split()[0] for line in end.out.splitlines() if line.startswith("  ")]
    assert verbs == ["demo", "test", "lint", "shell"]
    assert not bare.venv.exists()


def test_bench_is_a_verb_only_where_there_is_something_to_measure(bare: Machine) -> None:
    bare.check_out_tiny()
    assert bare.dev("bench").code == 2
    (bare.checkout / "tests" / "bench").mkdir(parents=True)
    assert "\n  bench " in bare.dev("help").out


@pytest.mark.parametrize(
    ("word", "verb"), [("tests", "test"), ("Test", "test"), ("ling", "lint"), ("demonstrate", "demo")]
)
def test_unknown_verb_ends_with_2_and_the_nearest_verb(bare: Machine, word: str, verb: str) -> None:
    bare.check_out_tiny()
    end = bare.dev(word)
    assert (end.code, end.out) == (2, "")
    assert end.lines[0] == f"dev: no verb '{word}'; the nearest is"
    assert [line.split()[0] for line in end.lines[1:]] == [verb]


@pytest.mark.parametrize("word", ["frobnicate", "-x", ".*", "$(id)", "go on"])
def test_unknown_verb_near_nothing_shows_the_whole_help(bare: Machine, word: str) -> None:
    bare.check_out_tiny()
    end = bare.dev(word)
    assert (end.code, end.out) == (2, "")
    assert sum(line.startswith("  ") for line in end.lines) == 4


def test_lint_takes_no_arguments(bare: Machine) -> None:
    bare.check_out_tiny()
    assert "takes no arguments" in bare.dev("lint", "--fix").refusal


def test_demo_passes_its_arguments_on(settled: Machine) -> None:
    end = settled.dev("demo", "--clients", "two words", "*")
    assert (end.code, end.out) == (0, "tiny demo --clients two words *\n")


def test_shell_runs_in_the_virtualenv_and_ends_as_the_command_ends(settled: Machine) -> None:
    end = settled.dev("shell", "sh", "-c", 'replicator "$1"; exit 7', "sh", "a  b")
    assert (end.code, end.out) == (7, "tiny a  b\n")


def test_shell_takes_a_line_in_one_word_as_a_shell_would(settled: Machine) -> None:
    end = settled.dev("shell", "replicator a  b && replicator c")
    assert (end.code, end.out) == (0, "tiny a b\ntiny c\n")


def test_shell_without_a_command_is_the_users_shell(settled: Machine) -> None:
    end = settled.dev("shell", SHELL=str(settled.venv / "bin" / "replicator"))
    assert (end.code, end.out) == (0, "tiny\n")
