"""Rules files → what `rules explain` says of them, whole; the texts stand in `explained/`."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from replicator.cli import main
from replicator.errors import ConfigError
from replicator.observe.rules.explain import explain
from replicator.observe.rules.takes import only
from replicator.observe.rules.text import facts_of, text_of
from replicator.observe.rules.words import literal, of_row, span, window_words, words
from replicator.rules.expression import Call, Column, Literal
from replicator.rules.model import Window
from replicator.rules.parse import load_rules, parse_rules
from tests.unit.rules.at_hand import expression

HERE = Path(__file__).parent
EXPLAINED = HERE / "explained"
FILES = sorted([*HERE.glob("seeds/*.yaml"), *HERE.glob("examples/*.yaml"), *EXPLAINED.glob("*.yaml")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_explained_as_it_stands_beside(path: Path) -> None:
    text = text_of(explain(load_rules(path), "powersync"), 88) + "\n"
    assert text == (EXPLAINED / f"{path.stem}.txt").read_text()
    assert max(map(len, text.splitlines())) <= 88


def test_every_explanation_has_its_file() -> None:
    assert {path.stem for path in EXPLAINED.glob("*.txt")} == {path.stem for path in FILES}
    assert len(FILES) > 15


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("width", [40, 60, 200])
def test_the_same_words_stand_in_any_width(path: Path, width: int) -> None:
    explanation = explain(load_rules(path), "powersync")
    # Tables are set in columns; the rest is words one after another.
    text, other = (text_of(explanation, one).partition("\nTables:")[0].split() for one in (88, width))
    assert text == other


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_facts_are_json_and_name_every_table(path: Path) -> None:
    rules = load_rules(path)
    facts = orjson.loads(orjson.dumps(facts_of(explain(rules, "powersync"))))
    assert [table["table"] for table in facts["tables"]] == list(map(str, rules.table_names()))
    assert [one["name"] for one in facts["definitions"]] == [one.name for one in rules.definitions]
    assert [one["id"] for one in facts["lookups"]] == [one.id for one in rules.lookups]


def test_one_definition_is_explained_with_only_what_it_needs() -> None:
    rules = load_rules(HERE / "examples" / "chosen_by_the_client.yaml")
    assert only(rules, "catalogue").lookups == ()
    text = text_of(explain(rules, "my pub", "catalogue"), 88)
    assert text == (
        "catalogue[language]  priority 3\n"
        "  one bucket per member of the client's parameter languages\n"
        "  holds\n"
        "    drugs  where language = bucket.language\n"
        "\n"
        "Tables: all of these have to be published.\n"
        "\n"
        "         decided by  sent to clients\n"
        "  drugs  language    all columns\n"
        "\n"
        "Publication: `replicator publication plan` compares it with what there is.\n"
        "\n"
        '  CREATE PUBLICATION "my pub" FOR TABLE\n'
        "      public.drugs;"
    )


def test_a_definition_that_is_not_there_is_refused_with_those_that_are() -> None:
    rules = load_rules(HERE / "examples" / "chosen_by_the_client.yaml")
    with pytest.raises(ConfigError, match="no definition catalog in these rules") as refused:
        explain(rules, "powersync", "catalog")
    assert refused.value.hint == "There are: open_project, catalogue."


def test_ways_of_different_priority_say_theirs() -> None:
    rules = parse_rules(
        """
        bucket_definitions:
          b:
            parameters:
              - SELECT id AS x, 1 AS _priority FROM t WHERE owner = request.user_id()
              - SELECT id AS x, 2 AS _priority FROM t WHERE editor = request.user_id()
            data: [SELECT * FROM t WHERE id = bucket.x]
        """,
        "rules.yaml",
    )
    assert text_of(explain(rules, "powersync")).splitlines()[:5] == [
        "b[x]",
        "  one bucket per t.id  (priority 1)",
        "    where t.owner = the token's subject",
        "  or one bucket per t.id  (priority 2)",
        "    where t.editor = the token's subject",
    ]


# -- The verb --------------------------------------------------------------------------------------


def run(*args: str, config: str | None = None) -> Result:
    environment = {"SOURCE_DSN": None, "REPLICATOR_CONFIG": config, "COLUMNS": "88"}
    return CliRunner().invoke(main, ["rules", *args], env=environment, terminal_width=88)


@pytest.mark.parametrize("name", ["validate", "explain", "test"])
def test_every_verb_has_an_example_in_its_help(name: str) -> None:
    output = run(name, "--help").output
    assert f"Example:\n    replicator rules {name} " in output


def test_a_file_is_explained_without_a_configuration() -> None:
    path = HERE / "seeds" / "own_record.yaml"
    assert run("explain", str(path)).output == (EXPLAINED / "own_record.txt").read_text()
    facts = orjson.loads(run("explain", str(path), "--json").output)
    assert [one["name"] for one in facts["definitions"]] == ["global"]
    refused = run("explain", str(path), "nothing")
    assert refused.exit_code == 2 and "There are: global." in refused.output


def test_the_configured_rules_are_explained_and_a_definition_can_be_named(tmp_path: Path) -> None:
    path = HERE / "examples" / "chosen_by_the_client.yaml"
    config = tmp_path / "replicator.yaml"
    config.write_text(f"source: {{dsn: host=nowhere, publication: clinic}}\nrules: {path}\n")
    whole, part = (run("explain", *name, config=str(config)).output for name in ((), ("catalogue",)))
    assert whole == (EXPLAINED / f"{path.stem}.txt").read_text().replace("powersync", "clinic")
    assert part.startswith("catalogue[language]  priority 3") and "open_project" not in part
    assert run("validate", config=str(config)).output == f"{path}: 2 definitions, 4 tables, 2 lookups\n"


def test_rules_with_problems_are_not_explained(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("bucket_definitions:\n  a: {data: [SELECT 1]}\n")
    refused = run("explain", str(path))
    assert refused.exit_code == 2 and f"{path}:2:" in refused.output
    absent = run("validate", str(tmp_path / "absent.yaml"))
    assert absent.exit_code == 2 and "cannot be read" in absent.output


# -- Words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("a = 1", "a = 1"),
        ("a = 'it''s'", "a = 'it''s'"),
        ("a = 1 AND (b = 2 OR c = 3)", "a = 1 and (b = 2 or c = 3)"),
        ("NOT (a = 1)", "NOT (a = 1)"),
        ("a NOT IN ('x', 'y')", "a NOT IN ('x', 'y')"),
        ("a NOT BETWEEN 1 AND 2", "a NOT BETWEEN 1 AND 2"),
        ("a NOT LIKE 'x%'", "a NOT LIKE 'x%'"),
        ("a IS NOT TRUE", "a IS NOT TRUE"),
        ("a IS DISTINCT FROM b", "a IS DISTINCT FROM b"),
        ("(a + b) * c", "(a + b) * c"),
        ("a || 'x' = upper(b)", "(a || 'x') = upper(b)"),
        ("a::text", "a::text"),
        ("(a + 1)::text", "(a + 1)::text"),
        ("a ->> 'k' = 'v'", "a ->> 'k' = 'v'"),
        ("-a", "-a"),
        ("CASE WHEN a = 1 THEN 'x' ELSE 'y' END", "CASE WHEN a = 1 THEN 'x' ELSE 'y' END"),
        ('"Odd Name" IS NULL', '"Odd Name" IS NULL'),
        ("a = request.user_id()", "a = the token's subject"),
        ("auth.parameter('org') = a", "the token's org = a"),
        ("auth.parameter('app') ->> 'role' = a", "the token's app.role = a"),
    ],
)
def test_an_expression_in_words(sql: str, expected: str) -> None:
    assert words(expression(sql), of_row) == expected


@pytest.mark.parametrize(
    ("seconds", "is_until", "expected"),
    [
        (7776000, True, "for 90 days from at"),
        (0, True, "until at"),
        (-5400, True, "until 90 minutes before at"),
        (0, False, "from at on"),
        (86400, False, "from 1 day after at on"),
        (-0.5, False, "from 0.5 seconds before at on"),
    ],
)
def test_a_window_in_words(seconds: float, is_until: bool, expected: str) -> None:
    moment = Call("unixepoch", (Column("at"), Literal("subsec")))
    assert window_words(Window(moment, seconds, is_until, ""), of_row) == expected


def test_spans_are_told_in_the_largest_unit_that_fits() -> None:
    assert [span(n) for n in (1, 60, 90, 3600, 86400, 172800)] == [
        "1 second",
        "1 minute",
        "90 seconds",
        "1 hour",
        "1 day",
        "2 days",
    ]


def test_literals_are_as_sql_writes_them() -> None:
    assert [literal(one) for one in (None, 1, 1.5, "a'b", b"\1")] == ["NULL", "1", "1.5", "'a''b'", r"'\x01'"]
