"""How the work of reading rules grows with them: a file of a few kB is read at once, whatever it says."""

from __future__ import annotations

import pytest

from tests.unit.rules.counted import calls
from tests.unit.rules.told import of_query, read


def _chained(tables: int, last: str, asked: str) -> str:
    """Tables tied to each other in a row, and as many alternatives."""
    names = ", ".join(f"t{at}" for at in range(tables))
    ties = " AND ".join(f"t{at}.a = t{at + 1}.b" for at in range(tables - 1))
    either = " OR ".join(f"t{at}.x = {asked}" for at in range(tables))
    return f"SELECT t0.* FROM {names} WHERE {ties} AND {last} AND ({either})"


@pytest.mark.parametrize(
    ("last", "asked"),
    [("t0.y = 1", "auth.user_id()"), ("t{}.y = auth.user_id()", "connection.parameter('p')")],
    ids=["from the first to the last", "and back"],
)
def test_alternatives_of_many_tables_are_as_much_work_as_there_are_of_both(last: str, asked: str) -> None:
    def work(tables: int) -> int:
        query = _chained(tables, last.format(tables - 1), asked)
        assert of_query(query).definitions
        return calls(lambda: of_query(query))

    work(10)  # what is found out once and kept
    # Twice the tables in each of twice the alternatives: four times the work, and not eight.
    assert work(40) < 5 * work(20)


def test_two_ties_between_tables_do_not_double_the_work_with_each() -> None:
    def work(tables: int) -> int:
        names = ", ".join(f"t{at}" for at in range(tables))
        ties = " AND ".join(f"t{at}.a = t{at + 1}.b AND t{at}.c = t{at + 1}.d" for at in range(tables - 1))
        query = f"SELECT t0.* FROM {names} WHERE {ties} AND t0.z = connection.parameter('p')"
        assert "only on what a client sends" in of_query(query).problems()[0]
        return calls(lambda: of_query(query))

    work(5)
    assert work(16) < 5 * work(8)


def test_a_file_of_such_queries_is_refused_at_the_one_that_is_too_much() -> None:
    query = _chained(90, "t0.y = 1", "auth.user_id()")
    streams = "".join(f"s{at}:\n  query: {query}\n" for at in range(8))
    problems = read(streams).problems()
    places = [problem.partition(" this")[0] for problem in problems]
    assert places == ["rules.yaml:14:10: s6.query:", "rules.yaml:16:10: s7.query:"]
    assert (
        "this query comes to 90 alternatives, which read 8,100 tables together; with all before it, that "
        "makes 56,700 in this file, of at most 50,000: use fewer OR, or fewer tables in each query"
    ) in problems[0]
