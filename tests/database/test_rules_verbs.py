"""`replicator rules` on a real source: what it has, what a user gets of it, and where a row is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from replicator.cli import main
from tests.database.clinics import a_role, build_tables

if TYPE_CHECKING:
    from tests.fixtures.postgres import Database

SEEDS = Path(__file__).parents[1] / "unit" / "rules" / "seeds"
OWN, WITH_QUEUE = SEEDS / "own_record.yaml", SEEDS / "own_record_and_queue.yaml"
QUEUE = """
CREATE TABLE ehrbase_sync_queue (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    table_name   text NOT NULL,
    record_id    text NOT NULL,
    sync_status  text NOT NULL DEFAULT 'pending')
"""
ANN, BOB = "a0000000-0000-4000-8000-00000000000a", "b0000000-0000-4000-8000-00000000000b"


def vital(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


PEOPLE = f"""
INSERT INTO users (id, firebase_uid, full_name, created_at) VALUES
    ('{ANN}', 'ann', 'Ann', '2024-01-01'), ('{BOB}', 'bob', 'Bob', '2024-01-01');
INSERT INTO vital_signs (id, patient_id, heart_rate_bpm, temperature_celsius, recorded_at, created_at) VALUES
    ('{vital(1)}', '{ANN}', 60, 36.50, '2024-05-01 12:00:00.25', '2024-05-01'),
    ('{vital(2)}', '{ANN}', 61, NULL, '2024-05-02', '2024-05-02'),
    ('{vital(3)}', '{BOB}', 62, 37, '2024-05-03', '2024-05-03'),
    ('{vital(4)}', NULL, 63, 37, '2024-05-04', '2024-05-04');
"""
QUEUED = f"""
INSERT INTO ehrbase_sync_queue (id, table_name, record_id) VALUES
    ('{vital(11)}', 'vital_signs', '{vital(1)}'), ('{vital(12)}', 'vital_signs', '{vital(3)}'),
    ('{vital(13)}', 'users_demographics', '{ANN}'), ('{vital(14)}', 'other', '{vital(2)}'),
    ('{vital(15)}', 'vital_signs', '{vital(99)}')
"""
Run = Callable[..., Result]


@pytest.fixture
def clinic(database: Database) -> Database:
    build_tables(database)
    database.execute(QUEUE)
    database.execute(PEOPLE)
    database.execute(QUEUED)
    database.execute("CREATE PUBLICATION powersync FOR ALL TABLES")
    return database


@pytest.fixture
def run(database: Database, tmp_path: Path) -> Run:
    """`replicator rules …` with these rules: a path, or their text."""

    def carry_out(rules: str | Path, *args: str, dsn: str = database.dsn) -> Result:
        path = rules
        if isinstance(rules, str):
            path = tmp_path / "rules.yaml"
            path.write_text(rules)
        (tmp_path / "replicator.yaml").write_text(f"rules: {path}\n")
        environment = {"SOURCE_DSN": dsn, "REPLICATOR_CONFIG": str(tmp_path / "replicator.yaml")}
        removed = {name: None for name in os.environ if name.startswith("STORAGE")}
        result = CliRunner().invoke(main, ["rules", *args], env={**removed, **environment})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return carry_out


# -- validate --------------------------------------------------------------------------------------


def test_a_file_that_fits_its_source_is_told_in_one_line(clinic: Database, run: Run) -> None:
    result = run(OWN, "validate", "--source")
    assert result.output == f"{OWN}: 1 definition, 8 tables, 2 lookups\n"
    assert result.exit_code == 0


def test_what_the_source_lacks_is_told_where_it_is_named(clinic: Database, run: Run) -> None:
    clinic.execute("CREATE VIEW recent AS SELECT * FROM vital_signs")
    rules = """
    bucket_definitions:
      b:
        parameters: SELECT id AS x FROM users WHERE firebase_uid = request.user_id()
        data:
          - SELECT * FROM vital_sings WHERE patient_id = bucket.x
          - SELECT * FROM lab_results WHERE patient = bucket.x
          - SELECT * FROM recent WHERE patient_id = bucket.x
          - SELECT * FROM "audit_%" WHERE patient_id = bucket.x
    """
    result = run(rules, "validate", "--source")
    path = result.output.partition(":")[0]
    assert result.output.splitlines() == [
        f"{path}:6:27: missing: b.data[0]: the source has no table vital_sings, did you mean vital_signs?",
        f"{path}:7:45: missing: b.data[1]: lab_results has no column patient, did you mean patient_id?",
        f"{path}:9:27: warning: b.data[3]: the source has no table audit_%",
        "source: recent is a view: only the changes of tables are in the log",
        f"{path}: 1 definition, 5 tables, 1 lookup, 3 missing, 1 warning",
    ]
    assert result.exit_code == 1


def test_a_user_with_more_buckets_than_are_served_is_foreseen(clinic: Database, run: Run) -> None:
    clinic.execute("CREATE TABLE members (id int PRIMARY KEY, who text, org text)")
    clinic.execute("CREATE TABLE projects (id int PRIMARY KEY, org text)")
    clinic.execute(
        "INSERT INTO members SELECT n, CASE WHEN n <= 30 THEN 'ann' ELSE n::text END, (n % 25)::text "
        "FROM generate_series(1, 100) AS n"
    )
    clinic.execute("INSERT INTO projects SELECT n, (n % 10)::text FROM generate_series(1, 500) AS n")
    rules = """
    bucket_definitions:
      org:
        parameters: SELECT org FROM members WHERE who = request.user_id()
        data: [SELECT * FROM projects WHERE org = bucket.org]
      project:
        parameters: >
          SELECT id AS project FROM projects
          WHERE org IN (SELECT org FROM members WHERE who = request.user_id())
        data: [SELECT * FROM projects WHERE id = bucket.project]
    """
    result = run(rules, "validate", "--source")
    assert (
        "source: warning: one user may come to 1,275 buckets, and sync.max_buckets is 1,000: "
        "project 1,250 (members: 25 under one who, projects: 50 under one org); "
        "org 25 (members: 25 under one who)\n"
    ) in result.output
    assert result.exit_code == 0
    facts = json.loads(run(rules, "validate", "--source", "--json").output)
    assert facts["source"]["too_many_buckets"].startswith("one user may come to 1,275 buckets")
    clinic.execute("DELETE FROM members WHERE id % 2 = 0")
    assert "may come to" not in run(rules, "validate", "--source").output


def test_what_is_only_doubtful_does_not_fail(clinic: Database, run: Run) -> None:
    rules = 'bucket_definitions: {b: {data: [SELECT * FROM "audit_%", SELECT * FROM users WHERE id = 5]}}'
    result = run(rules, "validate", "--source")
    assert result.output.count(": warning: ") == 3 and result.exit_code == 0
    assert ":1:22: warning: b: everybody who has a token gets these rows of 2 tables; " in result.output
    assert run(rules.replace("{b:", "{public_b:"), "validate").output.count(": warning: ") == 0


def test_numbers_that_are_text_in_the_rules_are_refused_where_they_let_everything_in(
    clinic: Database, run: Run
) -> None:
    rules = "bucket_definitions: {b: {data: [SELECT * FROM vital_signs WHERE %s > 37]}}"
    refused = run(rules % "temperature_celsius", "validate", "--source")
    assert refused.exit_code == 2
    assert "temperature_celsius is numeric in the source, and text here" in refused.output
    assert "write CAST(temperature_celsius AS numeric)" in refused.output
    assert run(rules % "temperature_celsius", "validate").exit_code == 0
    assert run(rules % "CAST(temperature_celsius AS numeric)", "validate", "--source").exit_code == 0
    assert run(rules % "heart_rate_bpm", "validate", "--source").exit_code == 0


def test_types_that_can_never_be_equal_are_told(clinic: Database, run: Run) -> None:
    clinic.execute("CREATE TABLE visits (id integer PRIMARY KEY, owner_no bigint)")
    rules = """
    bucket_definitions:
      b:
        parameters: SELECT id AS x FROM visits WHERE owner_no = request.user_id()
        data: [SELECT * FROM visits WHERE id = bucket.x]
    """
    warned = [line for line in run(rules, "validate", "--source").output.splitlines() if "warning: " in line]
    assert len(warned) == 1 and "owner_no" in warned[0]
    assert run(rules, "validate").output.count("warning: ") == 0


def test_tables_that_are_not_published_are_named(clinic: Database, run: Run) -> None:
    clinic.execute("DROP PUBLICATION powersync")
    clinic.execute("CREATE PUBLICATION powersync FOR TABLE users, vital_signs")
    clinic.execute(
        'CREATE TABLE "orders_a" (id int PRIMARY KEY); CREATE TABLE "orders_b" (id int PRIMARY KEY)'
    )
    clinic.execute('ALTER PUBLICATION powersync ADD TABLE "orders_a"')
    rules = """
    bucket_definitions:
      global: {data: [SELECT * FROM users, SELECT * FROM lab_results, SELECT * FROM "orders_%"]}
    """
    result = run(rules, "validate", "--source")
    assert result.output.splitlines()[:-1] == [
        f"source: {name} is not in publication powersync; see: replicator publication plan"
        for name in ("lab_results", "orders_b")
    ]
    assert result.output.endswith(", 2 missing\n") and result.exit_code == 1
    facts = json.loads(run(rules, "validate", "--source", "--json").output)
    assert facts["source"]["unpublished"] == ["lab_results", "orders_b"] and not facts["ok"]
    clinic.execute('ALTER PUBLICATION powersync ADD TABLE lab_results, "orders_b"')
    assert run(rules, "validate", "--source").exit_code == 0


def test_problems_end_with_2_and_every_one_has_its_place(database: Database, run: Run) -> None:
    rules = "bucket_definitions:\n  a:\n    dat: x\n    data: [SELECT * FROM t WHERE x = bucket.y]\n"
    result = run(rules, "validate", "--source")
    assert result.exit_code == 2
    assert [line.split(":")[1:3] for line in result.output.splitlines()[:-1]] == [["3", "5"], ["4", "38"]]
    assert result.output.endswith(": 2 problems\n")
    facts = json.loads(run(rules, "validate", "--json").output)
    assert [(one["line"], one["column"]) for one in facts["problems"]] == [(3, 5), (4, 38)]


@pytest.mark.parametrize("args", [("validate", "--source"), ("test", "--user", "ann")])
def test_a_source_that_does_not_answer_is_told_as_such(
    database: Database, run: Run, args: tuple[str]
) -> None:
    result = run(OWN, *args, dsn="postgresql://ann:secret@127.0.0.1:1/clinic")
    assert result.exit_code == 1
    assert "cannot connect to clinic at 127.0.0.1:1" in result.output and "secret" not in result.output


# -- test --user -----------------------------------------------------------------------------------


def counts(result: Result) -> dict[str, dict[str, int]]:
    assert result.exit_code == 0, result.output
    return {one["bucket"]: one["rows"] for one in json.loads(result.output)["buckets"]}


def test_a_user_gets_their_own_record(clinic: Database, run: Run) -> None:
    result = run(OWN, "test", "--user", "ann")
    first, *rest = result.output.splitlines()
    assert first.startswith("ann gets 1 bucket with 4 rows, at ")
    assert rest == [
        "",
        f'global["{ANN}"]  priority 3',
        "  ehrbase_sync_queue        1",
        "  users                     1",
        "  vital_signs               2",
    ]
    assert counts(run(OWN, "test", "--user", "bob", "--json")) == {
        f'global["{BOB}"]': {"users": 1, "vital_signs": 1}
    }


def test_the_queue_follows_the_record(clinic: Database, run: Run) -> None:
    expected = {"users": 1, "vital_signs": 2, "ehrbase_sync_queue": 2}
    assert counts(run(WITH_QUEUE, "test", "--user", "ann", "--json")) == {f'user_data["{ANN}"]': expected}
    expected = {"users": 1, "vital_signs": 1, "ehrbase_sync_queue": 1}
    assert counts(run(WITH_QUEUE, "test", "--user", "bob", "--json")) == {f'user_data["{BOB}"]': expected}


def test_rows_are_shown_as_clients_have_them(clinic: Database, run: Run) -> None:
    clinic.execute(f"ALTER DATABASE {clinic.name} SET datestyle = 'German'")
    clinic.execute(f"ALTER DATABASE {clinic.name} SET timezone = 'Asia/Tokyo'")
    rows = json.loads(run(OWN, "test", "--user", "ann", "--rows", "--json").output)["rows"]
    [first] = [row for row in rows if row["object_id"] == vital(1)]
    assert first["object_type"] == "vital_signs"
    assert first["data"] == {
        "id": vital(1),
        "patient_id": ANN,
        "temperature_celsius": "36.5",
        "blood_pressure_systolic": None,
        "blood_pressure_diastolic": None,
        "heart_rate_bpm": 60,
        "notes": None,
        "recorded_at": "2024-05-01 12:00:00.25Z",
        "created_at": "2024-05-01 00:00:00Z",
    }
    text = run(OWN, "test", "--user", "ann", "--rows").output
    assert f'    {vital(2)}  {{"id":"{vital(2)}"' in text
    text = run(OWN, "test", "--user", "ann", "--rows", "--max-rows", "1").output
    assert "Only the first 1 row shown" in text and "with 4 rows" in text


def test_nothing_is_shown_of_rows_unless_asked_for(clinic: Database, run: Run) -> None:
    for args in ((), ("--json",)):
        assert vital(1) not in run(OWN, "test", "--user", "ann", *args).output


def test_an_unknown_user_is_told_at_which_step_it_ended(clinic: Database, run: Run) -> None:
    result = run(WITH_QUEUE, "test", "--user", "nobody")
    assert result.exit_code == 1
    assert result.output.splitlines()[1:] == [
        "",
        "No parameter query led to a bucket:",
        "",
        "  user_data: users has no row with firebase_uid = 'nobody'",
    ]


MEMBERS = """
CREATE TABLE orgs (id integer PRIMARY KEY, name text);
CREATE TABLE members (id integer PRIMARY KEY, org integer, who text, who_no bigint, status text,
                      until timestamptz);
CREATE TABLE projects (id integer PRIMARY KEY, org integer, title text);
INSERT INTO orgs VALUES (1, 'one'), (2, 'two');
INSERT INTO members VALUES (1, 1, 'ann', 7, 'active', now() + interval '1 hour'),
                           (2, 2, 'ann', 7, 'gone', NULL), (3, NULL, 'bob', 8, 'active', NULL);
INSERT INTO projects VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c'), (4, NULL, 'd');
"""


def rules_of(*parameters: str, data: str = "SELECT * FROM projects WHERE org = bucket.org") -> str:
    listed = "".join(f"      - {json.dumps(one)}\n" for one in parameters)
    return f"bucket_definitions:\n  org:\n    parameters:\n{listed}    data: [{json.dumps(data)}]\n"


@pytest.mark.parametrize(
    ("parameters", "user", "expected"),
    [
        (
            "SELECT org FROM members WHERE who = request.user_id() AND status = 'active'",
            "cyd",
            "members has no row with who = 'cyd', whether or not status = 'active'",
        ),
        (
            "SELECT org FROM members WHERE who = request.user_id() AND status = 'new'",
            "ann",
            "members has no row with who = 'ann' and status = 'new': there is one, but status = 'new' does "
            "not hold: status is 'active'",
        ),
        (
            "SELECT org FROM members WHERE who_no = request.user_id()",
            "7",
            "members has no row with who_no = '7'; who_no is of type integer, and never equal to a value of "
            "type text; compare who_no::text",
        ),
        (
            "SELECT org FROM members WHERE who = request.user_id()",
            "bob",
            "members.org: there is no value, and a bucket is named by it",
        ),
        (
            "SELECT id AS org FROM orgs WHERE name = request.jwt() ->> 'org'",
            "ann",
            "the token's org is missing, which orgs is searched by",
        ),
        (
            "SELECT org FROM members WHERE who = request.user_id() AND request.jwt() ->> 'role' = 'admin'",
            "ann",
            "this does not hold: the token's role = 'admin'",
        ),
        (
            "SELECT value AS org FROM json_each(request.jwt() -> 'orgs')",
            "ann",
            "there is nothing in the token's orgs",
        ),
        (
            "SELECT id AS org FROM orgs WHERE id IN (SELECT org FROM members WHERE who = request.user_id() "
            "AND status = 'gone') AND name = 'one'",
            "ann",
            "orgs has no row with id = 2 and name = 'one': there is one, but name = 'one' does not hold: "
            "name is 'two'",
        ),
        (
            "SELECT org FROM members WHERE who = request.user_id() AND until < now()",
            "ann",
            "members has no row with who = 'ann' and from until on: there is one, but from until on: not yet",
        ),
        ("SELECT org FROM clubs WHERE who = request.user_id()", "ann", "the source has no table clubs"),
    ],
)
def test_why_a_way_led_nowhere(
    database: Database, run: Run, parameters: str, user: str, expected: str
) -> None:
    database.execute(MEMBERS)
    result = run(rules_of(parameters), "test", "--user", user)
    assert result.exit_code == 1
    [said] = [line for line in result.output.splitlines() if line.startswith("  org: ")]
    assert said.removeprefix("  org: ").startswith(expected), said


def test_several_ways_are_told_apart(database: Database, run: Run) -> None:
    database.execute(MEMBERS)
    one, other = (
        f"SELECT org FROM members WHERE {column} = request.user_id()" for column in ("who", "status")
    )
    output = run(rules_of(one, other), "test", "--user", "ann").output
    assert "Nothing by these ways:" in output and "members has no row with status = 'ann'" in output
    output = run(rules_of(one, other), "test", "--user", "cyd").output
    assert f"      in {one}" in output and f"      in {other}" in output


def test_what_the_token_and_the_client_say_counts(database: Database, run: Run, tmp_path: Path) -> None:
    database.execute(MEMBERS)
    rules = """
    bucket_definitions:
      token:
        parameters: SELECT value AS org FROM json_each(request.jwt() -> 'app' -> 'orgs')
        data: [SELECT * FROM projects WHERE org = bucket.org]
      client:
        parameters: >-
          SELECT id AS org FROM orgs WHERE name = request.parameter('org') AND request.user_id() = 'ann'
        data: [SELECT * FROM projects WHERE org = bucket.org]
    """
    claims = tmp_path / "claims.json"
    claims.write_text('{"sub": "ann", "app": {"orgs": [1, 2]}}')
    expected = {"token[1]": {"projects": 2}, "token[2]": {"projects": 1}}
    assert counts(run(rules, "test", "--jwt", str(claims), "--json")) == expected
    expected = {"client[2]": {"projects": 1}}
    assert counts(run(rules, "test", "--user", "ann", "--parameters", '{"org": "two"}', "--json")) == expected
    token = tmp_path / "token"
    # {"alg":"none"} and the claims, as they travel.
    token.write_text("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJhcHAiOnsib3JncyI6WzJdfX0.\n")
    assert counts(run(rules, "test", "--jwt", str(token), "--json")) == {"token[2]": {"projects": 1}}


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("--user", "ann", "--parameters", "[1]"), "--parameters: this is no JSON object"),
        (("--user", "ann", "--parameters", "{"), "--parameters: this is no JSON object"),
        (("--user", "ann", "--stream", "s=1"), "--stream s: this is no JSON object"),
        (("--user", "ann", "--stream", "s={}"), "there is no stream s in these rules"),
        (("--user", "a\0b"), "--user: this cannot be a subject"),
        ((), "say who asks"),
        (("--row", "members", "1"), "no rule names a table members"),
        (("--row", "users", "1"), "users has no row with id = '1'"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    clinic: Database, run: Run, args: tuple[str, ...], expected: str
) -> None:
    result = run(OWN, "test", *args)
    assert result.exit_code in (1, 2) and expected in result.output


def test_streams_are_those_the_client_asks_for(database: Database, run: Run) -> None:
    database.execute(MEMBERS)
    rules = """
    config: {edition: 3}
    streams:
      mine:
        auto_subscribe: true
        query: SELECT * FROM projects WHERE org IN (SELECT org FROM members WHERE who = auth.user_id())
      one:
        query: >-
          SELECT * FROM projects WHERE id = subscription.parameter('id')::integer
          AND org IN (SELECT org FROM members WHERE who = auth.user_id())
    """
    result = run(rules, "test", "--user", "ann")
    assert "Streams not asked for: one; see --stream." in result.output
    both = run(
        rules, "test", "--user", "ann", "--stream", 'one={"id": 1}', "--stream", 'one={"id": 3}', "--json"
    )
    assert {name: sum(rows.values()) for name, rows in counts(both).items()} == {
        "mine|0[1]": 2,
        "mine|0[2]": 1,
        "one|0[1,1]": 1,
        "one|0[1,2]": 0,
        "one|0[3,1]": 0,
        "one|0[3,2]": 1,
    }


def test_a_bucket_that_no_row_can_be_in_is_told_with_the_remedy(database: Database, run: Run) -> None:
    database.execute(MEMBERS)
    database.execute("CREATE PUBLICATION powersync FOR ALL TABLES")
    rules = rules_of("SELECT request.jwt() ->> 'sub' AS org")
    output = run(rules, "test", "--user", "1").output
    assert output.splitlines()[2:] == [
        'org["1"]  priority 3',
        "  (empty)",
        "",
        "note: projects: org is of type integer, and never equal to a value of type text, as bucket.org is; "
        "write bucket.org::text to compare them as text",
    ]
    mended = rules.replace("= bucket.org", "= bucket.org::text")
    assert counts(run(mended, "test", "--user", "1", "--json")) == {'org["1"]': {"projects": 2}}


def test_too_many_buckets_are_refused_with_where_they_come_from(database: Database, run: Run) -> None:
    database.execute("CREATE TABLE lists (id integer PRIMARY KEY, who text, other text)")
    database.execute("INSERT INTO lists SELECT n, 'ann', 'ann' FROM generate_series(1, 30) AS n")
    rules = """
    bucket_definitions:
      many:
        parameters:
          - SELECT id FROM lists WHERE who = request.user_id()
          - SELECT id FROM lists WHERE other = request.user_id()
        data: [SELECT * FROM lists WHERE id = bucket.id]
      one: {data: [SELECT * FROM lists]}
    """
    result = run(rules, "test", "--user", "ann", "--max-buckets", "30")
    assert result.exit_code == 1
    assert "this user gets 31 buckets, and more than 30 are too many" in result.output
    assert "many: 30\n  one: 1\n" in result.output
    # Those that two ways lead to count once.
    assert len(counts(run(rules, "test", "--user", "ann", "--max-buckets", "31", "--json"))) == 31


def test_a_table_that_is_not_there_or_not_published_is_left_out_or_told(clinic: Database, run: Run) -> None:
    clinic.execute("DROP TABLE ehrbase_sync_queue; DROP PUBLICATION powersync")
    clinic.execute("CREATE PUBLICATION powersync FOR TABLE users WHERE (firebase_uid <> 'bob')")
    result = run(OWN, "test", "--user", "ann")
    assert result.exit_code == 0 and "with 3 rows" in result.output
    assert "note: the source has no table ehrbase_sync_queue: it is left out" in result.output
    assert "note: vital_signs is not in publication powersync" in result.output
    # What the publication leaves out does not arrive, so nobody can be found by it.
    assert run(OWN, "test", "--user", "bob").exit_code == 1


def test_a_column_that_is_not_there_is_told_with_the_remedy(clinic: Database, run: Run) -> None:
    rules = rules_of(
        "SELECT id AS org FROM users WHERE uid = request.user_id()",
        data="SELECT * FROM users WHERE id = bucket.org",
    )
    result = run(rules, "test", "--user", "ann")
    assert result.exit_code == 1
    assert 'table "public"."users" has no column "uid"' in result.output


def test_a_role_that_may_not_read_is_told_so(clinic: Database, run: Run) -> None:
    with a_role(clinic, f"r_{clinic.name}") as dsn:
        result = run(OWN, "test", "--user", "ann", dsn=dsn)
    assert result.exit_code == 1 and "permission denied for table users" in result.output


def test_values_longer_than_a_key_are_found_all_the_same(database: Database, run: Run) -> None:
    database.execute(MEMBERS)
    who = "x" * 500
    database.execute("INSERT INTO members VALUES (9, 2, %s, 9, 'active', NULL)", [who])
    rules = rules_of("SELECT org FROM members WHERE who = request.user_id()")
    assert counts(run(rules, "test", "--user", who, "--json")) == {"org[2]": {"projects": 1}}


def test_rows_that_cannot_be_evaluated_are_counted_and_never_shown(database: Database, run: Run) -> None:
    database.execute("CREATE TABLE notes (id integer PRIMARY KEY, tags text)")
    database.execute("INSERT INTO notes VALUES (1, '[\"a\"]'), (2, 'no array'), (3, '[]')")
    rules = rules_of("SELECT request.user_id() AS org", data="SELECT * FROM notes WHERE bucket.org IN tags")
    result = run(rules, "test", "--user", "a")
    assert "a gets 1 bucket with 1 row" in result.output
    assert (
        "note: org could not be evaluated for 1 row(s), which are left out: not a JSON array" in result.output
    )
    assert "no array" not in result.output


# -- test --row ------------------------------------------------------------------------------------


def test_a_row_is_in_the_bucket_of_whom_it_belongs_to(clinic: Database, run: Run) -> None:
    assert run(OWN, "test", "--row", "vital_signs", vital(1)).output.splitlines() == [
        f"vital_signs {vital(1)} is in 1 bucket",
        "",
        f'  global["{ANN}"] as vital_signs',
    ]
    theirs, not_theirs = (
        run(OWN, "test", "--row", "vital_signs", vital(1), "--user", who).output for who in ("ann", "bob")
    )
    assert "(this user's)" in theirs and "(not this user's)" in not_theirs


def test_what_keeps_a_row_out_is_told_for_every_way(clinic: Database, run: Run) -> None:
    assert run(WITH_QUEUE, "test", "--row", "vital_signs", vital(4)).output.splitlines() == [
        f"vital_signs {vital(4)} is in no bucket",
        "",
        "What keeps it out:",
        "",
        "  user_data[user_id] as vital_signs: patient_id is NULL, and bucket.user_id is found by it",
    ]
    tables = ("lab_results", "prescriptions", "immunizations", "medical_records")
    assert run(WITH_QUEUE, "test", "--row", "ehrbase_sync_queue", vital(11)).output.splitlines() == [
        f"ehrbase_sync_queue {vital(11)} is in 1 bucket",
        "",
        f'  user_data["{ANN}"] as ehrbase_sync_queue',
        "",
        "And not by these ways:",
        "",
        "  user_data[user_id] as ehrbase_sync_queue, of 6 ways:",
        "    1. table_name = 'users_demographics' does not hold: table_name is 'vital_signs'",
        *(
            f"    {way}. {table} has no row with id::text = '{vital(1)}'"
            for way, table in enumerate(tables, 3)
        ),
    ]
    other = run(WITH_QUEUE, "test", "--row", "ehrbase_sync_queue", vital(14)).output
    assert other.count("table_name IN ('vital_signs', 'lab_results', 'prescriptions', ") == 5


@pytest.mark.parametrize(
    ("data", "row", "expected"),
    [
        (
            "SELECT * FROM {} WHERE org = bucket.org AND title IS NULL",
            1,
            "title IS NULL does not hold: title is 'a'",
        ),
        ("SELECT * FROM {} WHERE org = bucket.org", 4, "org is NULL, and bucket.org is found by it"),
        (
            "SELECT * FROM {} WHERE org = bucket.org AND at > now() - interval '1 day'",
            1,
            "for 1 day from at: over: at is '2024-01-01 00:00:00Z'",
        ),
        (
            "SELECT * FROM {} WHERE org = bucket.org AND at < now() - interval '1 day'",
            2,
            "from 1 day after at on: not yet: at is '2999",
        ),
        (
            "SELECT * FROM {} WHERE org = bucket.org AND at > now()",
            3,
            "until at: that is no time: at is NULL",
        ),
        ("SELECT * FROM {} WHERE bucket.org IN tags", 1, "there is nothing in tags"),
        ("SELECT * FROM {} WHERE bucket.org IN title", 1, "this cannot be evaluated: "),
        (
            "SELECT * FROM {} WHERE org IN (SELECT id FROM orgs WHERE name = bucket.org AND id > 5)",
            1,
            "orgs has no row with id = 1 and id > 5",
        ),
        (
            "SELECT * FROM {} WHERE org IN (SELECT id FROM orgs WHERE name = bucket.org)",
            4,
            "org is NULL, and orgs is searched by it",
        ),
        (
            "SELECT * FROM {} WHERE title = bucket.org "
            "AND org IN (SELECT id FROM orgs WHERE name = bucket.org)",
            1,
            "title and orgs.name are not the same",
        ),
    ],
)
def test_the_first_thing_that_keeps_a_row_out(
    database: Database, run: Run, data: str, row: int, expected: str
) -> None:
    database.execute(MEMBERS)
    database.execute("ALTER TABLE projects ADD COLUMN at timestamptz, ADD COLUMN tags jsonb")
    database.execute("UPDATE projects SET at = '2024-01-01' WHERE id = 1")
    database.execute("UPDATE projects SET at = '2999-01-01' WHERE id = 2")
    rules = rules_of("SELECT request.user_id() AS org", data=data.format("projects"))
    output = run(rules, "test", "--row", "projects", str(row)).output
    assert f"projects {row} is in no bucket" in output
    assert f"  org[org] as projects: {expected}" in output


def test_a_table_that_only_decides_is_told_as_such(database: Database, run: Run) -> None:
    database.execute(MEMBERS)
    rules = rules_of("SELECT org FROM members WHERE who = request.user_id()")
    output = run(rules, "test", "--row", "public.members", "1").output
    assert "No data query reads this table; it only decides about others." in output


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
def test_a_row_of_what_is_no_table_is_told_as_such(database: Database, run: Run, kind: str) -> None:
    database.execute(f"CREATE {kind} told AS SELECT '1'::text AS id")
    rules = rules_of("SELECT request.user_id() AS org", data="SELECT * FROM told WHERE id = bucket.org")
    result = run(rules, "test", "--row", "told", "1")
    assert result.exit_code == 1
    assert f"told is a {kind.lower()}: none of its rows is replicated" in result.output


def test_every_way_is_told_in_or_out_as_replication_decides(clinic: Database, run: Run) -> None:
    """What is told of every row of a table, one by one, is what is counted for its users."""
    told: dict[str, int] = {}
    for (row,) in clinic.execute("SELECT id::text FROM ehrbase_sync_queue"):
        facts: dict[str, Any] = json.loads(
            run(WITH_QUEUE, "test", "--row", "ehrbase_sync_queue", row, "--json").output
        )
        ways_out = len(facts["not_in"])
        assert (ways_out < 6) == bool(facts["in"])
        for one in facts["in"]:
            told[one["bucket"]] = told.get(one["bucket"], 0) + 1
    for who, bucket in (("ann", ANN), ("bob", BOB)):
        found = counts(run(WITH_QUEUE, "test", "--user", who, "--json"))
        assert found[f'user_data["{bucket}"]']["ehrbase_sync_queue"] == told[f'user_data["{bucket}"]']
