"""What each form of a stream's query comes to."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from replicator.rules.model import Find, When
from tests.unit.rules.told import of_query, read


def forms() -> dict[str, tuple[str, str]]:
    """By name: a query, and its plan as `told` tells it. Each stands in a paragraph of its own."""
    found: dict[str, tuple[str, str]] = {}
    for paragraph in (Path(__file__).parent / "stream_forms.txt").read_text().split("\n\n"):
        name, *lines = paragraph.strip().splitlines()
        sql = "\n".join(line for line in lines if not line.startswith("  "))
        plan = "\n".join(line.removeprefix("  ") for line in lines if line.startswith("  "))
        found[name.removeprefix("# ")] = sql, plan
    return found


FORMS = forms()


@pytest.mark.parametrize("form", FORMS)
def test_a_form_of_query(form: str) -> None:
    sql, expected = FORMS[form]
    found = of_query(sql, accept_potentially_dangerous_queries="true")
    assert found.problems() == []
    assert found.told() == expected


def test_queries_that_ask_for_the_same_share_a_bucket() -> None:
    found = read(
        dedent("""\
        s:
          queries:
            - SELECT * FROM lists WHERE id IN (SELECT list FROM m WHERE u = auth.user_id())
            - >-
              SELECT * FROM todos WHERE done = 0
              AND list_id IN (SELECT m.list FROM m WHERE auth.user_id() = m.u)
            - SELECT id, name FROM lists AS names WHERE id IN (SELECT list FROM m WHERE u = auth.user_id())
        """)
    )
    assert found.problems() == []
    assert found.told() == dedent("""\
        s|0(id)
          <- find m(u = user_id) list => #0.0
          -> lists: id
          -> todos: list_id if (done = 0)
          -> lists as names[id AS id, name AS name]: id""")


def test_queries_for_the_same_rows_share_a_bucket() -> None:
    found = read(
        dedent("""\
        s:
          queries:
            - SELECT * FROM todos WHERE list_id IN (SELECT id FROM lists WHERE owner = auth.user_id())
            - SELECT * FROM todos WHERE list_id IN (SELECT list FROM m WHERE u = auth.user_id())
        """)
    )
    assert found.told() == dedent("""\
        s|0(list_id)
          <- find lists(owner = user_id) id => #0.0
          <- find m(u = user_id) list => #0.0
          -> todos: list_id""")


def test_one_lookup_serves_all_who_ask_for_the_same() -> None:
    found = read(
        dedent("""\
        one:
          query: SELECT * FROM a WHERE x IN (SELECT id FROM u WHERE p = auth.user_id() AND k = 1 AND q = x)
        two:
          query: >-
            SELECT * FROM b
            WHERE y IN (SELECT u.id FROM u AS u WHERE u.k = 1 AND u.q = u.x AND u.p = auth.user_id())
        """)
    )
    finds = {
        step.lookup
        for definition in found.definitions
        for variant in definition.variants
        for query in variant.queries
        for step in query.steps
        if isinstance(step, Find)
    }
    assert len(finds) == 1
    assert set(found.context.lookups) == finds


def test_with_names_queries_for_conditions_and_from() -> None:
    found = read(
        dedent("""\
        s:
          with:
            mine: SELECT id FROM lists WHERE owner = auth.user_id()
            Shared: SELECT list AS l, role FROM m WHERE u = auth.user_id()
          queries:
            - SELECT * FROM lists WHERE id IN MINE
            - SELECT todos.* FROM todos, mine WHERE mine.id = todos.list_id
            - SELECT todos.* FROM todos JOIN shared AS x ON x.l = todos.list_id AND x.role = 'r'
            - SELECT * FROM notes WHERE lists && mine
        """)
    )
    assert found.problems() == []
    assert found.warnings() == []
    assert found.told() == dedent("""\
        s|0(id)
          <- find lists(owner = user_id) id => #0.0
          -> lists: id
          -> todos: list_id
          -> notes: each lists
        s|1(list_id)
          <- find m(u = user_id; (role = 'r')) list => #0.0
          -> todos: list_id""")


def test_a_streams_own_query_goes_before_a_global_one() -> None:
    text = dedent("""\
        s:
          with: {mine: SELECT id FROM lists WHERE owner = auth.user_id()}
          query: SELECT * FROM todos WHERE l IN mine OR l IN ours
        """)
    ctes = "mine: SELECT id FROM wrong\nours: SELECT id FROM public_lists\nidle: SELECT id FROM t"
    found = read(text, ctes=ctes)
    assert found.problems() == []
    assert found.told() == dedent("""\
        s|0(l)
          <- find lists(owner = user_id) id => #0.0
          <- find public_lists() id => #0.0
          -> todos: l""")
    assert found.context.used == {("with", "ours")}


def test_what_stands_beside_the_query() -> None:
    found = read(
        "s:\n  auto_subscribe: true\n  priority: 1\n  query: SELECT * FROM t\nr:\n  query: SELECT * FROM t"
    )
    [s, r] = found.definitions
    assert (s.is_stream, s.auto_subscribe, s.priority) == (True, True, 1)
    assert [query.priority for variant in s.variants for query in variant.queries] == [1]
    assert (r.is_stream, r.auto_subscribe, r.priority) == (True, False, 3)


def test_edition_2_says_request_and_skips_underscored_columns() -> None:
    found = of_query("SELECT * FROM t WHERE a = request.user_id() AND b = request.parameter('b')", edition=2)
    assert found.problems() == []
    assert found.told() == "s|0(b, a)\n  <- => parameters.b, user_id\n  -> t: b, a"
    [star] = found.definitions[0].variants[0].data[0].columns
    assert getattr(star, "skips_underscored", None) is True
    [star] = of_query("SELECT * FROM t").definitions[0].variants[0].data[0].columns
    assert getattr(star, "skips_underscored", None) is False


def test_a_predicate_is_shown_as_it_was_written() -> None:
    found = of_query(
        "SELECT * FROM t WHERE  done =  0 AND auth.parameter('r') =\n'a' AND owner = auth.user_id()"
    )
    [variant] = found.definitions[0].variants
    assert [predicate.text for predicate in variant.data[0].terms[0].filters] == ["done = 0"]
    whens = [step for step in variant.queries[0].steps if isinstance(step, When)]
    assert [when.condition.text for when in whens] == ["auth.parameter('r') = 'a'"]
