"""The top of a rules file: its keys, editions and names; and that all its problems are told at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replicator.errors import ConfigError
from replicator.rules.expression import EDITION_1, EDITION_2, Column, Dialect, Found
from replicator.rules.model import Brought, Definition, Find, TableName, Term, Variant
from replicator.rules.parse import load_rules, parse_rules
from tests.unit.rules.plans import USER, call, problems, read, written

SEEDS = Path(__file__).parent / "seeds"
BODY = "bucket_definitions: {d: {data: [SELECT * FROM t]}}"
OWN = (
    "electronic_health_records",
    "vital_signs",
    "lab_results",
    "prescriptions",
    "immunizations",
    "medical_records",
)
ID_AS_TEXT = call("cast text", Column("id"))


def only(path: Path, name: str) -> tuple[Variant, tuple[str, ...]]:
    """The one variant of a seed's one definition, and its warnings; looks at what both seeds have."""
    rules = load_rules(path)
    (definition,) = rules.definitions
    (variant,) = definition.variants
    assert definition == Definition(name, (variant,))
    assert (variant.name, variant.parameters) == (name, ("user_id",))
    users = rules.lookups[0]
    assert (users.table, users.keys, users.values) == (
        TableName(None, "users"),
        (Column("firebase_uid"),),
        (Column("id"),),
    )
    (query,) = variant.queries
    assert (query.steps, query.values) == ((Find(users.id, (USER,)),), (Found(0, 0),))
    whole = [(str(data.table), data.output, data.terms) for data in variant.data[:-1]]
    assert whole == [
        ("users", "users", (Term((), (Column("id"),)),)),
        *((table, table, (Term((), (Column("patient_id"),)),)) for table in OWN),
    ]
    return variant, tuple(str(warning).removeprefix(f"{path}:") for warning in rules.warnings)


def test_the_first_seed_file() -> None:
    path = SEEDS / "own_record.yaml"
    variant, warnings = only(path, "global")
    queue = variant.data[-1]
    (term,) = queue.terms
    (join,) = term.joins
    assert str(queue.table) == "ehrbase_sync_queue"
    assert (term.filters, term.values, join.key) == ((), (Brought(0, 0),), Column("record_id"))
    lookups = {lookup.id: lookup for lookup in load_rules(path).lookups}
    assert len(lookups) == 2
    assert (lookups[join.lookup].keys, lookups[join.lookup].values) == ((Column("id"),), (Column("id"),))
    assert (variant.as_text, warnings) == ((False,), ())


def test_the_second_seed_file() -> None:
    path = SEEDS / "own_record_and_queue.yaml"
    variant, warnings = only(path, "user_data")
    own, *others = variant.data[-1].terms
    table = call("=", Column("table_name"), "users_demographics")
    assert [predicate.test for predicate in own.filters] == [table]
    assert (own.values, own.joins) == ((Column("record_id"),), ())
    lookups = {lookup.id: lookup for lookup in load_rules(path).lookups}
    assert len(lookups) == 6
    tables = ("vital_signs", "lab_results", "prescriptions", "immunizations", "medical_records")
    among = call("in list", Column("table_name"), *tables)
    for name, term in zip(tables, others, strict=True):
        (join,) = term.joins
        found = lookups[join.lookup]
        assert [predicate.test for predicate in term.filters] == [among]
        assert (term.values, join.key) == ((Brought(0, 0),), Column("record_id"))
        assert (str(found.table), found.keys, found.values) == (name, (ID_AS_TEXT,), (Column("patient_id"),))
    assert variant.as_text == (True,)
    assert warnings == ("28:3: parameters.user_id: nothing refers to this name",)


def test_a_rule_of_the_seed_that_names_the_parameter_uses_it() -> None:
    text = (SEEDS / "own_record_and_queue.yaml").read_text()
    assert parse_rules(text.replace("token_parameters.user_id()", "parameters.user_id"), "f").warnings == ()


DIALECTS = {
    "": EDITION_1,
    "config: {}\n": EDITION_1,
    "config: {edition: 1}\n": EDITION_1,
    "config: {edition: 2}\n": EDITION_2,
    "config: {edition: 2, storage_version: 3}\n": EDITION_2,
    "config: {edition: 2, timestamps_iso8601: false}\n": EDITION_2._replace(timestamps_iso8601=False),
    "config: {timestamps_iso8601: true, timestamp_max_precision: milliseconds}\n": Dialect(
        timestamps_iso8601=True, fraction_digits=3
    ),
    "config: {edition: 2, timestamp_max_precision: seconds}\n": EDITION_2._replace(fraction_digits=0),
    "config: {edition: 2, timestamp_max_precision: nanoseconds}\n": EDITION_2._replace(fraction_digits=6),
    "config: {fixed_json_extract: true, versioned_bucket_ids: true}\n": Dialect(
        fixed_json_extract=True, versioned_bucket_ids=True
    ),
    "config: {custom_postgres_types: true, unstable_sqlite_expression_engine: false}\n": Dialect(
        custom_postgres_types=True
    ),
}


@pytest.mark.parametrize("config", DIALECTS)
def test_an_edition_is_a_set_of_defaults(config: str) -> None:
    assert parse_rules(config + BODY, "f").dialect == DIALECTS[config]


SWITCH = "must be true or false"
CONFIG = {
    "config: 2": ["1:9: config: a mapping is expected, such as `edition: 2`"],
    "config: {editon: 2}": ["1:10: config.editon: unknown key, did you mean edition?"],
    "config: {edition: 4}": ["1:19: config.edition: there are the editions 1, 2 and 3"],
    "config: {edition: two}": ["1:19: config.edition: there are the editions 1, 2 and 3"],
    "config: {edition: [2]}": ["1:19: config.edition: there are the editions 1, 2 and 3"],
    "config: {storage_version: 1}": [
        "1:27: config.storage_version: the versions 2 and 3 are accepted, and mean nothing here"
    ],
    "config: {fixed_json_extract: 1, versioned_bucket_ids: {}}": [
        f"1:30: config.fixed_json_extract: {SWITCH}",
        f"1:55: config.versioned_bucket_ids: {SWITCH}",
    ],
    "config: {timestamp_max_precision: seconds}": [
        "1:35: config.timestamp_max_precision: this needs `timestamps_iso8601: true`, which edition 2 has"
    ],
    "config: {edition: 2, timestamp_max_precision: second}": [
        "1:47: config.timestamp_max_precision: there is no such precision, did you mean seconds?"
    ],
    "config: {edition: 2, unstable_sqlite_expression_engine: true}": [
        "1:57: config.unstable_sqlite_expression_engine: "
        "this needs `edition: 3`, and is not offered there either: leave it out"
    ],
}


@pytest.mark.parametrize("config", CONFIG)
def test_a_configuration_that_cannot_be_is_refused(config: str) -> None:
    assert problems(f"{config}\n{BODY}") == CONFIG[config]


def test_the_other_engine_is_not_offered() -> None:
    text = "config: {{edition: 3, {}unstable_sqlite_expression_engine: true}}\n"
    text += "streams: {{s: {{query: SELECT * FROM t}}}}"
    (found,) = problems(text.format(""))
    assert found.endswith("not offered: expressions mean what they mean without it; leave it out")
    (found,) = problems(text.format("fixed_json_extract: false, "))
    assert found.endswith("this needs `fixed_json_extract`, and is not offered either: leave it out")


TOP = {
    "": ["1:1: bucket_definitions: this key is missing"],
    "config: {edition: 3}": ["1:1: streams: this key is missing"],
    "buckets: {}": [
        "1:1: buckets: unknown key; what can stand here: "
        "bucket_definitions, config, event_definitions, parameters, streams, with"
    ],
    "bucket_definition: {}": ["1:1: bucket_definition: unknown key, did you mean bucket_definitions?"],
    "bucket_definitions: []": ["1:21: bucket_definitions: a mapping from names to definitions is expected"],
    "bucket_definitions: {}": ["1:21: bucket_definitions: a mapping from names to definitions is expected"],
    "bucket_definitions: {d: x}": ["1:25: d: a definition is a mapping with `parameters` and `data`"],
    "bucket_definitions: {d: {}}": ["1:25: d.data: a list of SELECTs is expected"],
    "bucket_definitions: {d: {data: SELECT * FROM t}}": ["1:32: d.data: a list of SELECTs is expected"],
    "bucket_definitions: {d: {data: []}}": ["1:32: d.data: a list of SELECTs is expected"],
    "bucket_definitions: {d: {data: [[]]}}": ["1:33: d.data[0]: a SELECT is expected"],
    "bucket_definitions: {d: {parameters: {a: b}, data: [SELECT * FROM t]}}": [
        "1:38: d.parameters: a SELECT is expected"
    ],
    "bucket_definitions: {d: {parameters: [], data: [SELECT * FROM t]}}": [
        "1:38: d.parameters: 1 to 500 SELECTs are expected"
    ],
    "bucket_definitions: {d: {query: a, data: [SELECT * FROM t]}}": [
        "1:26: d.query: unknown key; what can stand here: "
        "accept_potentially_dangerous_queries, data, parameters, priority"
    ],
    "bucket_definitions: {d: {priority: 4, data: [SELECT * FROM t]}}": [
        "1:36: d.priority: a priority is a number from 0 (first) to 3"
    ],
    "bucket_definitions: {d: {accept_potentially_dangerous_queries: 1, data: [SELECT * FROM t]}}": [
        "1:64: d.accept_potentially_dangerous_queries: must be true or false"
    ],
    "bucket_definitions: {'a|b': {data: [SELECT * FROM t]}}": [
        "1:22: bucket_definitions.?: a name has 1 to 100 characters, "
        'none of them a control character or one of []|#"\\'
    ],
    "config: {edition: 3}\nbucket_definitions: {d: {data: [SELECT * FROM t]}}": [
        "2:1: bucket_definitions: edition 3 has streams only: set `config.edition` to 2, or write streams"
    ],
    f"{BODY}\nwith: {{a: SELECT 1}}": ["2:8: with: this needs `config.edition: 3`"],
    f"{BODY}\nparameters: SELECT 1": [
        "2:13: parameters: a mapping from names to `SELECT request…` is expected"
    ],
    f"{BODY}\nparameters:\n  a: SELECT id FROM t\n  b: SELECT request.jwt(), 1\n"
    "  c: SELECT parameters.a\n  d: [1]": [
        "3:6: parameters.a: one value is expected here, such as `SELECT request.jwt() ->> 'sub'`",
        "4:6: parameters.b: one value is expected here, such as `SELECT request.jwt() ->> 'sub'`",
        "5:13: parameters.c: parameters.a is a column, and there is no table: it needs FROM, or quotes",
        "6:6: parameters.d: a SELECT is expected",
    ],
    f"{BODY}\nstreams:\n  d: {{query: SELECT * FROM t}}": [
        "3:3: streams.d: d stands under bucket_definitions too"
    ],
}


@pytest.mark.parametrize("text", TOP)
def test_a_top_that_cannot_be_is_refused(text: str) -> None:
    assert problems(text) == TOP[text]


def test_a_name_of_the_parameters_that_does_not_exist() -> None:
    text = written("SELECT parameters.usr AS x", "SELECT * FROM t WHERE a = bucket.x")
    text += "parameters: {user: SELECT request.user_id()}\n"
    assert problems(text) == [
        "4:16: d.parameters[0]: usr does not stand under `parameters` at the top of the file, "
        "did you mean user?"
    ]


def test_events_are_read_over_with_a_warning() -> None:
    rules = parse_rules(f"{BODY}\nevent_definitions: {{e: {{payloads: [SELECT a FROM t]}}}}", "f")
    assert [str(warning) for warning in rules.warnings] == [
        "f:2:21: event_definitions.e: of events, only write_checkpoints is known here: this is read over"
    ]


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    text = """\
bucket_definitions:
  a:
    parameters: SELECT request.usr_id() AS x
    data:
      - SELECT * FROM t WHERE x = bucket.x
      - SELECT a FROM t
  b:
    parameter: SELECT 1
    data:
      - >
        SELECT *
        FROM t
        WHERE é = 'ü' AND x = bucket.x
      - |
        SELECT *
        FROM t
        LIMIT 1
      - "SELECT * FROM t, \\
         u"
"""
    assert [problem.split(":")[:3] for problem in problems(text)] == [
        ["3", "24", " a.parameters"],
        ["6", "16", " a.data[1]"],
        ["8", "5", " b.parameter"],
        ["13", "31", " b.data[0]"],
        ["17", "15", " b.data[1]"],
        ["18", "24", " b.data[2]"],
    ]


def test_a_definition_may_be_tagged_as_accepted() -> None:
    text = """\
bucket_definitions:
  d: !accept_potentially_dangerous_queries
    parameters: SELECT request.parameter('p') AS x
    data: [SELECT * FROM t WHERE a = bucket.x]
"""
    assert parse_rules(text, "f").definitions
    assert problems(text.replace(" !accept_potentially_dangerous_queries", ""))


def test_lookups_of_rules_that_mean_the_same_have_the_same_ids() -> None:
    one = read("SELECT id AS x FROM t WHERE o = request.user_id()", "SELECT * FROM u WHERE a = bucket.x")
    other = read(
        "SELECT l.id AS x\n        FROM t AS l WHERE request.user_id() = l.o",
        "SELECT * FROM u WHERE a = bucket.x",
    )
    assert one.lookups == other.lookups
    assert [len(lookup.id) for lookup in one.lookups] == [12]


def test_the_tables_of_rules_are_those_of_data_and_lookups() -> None:
    rules = read("SELECT id AS x FROM s.t WHERE o = request.user_id()", "SELECT * FROM u WHERE a = bucket.x")
    assert rules.tables() == (("public", "u"), ("s", "t"))


def test_more_definitions_than_anybody_writes_are_refused() -> None:
    text = "bucket_definitions:\n" + "".join(f"  d{i}: {{data: [SELECT * FROM t]}}\n" for i in range(501))
    assert problems(text) == ["502:3: bucket_definitions: more than 500 definitions"]


DEEP = {
    "parentheses": "SELECT * FROM t WHERE " + "(" * 2000 + "a" + ")" * 2000,
    "not": "SELECT * FROM t WHERE " + "NOT " * 1500 + "a",
    "and within or": "SELECT * FROM t WHERE " + "(a AND (b OR " * 400 + "c" + "))" * 400,
    "functions": "SELECT * FROM t WHERE " + "upper(" * 1000 + "a" + ")" * 1000,
    "subqueries": "SELECT * FROM t WHERE " + "a IN (SELECT b FROM t WHERE " * 200 + "c = 1" + ")" * 200,
    "sums": "SELECT * FROM t WHERE a = " + "1 + " * 2000 + "1",
    "unions": "SELECT * FROM t WHERE a IN (" + "SELECT b FROM t UNION " * 300 + "SELECT b FROM t)",
}


@pytest.mark.parametrize("kind", DEEP)
def test_nesting_beyond_reason_is_a_problem_and_not_a_crash(kind: str) -> None:
    for text in (written(None, DEEP[kind]), written(DEEP[kind].replace("*", "id AS x"), "SELECT * FROM t")):
        problems(text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_rules(tmp_path / "rules.yaml")


NAMES = ("a|0", "a[", "a]", 'a"b', "a#1", "a\\b", "a\nb", "a\tb", "a\u2028b", "a" * 101, "")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("edition", [1, 2, 3])
def test_names_that_would_make_one_bucket_look_like_another_are_refused(name: str, edition: int) -> None:
    of_stream, of_bucket = {"query": "SELECT * FROM t"}, {"data": ["SELECT * FROM t"]}
    kinds: dict[str, object] = {"streams": of_stream}
    if edition < 3:
        kinds["bucket_definitions"] = of_bucket
    for kind, definition in kinds.items():
        definitions = {"fine_ä-1 x": definition, name: definition}
        text = json.dumps({"config": {"edition": edition}, kind: definitions})
        [problem] = problems(text)
        assert problem.startswith(f"1:{text.index(json.dumps(name) + ':') + 1}: {kind}")
        assert "a name has 1 to 100 characters" in problem or " key " in problem


EVERYBODYS = {
    "bucket_definitions: {notices: {data: [SELECT * FROM a, SELECT * FROM b]}}": "2 tables",
    "bucket_definitions: {notices: {parameters: SELECT, data: [SELECT * FROM a]}}": "1 table;",
    "streams: {notices: {query: SELECT id FROM a WHERE b = 1}}": "1 table;",
    "streams: {notices: {query: SELECT id FROM a WHERE b = 1 OR c = auth.user_id()}}": "1 table;",
}
MEANT = (
    "bucket_definitions: {global: {data: [SELECT * FROM a]}}",
    "bucket_definitions: {public_notices: {data: [SELECT * FROM a]}}",
    "bucket_definitions: {notices: {accept_potentially_dangerous_queries: true, data: [SELECT * FROM a]}}",
    "bucket_definitions: {n: {parameters: !accept_potentially_dangerous_queries SELECT, "
    "data: [SELECT * FROM a]}}",
    "bucket_definitions: {n: {parameters: SELECT request.user_id() AS x, "
    "data: [SELECT * FROM a WHERE b = bucket.x]}}",
    "bucket_definitions: {n: {parameters: SELECT WHERE request.jwt() ->> 'r' = 'admin', "
    "data: [SELECT * FROM a]}}",
    "streams: {notices: {query: SELECT id FROM a WHERE b = auth.user_id()}}",
    "streams: {notices: {query: !accept_potentially_dangerous_queries SELECT id FROM a}}",
)


@pytest.mark.parametrize("text", EVERYBODYS)
def test_what_everybody_gets_is_told_unless_it_is_meant(text: str) -> None:
    rules = parse_rules(text, "f")
    [told] = rules.for_everybody
    assert f"everybody who has a token gets these rows of {EVERYBODYS[text]}" in told.what
    assert (told.line, told.column, told.key) == (1, text.index("notices") + 1, "notices")
    assert told not in rules.warnings
    assert parse_rules(text.replace("notices", "publicity"), "f").for_everybody == ()


@pytest.mark.parametrize("text", MEANT)
def test_what_is_meant_for_everybody_or_for_some_is_quiet(text: str) -> None:
    assert parse_rules(text, "f").for_everybody == ()
