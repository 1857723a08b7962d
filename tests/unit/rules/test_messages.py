"""What people write who have not read everything: what they are told, where, and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicator.errors import ConfigError
from replicator.rules.parse import load_rules
from tests.unit.rules.plans import refused, warned
from tests.unit.rules.told import of_query

PARAMETERS = "SELECT id AS user_id FROM users WHERE firebase_uid = request.user_id()"
KEPT = 'as a name it stands in double quotes: "{}"'
DID_YOU = "user_id alone is a column of the row, did you mean bucket.user_id?"
ONLY = "of functions, only json_each(array) can"

#: By query, with ^ where the problem is: what is said of it.
DATA = {
    "SELECT * FROM t WHERE patient_id = ^user_id": DID_YOU,
    "SELECT * FROM t WHERE patient_id = bucket.user_id OR owner = ^user_id": DID_YOU,
    "SELECT * FROM t WHERE a IN (SELECT b FROM c WHERE d = ^user_id)": DID_YOU,
    "SELECT user_id FROM ^user": KEPT.format("user"),
    "SELECT ^user FROM t": KEPT.format("user"),
    "SELECT * FROM t WHERE ^user = bucket.user_id": KEPT.format("user"),
    "SELECT * FROM ^order WHERE x = bucket.user_id": KEPT.format("order"),
    "SELECT * FROM ^group": KEPT.format("group"),
    "SELECT id, ^table FROM t WHERE x = bucket.user_id": KEPT.format("table"),
    "SELECT * FROM t WHERE ^user_id() = a": "write request.user_id()",
    "SELECT * FROM t WHERE ^uid() = a": "write request.user_id()",
    "SELECT * FROM t WHERE ^sqrt(a) = 1": "the function sqrt is not part",
    "SELECT * FROM t WHERE ^my.sqrt(a) = 1": "the function my.sqrt is not known",
}
PARAMETER_QUERIES = {
    "SELECT ^request.parameter() AS x": "request.parameter('name') needs one name",
    "SELECT ^request.parameter AS x": "called with parentheses: request.parameter('name')",
    "SELECT ^request.user_id('x') AS x": "request.user_id() has nothing between its parentheses",
    "SELECT id AS x FROM u WHERE a = ^auth.uid()": "here it is request.user_id()",
    "SELECT value AS x FROM ^json_tree(request.jwt())": f"json_tree cannot stand after FROM: {ONLY}",
    "SELECT id AS x FROM ^user WHERE a = request.user_id()": KEPT.format("user"),
}
STREAMS = {
    "SELECT * FROM ^user WHERE id = auth.user_id()": KEPT.format("user"),
    "SELECT * FROM ^json_tree(auth.parameters()) AS t": f"json_tree cannot stand after FROM: {ONLY}",
    "SELECT * FROM t WHERE a = ^user_id()": "auth.user_id() in streams",
    "SELECT * FROM t WHERE a = ^auth.uid()": "auth.uid() is not known, did you mean user_id?",
}
IN_QUOTES = (
    'SELECT id FROM t WHERE status = ^"active"',
    "SELECT id FROM t WHERE status IN (^\"active\", 'b')",
    'SELECT id FROM t WHERE NOT (a = 1 AND status != ^"active")',
)
NOT_IN_QUOTES = (
    "SELECT id FROM t WHERE \"status\" = 'active'",
    'SELECT id FROM t WHERE "a" = "b"',
    'SELECT id FROM t WHERE a = t."b"',
    'SELECT "id" FROM t WHERE a = b',
)


@pytest.mark.parametrize("marked", DATA)
def test_a_data_query_that_is_nearly_right(marked: str) -> None:
    [problem] = refused(PARAMETERS, marked.replace("^", ""))
    assert problem.startswith(f"6:{9 + marked.index('^')}: d.data[0]: ")
    assert DATA[marked] in problem


@pytest.mark.parametrize("marked", PARAMETER_QUERIES)
def test_a_parameter_query_that_is_nearly_right(marked: str) -> None:
    [problem] = refused(marked.replace("^", ""), "SELECT * FROM t WHERE a = bucket.x")
    assert problem.startswith(f"4:{9 + marked.index('^')}: d.parameters[0]: ")
    assert PARAMETER_QUERIES[marked] in problem


@pytest.mark.parametrize("marked", STREAMS)
def test_a_stream_that_is_nearly_right(marked: str) -> None:
    [problem] = of_query(marked.replace("^", "")).problems()
    assert problem.startswith(f"rules.yaml:3:{5 + marked.index('^')}: s.query: ")
    assert STREAMS[marked] in problem


@pytest.mark.parametrize("marked", IN_QUOTES)
def test_text_in_double_quotes_is_told(marked: str) -> None:
    [told] = [one for one in warned(None, marked.replace("^", "")) if "also holds" not in one]
    assert told.startswith(
        f"4:{9 + marked.index('^')}: d.data[0]: in double quotes this is the name of a column"
    )
    [told] = [one for one in of_query(marked.replace("^", "")).warnings() if "also holds" not in one]
    assert told.startswith(f"rules.yaml:3:{5 + marked.index('^')}: s.query: in double quotes")


@pytest.mark.parametrize("sql", NOT_IN_QUOTES)
def test_names_in_double_quotes_are_names(sql: str) -> None:
    assert warned(None, sql) == []


def test_a_selected_column_that_is_called_as_a_parameter_is_no_mistake() -> None:
    [problem] = refused(PARAMETERS, "SELECT id, user_id FROM t")
    assert problem.endswith("bucket.user_id is not")


def test_a_file_that_is_not_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load_rules(tmp_path / "none.yaml")
    assert "none.yaml: cannot be read" in str(raised.value)
    assert raised.value.hint == (
        "Name a file of rules that is there, or set `rules` in the configuration to its path."
    )
