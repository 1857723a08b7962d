"""Plans are made from what the catalogue says, and keep the application's writes out of harm's way."""

from __future__ import annotations

import pytest

from replicator.ehr.mapping import parse_mapping
from replicator.observe.needs import needs_of
from replicator.rules.model import Rules
from replicator.rules.parse import parse_rules
from replicator.settings.keys import SubjectKeys
from replicator.wal.catalogue import Catalogue, Column, Leaf, Need
from replicator.wal.publication import Plan, judge_publication, plan_publication
from replicator.wal.rights import judge_role
from tests.unit.surveys import NEED, a_catalogue, a_membership, a_publication, a_role, a_table

STORED = (Column("id", ""), Column("g", "s"))
VIRTUAL = (Column("id", ""), Column("g", "v"))


def sqls(catalogue: Catalogue, *needs: Need) -> list[str]:
    found = judge_publication(catalogue, needs or [NEED], "powersync", "replicator", whole_rows=True)
    return [one.sql for one in found if one.sql]


def plan(catalogue: Catalogue, *needs: Need, whole_rows: bool = True) -> Plan:
    return plan_publication(
        catalogue,
        needs or [NEED],
        "powersync",
        "replicator",
        with_role=False,
        with_storage=True,
        whole_rows=whole_rows,
    )


def test_rules_need_the_id_and_the_columns_they_decide_by() -> None:
    rules = parse_rules(
        """
bucket_definitions:
  mine:
    parameters: SELECT request.user_id() AS user_id
    data:
      - SELECT * FROM vitals WHERE patient_id = bucket.user_id
      - SELECT * FROM vitals WHERE nurse_id = bucket.user_id
  all:
    data: [SELECT * FROM lab.codes]
""",
        "rules.yaml",
    )
    assert set(needs_of(rules)) == {
        Need("public", "vitals", frozenset({"id", "patient_id", "nurse_id"})),
        Need("lab", "codes", frozenset({"id"})),
    }


def test_a_table_sends_whole_rows_before_it_is_published() -> None:
    table = a_table(identity="d", memberships=())
    assert sqls(a_catalogue(table)) == [
        "ALTER TABLE public.t REPLICA IDENTITY FULL;",
        "CREATE PUBLICATION powersync FOR TABLE\n    public.t;",
    ]
    assert sqls(a_catalogue(table, publication=a_publication(tables=()))) == [
        "ALTER TABLE public.t REPLICA IDENTITY FULL;",
        "ALTER PUBLICATION powersync ADD TABLE public.t;",
    ]


def test_generated_columns_are_published_before_the_table_sends_whole_rows() -> None:
    table = a_table(identity="d", columns=STORED)
    assert sqls(a_catalogue(table, version=180000, publication=a_publication(sends_generated=False))) == [
        "ALTER PUBLICATION powersync SET (publish_generated_columns = stored);",
        "ALTER TABLE public.t REPLICA IDENTITY FULL;",
    ]
    unpublished = a_table(identity="d", columns=STORED, memberships=())
    assert "publish_generated_columns = stored" in sqls(a_catalogue(unpublished, version=180000))[-1]
    assert "publish_generated_columns" not in "".join(sqls(a_catalogue(unpublished, version=170000)))


def test_virtual_columns_keep_a_table_as_it_is() -> None:
    catalogue = a_catalogue(a_table(identity="d", columns=VIRTUAL, memberships=()), version=180000)
    assert sqls(catalogue) == []
    assert "table.identity_blocked" in {problem.code for problem in plan(catalogue).problems}


def test_a_column_list_is_taken_off_before_the_table_sends_whole_rows() -> None:
    table = a_table(identity="d", memberships=(a_membership(has_column_list=True),))
    first, second = sqls(a_catalogue(table, publication=a_publication()))
    assert first.splitlines() == [
        "BEGIN;",
        "ALTER PUBLICATION powersync DROP TABLE public.t;",
        "ALTER PUBLICATION powersync ADD TABLE public.t;",
        "COMMIT;",
    ]
    assert second == "ALTER TABLE public.t REPLICA IDENTITY FULL;"


@pytest.mark.parametrize(
    "others",
    [
        a_membership("theirs", has_column_list=True),
        a_membership(has_column_list=True, has_row_filter=True),
        a_membership(has_column_list=True, is_direct=False, by_ancestor=True),
    ],
)
def test_nothing_is_done_to_a_table_whose_updates_would_then_fail(others: object) -> None:
    table = a_table(identity="d", memberships=(others,))
    catalogue = a_catalogue(table, publication=a_publication())
    assert sqls(catalogue) == []
    assert "table.identity_blocked" in {problem.code for problem in plan(catalogue).problems}


def test_a_publication_of_inserts_does_not_stand_in_the_way() -> None:
    others = a_membership("theirs", has_column_list=True, sends_changes=False)
    table = a_table(identity="d", memberships=(a_membership(), others))
    assert sqls(a_catalogue(table, publication=a_publication())) == [
        "ALTER TABLE public.t REPLICA IDENTITY FULL;"
    ]


def test_updates_are_not_published_where_another_table_could_not_bear_it() -> None:
    harmed = a_publication(operations=frozenset({"insert"}), without_identity=(("public", "log"),))
    assert sqls(a_catalogue(a_table(), publication=harmed)) == []
    unharmed = a_publication(
        operations=frozenset({"insert", "update", "delete"}), without_identity=(("public", "log"),)
    )
    assert sqls(a_catalogue(a_table(), publication=unharmed)) == [
        "ALTER PUBLICATION powersync SET (publish = 'insert, update, delete, truncate');"
    ]


def kept(catalogue: Catalogue) -> list[str]:
    """The statements of a plan that leaves a replica identity which is enough."""
    return [one.sql for one in plan(catalogue, whole_rows=False).steps]


def test_a_replica_identity_that_is_enough_is_left_as_it_is() -> None:
    for identity in ("d", "i"):
        catalogue = a_catalogue(a_table(identity=identity, memberships=()))
        assert kept(catalogue) == ["CREATE PUBLICATION powersync FOR TABLE\n    public.t;"]
        (note,) = plan(catalogue, whole_rows=False).notes
        assert (note.level, note.code, note.sql) == ("note", "table.identity", "")
    for table in (a_table(identity="n"), a_table(identity="d", key=())):
        published = a_catalogue(table, publication=a_publication())
        assert kept(published) == ["ALTER TABLE public.t REPLICA IDENTITY FULL;"]


def test_what_stands_in_the_way_of_whole_rows_is_in_nobodys_way_where_they_are_not_needed() -> None:
    virtual = a_catalogue(a_table(identity="d", columns=VIRTUAL, memberships=()), version=180000)
    assert kept(virtual) == ["CREATE PUBLICATION powersync FOR TABLE\n    public.t;"]
    theirs = a_membership("theirs", has_column_list=True)
    listed = a_catalogue(a_table(identity="d", memberships=(theirs,)), publication=a_publication())
    assert kept(listed) == ["ALTER PUBLICATION powersync ADD TABLE public.t;"]
    assert plan(listed, whole_rows=False).problems == ()


def test_a_partition_has_the_replica_identity_of_its_table() -> None:
    leaves = (Leaf("public", "t1", "d"), Leaf("public", "t2", "f"))
    table = a_table(kind="p", identity="d", leaves=leaves)
    publication = a_publication(via_root=True)
    assert kept(a_catalogue(table, publication=publication)) == [
        "ALTER TABLE public.t2 REPLICA IDENTITY DEFAULT;"
    ]


def test_nothing_is_both_a_step_and_a_note() -> None:
    made = plan(a_catalogue(a_table(identity="d"), publication=a_publication()))
    assert len(made.steps) == 1 and made.notes == ()


def test_every_partition_sends_whole_rows_of_its_own() -> None:
    leaves = (Leaf("public", "t1", "d"), Leaf("public", "t2", "f"))
    catalogue = a_catalogue(a_table(kind="p", leaves=leaves, memberships=()))
    assert sqls(catalogue) == [
        "ALTER TABLE public.t1 REPLICA IDENTITY FULL;",
        "CREATE PUBLICATION powersync FOR TABLE\n    public.t\n    WITH (publish_via_partition_root = true);",
    ]


def test_what_is_by_hand_is_not_among_the_steps() -> None:
    unlogged = a_table("u", persistence="u", identity="d", memberships=())
    catalogue = a_catalogue(a_table(key=()), unlogged, publication=a_publication())
    made = plan(catalogue, NEED, Need("public", "u", frozenset({"id"})))
    assert made.steps == ()
    assert {problem.code for problem in made.problems} == {"table.key", "table.unlogged"}


def test_a_role_gets_no_more_than_it_lacks() -> None:
    role = a_role(
        name="Reader",
        may_replicate=False,
        may_connect=False,
        schemas={"public": (False, False)},
        missing_functions=("pg_logical_emit_message(boolean,text,text)",),
        may_create=False,
    )
    catalogue = a_catalogue(a_table(may_select=False, hides_rows=True), role=role)
    assert [one.sql for one in judge_role(catalogue, [NEED], "replicator")] == [
        'ALTER ROLE "Reader" REPLICATION;',
        'GRANT CONNECT ON DATABASE clinic TO "Reader";',
        'GRANT USAGE ON SCHEMA public TO "Reader";',
        'GRANT SELECT ON public.t TO "Reader";',
        'ALTER ROLE "Reader" BYPASSRLS;',
        'GRANT EXECUTE ON FUNCTION pg_catalog.pg_logical_emit_message(boolean,text,text) TO "Reader";',
        'CREATE SCHEMA replicator AUTHORIZATION "Reader";',
    ]
    assert judge_role(a_catalogue(a_table()), [NEED], "replicator") == []


def test_a_table_in_which_rows_are_only_looked_up_is_read_and_not_published() -> None:
    mapping = parse_mapping(
        """
system: clinic
namespace: clinic
ctx: {language: en, territory: CM, setting: other care, composer: Clinic, time: at}
tables:
  rounds:
    key: id
    patient: {column: visit, through: ward.visits, key: id, patient: patient_id}
    template: replicator.pulse.v1
    fields: {pulse_encounter/pulse/any_event:0/rate: {column: rate, unit: /min}}
""",
        "ehr.yaml",
    )
    subject = SubjectKeys(table="accounts", match="uid", value="id")
    rounds, accounts, visits = needs_of(Rules(()), mapping, subject)
    assert (rounds.label, rounds.is_followed) == ("public.rounds", True)
    assert accounts == Need("public", "accounts", frozenset(), is_followed=False)
    assert visits == Need("ward", "visits", frozenset(), is_followed=False)

    hidden = a_table("accounts", may_select=False, identity="n", key=(), memberships=())
    catalogue = a_catalogue(hidden, publication=a_publication())
    made = plan_publication(
        catalogue, [accounts], "powersync", "replicator", with_role=True, with_storage=False
    )
    assert [step.sql for step in made.steps] == ["GRANT SELECT ON public.accounts TO replicator;"]
    assert made.problems == ()


def test_where_superuser_is_the_providers_its_role_stands_for_replication() -> None:
    managed = a_role(may_replicate=False, managed_by="rds_replication")
    (finding,) = judge_role(a_catalogue(role=managed), [], None)
    assert finding.sql == "GRANT rds_replication TO replicator;"
    new = a_role(exists=False, may_replicate=False, managed_by="rds_replication")
    (finding,) = judge_role(a_catalogue(role=new), [], None)
    assert finding.sql.splitlines()[:2] == [
        "CREATE ROLE replicator LOGIN;",
        "GRANT rds_replication TO replicator;",
    ]
