"""Router.route against the rules carried out slowly: a change leaves and enters exactly what differs."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.rules import route
from replicator.rules.model import Put, Remove, Rules
from replicator.rules.parse import parse_rules
from replicator.rules.printed import Intended, print_all
from replicator.rules.route import Intent, Router, Truncated
from replicator.wal.messages import Column, Relation, Row
from replicator.wal.transactions import Change, Kind
from tests.unit.rules.from_scratch import FromScratch, Known
from tests.unit.rules.plans import read

TEXT, INTEGER = 25, 20
#: Every table has these; `_s` is what `*` passes over.
COLUMNS = (("id", TEXT), ("a", TEXT), ("b", TEXT), ("n", INTEGER), ("xs", TEXT), ("doc", TEXT), ("_s", TEXT))
TABLES = (("public", "t"), ("public", "t_one"), ("public", "t_two"), ("ward", "t"))


def relation(
    namespace: str = "public", name: str = "t", key: Sequence[str] = ("id",), oid: int = 7
) -> Relation:
    columns = tuple(Column(column, kind, -1, column in key) for column, kind in COLUMNS)
    return Relation(oid, namespace, name, "d", columns)


def row(**values: str | None) -> Row:
    return tuple(values.get(name) for name, _ in COLUMNS)


def change(before: Row | None, after: Row | None, of: Relation) -> Change:
    kind = Kind.INSERT if before is None else Kind.DELETE if after is None else Kind.UPDATE
    return Change(kind, of, before, after, 0, True)


# ── Chance ───────────────────────────────────────────────────────────────────────────────────────

_texts = st.sampled_from([None, "u1", "u2", "", 'é"\\\n', "7", "#", "x" * 700])
_arrays = st.sampled_from(
    [None, "[]", '["u1","u2","u1"]', '["u1",7,null,1.0,true]', "u1", '{"u1":1}', '[["u1"]]']
)
_docs = st.sampled_from([None, "{}", '{"k":"u1"}', '{"k":7}', '{"k":null}', "{bad", '{"k":"a\\u0000b"}'])
_values = {
    "id": st.sampled_from(["1", "2", "ü", "#1"]),
    "a": _texts,
    "b": _texts,
    "n": st.sampled_from([None, "0", "7", "-9223372036854775808"]),
    "xs": _arrays,
    "doc": _docs,
    "_s": _texts,
}
_rows = st.fixed_dictionaries(_values).map(lambda values: row(**values))
_filters = st.sampled_from(
    [
        "n > 3",
        "a != 'u1'",
        "b IN ('u1', 'u2')",
        "doc ->> 'k' = 'u1'",
        "NOT (n = 7)",
        "n IS NULL",
        "'u1' IN xs",
    ]
)
_ways = {name: [f"{of} = bucket.{name}" for of in ("a", "n", "b", "doc ->> 'k'", "a || b")] for name in "xy"}
_selects = st.sampled_from(
    [
        "*",
        "id, a",
        "*, n + 1 AS m",
        "a || '-' || id AS id, b",
        "doc ->> 'k' AS id",
        "id, doc ->> 'k' AS k",
        "n AS id",
    ]
)
_tables = st.sampled_from(["t", '"t%"', '"t_%"', "ward.t", "t AS shown", '"t_%" AS shown'])


@st.composite
def _term(draw: st.DrawFn, parameters: str) -> str:
    parts = []
    may_expand = True
    for name in parameters:
        if may_expand and draw(st.integers(0, 3)) == 0:
            may_expand = False
            parts.append(f"bucket.{name} IN xs")
        else:
            parts.append(draw(st.sampled_from(_ways[name])))
            if draw(st.integers(0, 5)) == 0:
                parts.append(draw(st.sampled_from(_ways[name])))
    parts += draw(st.lists(_filters, max_size=2))
    return " AND ".join(draw(st.permutations(parts))) if parts else "1 = 1"


@st.composite
def _query(draw: st.DrawFn, parameters: str) -> str:
    table, select = draw(_tables), draw(_selects)
    if "%" in table and draw(st.booleans()):
        select += ", _table_suffix AS of"
    terms = draw(st.lists(_term(parameters), min_size=1, max_size=3))
    return f"SELECT {select} FROM {table} WHERE {' OR '.join(f'({term})' for term in terms)}"


@st.composite
def _rules(draw: st.DrawFn) -> Rules:
    found: dict[str, object] = {}
    for name in draw(st.sampled_from([["d"], ["d", "e"]])):
        parameters = draw(st.sampled_from(["", "x", "xy"]))
        asked = ", ".join(f"request.jwt() ->> '{one}' AS {one}" for one in parameters)
        data = draw(st.lists(_query(parameters), min_size=1, max_size=3))
        found[name] = {"parameters": f"SELECT {asked}", "data": data} if parameters else {"data": data}
    top = {"config": {"edition": 2}} if draw(st.booleans()) else {}
    return parse_rules(json.dumps({**top, "bucket_definitions": found}), "f")


# ── Comparisons ──────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=400, deadline=None)
@given(
    _rules(),
    st.sampled_from(TABLES),
    st.sampled_from([("id",), ("id", "b")]),
    st.one_of(st.none(), _rows),
    st.one_of(st.none(), _rows),
)
def test_a_change_leaves_and_enters_what_differs(
    rules: Rules, table: tuple[str, str], key: tuple[str, ...], before: Row | None, after: Row | None
) -> None:
    of = relation(*table, key)
    router = Router(rules)
    slow = [FromScratch(rules, [Known(of, key, [one] if one else [])]) for one in (before, after)]
    was, is_now = (one.held() for one in slow)
    intents = router.route([change(before, after, of)]) if before or after else []
    puts = [intent for intent in intents if isinstance(intent, Put)]
    assert {put[:4]: json.loads(put.data) for put in puts} == is_now
    assert len(puts) == len(is_now), "each row is put once in each bucket"
    removes = [tuple(intent) for intent in intents if isinstance(intent, Remove)]
    assert removes == sorted(was.keys() - is_now.keys())
    assert len(intents) == len(puts) + len(removes)
    # What need not be evaluated may fail unseen.
    assert not router.failures or any(one.has_failed for one in slow)


_shapes = st.sampled_from(
    [
        # By id; by two columns; by another column than the one that is shown as id; by all there are.
        *(("id",), ("id", "b"), ("b",), ("n",), ()),
    ]
)


@settings(max_examples=600, deadline=None)
@given(_rules(), st.lists(st.tuples(st.sampled_from(TABLES), _shapes), min_size=1, max_size=2), st.data())
def test_rows_that_are_printed_at_once_are_those_that_are_routed(
    rules: Rules, tables: Sequence[tuple[tuple[str, str], tuple[str, ...]]], data: st.DataObject
) -> None:
    of = [relation(*table, key, oid) for oid, (table, key) in enumerate(tables, 7)]
    pairs = st.tuples(st.none() | _rows, st.none() | _rows).filter(any)
    new = st.tuples(st.none(), _rows)
    pairs_of = st.tuples(st.sampled_from(of), new | new | new | pairs)
    changes = [change(*pair, one) for one, pair in data.draw(st.lists(pairs_of, max_size=12))]
    fast, slow = Router(rules), Router(rules)
    routed = slow.route(changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(route, "_FEW", data.draw(st.sampled_from([0, 3])))
        patch.setattr(route, "_LEFT", data.draw(st.sampled_from([0, 1, 16])))
        printed = fast.print(changes)
    assert _as_printed(printed) == _as_printed(routed)
    assert fast.failures == slow.failures


def _as_printed(intents: Sequence[Intent | Intended]) -> list[object]:
    found: list[object] = []
    for intent in intents:
        if isinstance(intent, Put | Remove):
            found.append((intent.bucket, print_all([intent])[0]))
        elif isinstance(intent, Intended):
            assert intent.ops, "what puts nothing says nothing"
            found += zip(intent.buckets, print_all(intent.ops), strict=True)
        else:
            found.append(intent)
    return found


# ── One by one ───────────────────────────────────────────────────────────────────────────────────

X = "SELECT request.jwt() ->> 'x' AS x"


def inserted(rules: Rules, of: Relation | None = None, **values: str | None) -> tuple[Router, list[object]]:
    router = Router(rules)
    return router, list(router.route([change(None, row(id="1", **values), of or relation())]))


def test_only_a_row_that_can_be_in_one_bucket_alone_is_printed_at_once() -> None:
    def is_one(parameters: str | None, *data: str) -> bool:
        compiled = Router(read(parameters, *data)).compiled(relation())
        return compiled is not None and compiled.puts is not None

    assert is_one(None, "SELECT * FROM t") and is_one(X, "SELECT id FROM t WHERE a = bucket.x AND n > 3")
    assert not is_one(None, "SELECT * FROM t", "SELECT id FROM t")
    assert not is_one(X, "SELECT * FROM t WHERE a = bucket.x OR b = bucket.x")
    assert not is_one(X, "SELECT * FROM t WHERE bucket.x IN xs")
    assert not is_one(X, "SELECT * FROM t WHERE a = bucket.x AND bucket.x IN xs")


def test_all_columns_stand_in_the_order_of_the_table_however_they_are_named() -> None:
    """Rows that are stored already do."""
    columns = [name for name, _ in COLUMNS]
    _, intents = inserted(read(None, f"SELECT {', '.join(reversed(columns))} FROM t"))
    assert isinstance(intents[0], Put)
    assert list(json.loads(intents[0].data)) == columns


@pytest.mark.parametrize("conditions", [89, 90, 91, 95, 96])
def test_a_rule_of_many_values_is_printed_at_once_only_as_deep_as_python_nests(conditions: int) -> None:
    same = " AND ".join(["a = bucket.x", *(["n = bucket.x"] * (conditions - 1))])
    router = Router(read(X, f"SELECT * FROM t WHERE {same}"))
    changes = [change(None, row(id=str(n), a="7", n="7"), relation()) for n in range(5)]
    assert _as_printed(router.print(changes)) == _as_printed(router.route(changes))


def test_a_table_without_columns_has_rows_all_the_same() -> None:
    empty = Relation(7, "public", "t", "f", ())
    router = Router(read(None, "SELECT * FROM t"))
    changes = [change(None, (), empty)] * 5
    assert _as_printed(router.print(changes)) == _as_printed(router.route(changes))
    assert [intent.data for intent in router.route(changes) if isinstance(intent, Put)] == ["{}"] * 5


def test_a_row_that_fails_in_one_rule_goes_to_the_others() -> None:
    rules = read(
        None,
        "SELECT id FROM t WHERE doc ->> 'k' = 'u1'",
        "SELECT id, doc ->> 'k' AS k FROM t AS broken",
        "SELECT id FROM t AS whole",
    )
    router, intents = inserted(rules, doc="{bad")
    assert intents == [Put("d[]", "whole", "1", "7/1", '{"id":"1"}')]
    assert router.failures == {"d": 1, "t": 1}


def test_a_row_that_cannot_be_shown_any_more_leaves() -> None:
    router = Router(read(None, "SELECT id, doc ->> 'k' AS k FROM t"))
    good, bad = row(id="1", doc='{"k":1}'), row(id="1", doc="{bad")
    assert router.route([change(good, bad, relation())]) == [Remove("d[]", "t", "1", "7/1")]
    assert router.route([change(bad, good, relation())]) == [Put("d[]", "t", "1", "7/1", '{"id":"1","k":1}')]
    assert router.route([change(bad, None, relation())]) == []


def test_a_row_is_shown_as_the_last_reason_has_it_that_can() -> None:
    router = Router(read(None, "SELECT id FROM t", "SELECT id, doc ->> 'k' AS k FROM t"))
    good, bad = row(id="1", doc='{"k":1}'), row(id="1", doc="{bad")
    place = "d[]", "t", "1", "7/1"
    assert router.route([change(None, good, relation())]) == [Put(*place, '{"id":"1","k":1}')]
    assert router.route([change(good, bad, relation())]) == [Put(*place, '{"id":"1"}')]
    assert router.route([change(bad, None, relation())]) == [Remove(*place)]


def test_a_bucket_of_a_long_name_is_left_out_and_counted() -> None:
    rules = read(X, "SELECT id FROM t WHERE a = bucket.x OR b = bucket.x")
    router, intents = inserted(rules, a="y" * 3000, b="z")
    assert intents == [Put('d["z"]', "t", "1", "7/1", '{"id":"1"}')]
    assert router.failures == {"d": 1}


@pytest.mark.parametrize(
    "where", ["a = bucket.x OR b = bucket.x", "bucket.x IN xs", "a = bucket.x AND bucket.x IN xs"]
)
def test_the_same_bucket_for_two_reasons_is_one(where: str) -> None:
    _, intents = inserted(read(X, f"SELECT id FROM t WHERE {where}"), a="u", b="u", xs='["u","u"]')
    assert intents == [Put('d["u"]', "t", "1", "7/1", '{"id":"1"}')]


def test_a_row_stays_while_one_of_its_reasons_does() -> None:
    rules = read(X, "SELECT id FROM t WHERE a = bucket.x", "SELECT id, b FROM t WHERE b = bucket.x")
    both, one = row(id="1", a="u", b="u"), row(id="1", a="u")
    router = Router(rules)
    assert router.route([change(None, both, relation())]) == [
        Put('d["u"]', "t", "1", "7/1", '{"id":"1","b":"u"}')
    ]
    assert router.route([change(both, one, relation())]) == [Put('d["u"]', "t", "1", "7/1", '{"id":"1"}')]


def test_what_one_parameter_must_equal_twice_is_the_same() -> None:
    rules = read(X, "SELECT id FROM t WHERE a = bucket.x AND bucket.x IN xs")
    assert inserted(rules, a="u", xs='["v","u"]')[1] == [Put('d["u"]', "t", "1", "7/1", '{"id":"1"}')]
    assert inserted(rules, a="u", xs='["v"]')[1] == []
    assert inserted(rules, a=None, xs="[null]")[1] == []


def test_parameters_as_text_are_compared_as_text() -> None:
    rules = read(X, "SELECT id FROM t WHERE n = bucket.x::text AND a = bucket.x::text")
    assert inserted(rules, n="7", a="7")[1] == [Put('d["7"]', "t", "1", "7/1", '{"id":"1"}')]


def test_many_conditions_are_as_good_as_few() -> None:
    where = " AND ".join(f"n != {number}" for number in range(300))
    assert len(inserted(read(None, f"SELECT id FROM t WHERE {where}"), n="300")[1]) == 1
    assert len(inserted(read(None, f"SELECT id FROM t WHERE {where}"), n="299")[1]) == 0


def test_an_id_that_cannot_be_stored_leaves_the_row_out() -> None:
    rules = read(None, "SELECT doc ->> 'k' AS id FROM t")
    router, intents = inserted(rules, doc='{"k":"a\\u0000b"}')
    assert intents == []
    assert router.failures == {"t": 1}


def test_a_key_that_looks_like_a_short_one_is_another() -> None:
    router = Router(read(None, "SELECT a AS id FROM t"))
    long = row(id="x" * 5000)
    (put,) = router.route([change(None, long, relation())])
    assert isinstance(put, Put)
    shortened = put.subkey.removeprefix("7/")
    (other,) = router.route([change(None, row(id=shortened), relation())])
    assert isinstance(other, Put)
    assert len(shortened) < 100 and other.subkey != put.subkey


def test_a_row_under_another_key_leaves_under_the_old_one() -> None:
    router = Router(read(None, "SELECT a AS id FROM t"))
    intents = router.route([change(row(id="1", a="s"), row(id="2", a="s"), relation())])
    assert intents == [Put("d[]", "t", "s", "7/2", '{"id":"s"}'), Remove("d[]", "t", "s", "7/1")]


def test_truncate_is_told_by_what_its_subkeys_begin_with() -> None:
    router = Router(read(None, "SELECT * FROM t"))
    assert router.route([Change(Kind.TRUNCATE, relation(), None, None, 0)]) == [Truncated("7/")]
    assert router.route([Change(Kind.TRUNCATE, relation(name="other"), None, None, 0)]) == []


def test_entries_of_parameter_queries_come_and_go_with_their_rows() -> None:
    rules = read("SELECT b AS x FROM t WHERE a = request.user_id()", "SELECT * FROM u WHERE c = bucket.x")
    (lookup,) = rules.lookups
    router = Router(rules)
    one, other = row(id="1", a="me", b="w"), row(id="1", a="me", b="v")
    (entered,) = router.route([change(None, one, relation())])
    assert tuple(entered) == (lookup.id, '["me"]', '["w"]', "7/1")
    assert [type(i).__name__ for i in router.route([change(one, other, relation())])] == ["Leave", "Enter"]
    assert router.route([change(one, one, relation())]) == []


def test_the_last_of_several_queries_shows_a_row_also_where_it_repeats_an_earlier_one() -> None:
    queries = ["SELECT id, a FROM t", "SELECT * FROM t", "SELECT id, a FROM t"]
    rules = parse_rules(json.dumps({"bucket_definitions": {"d": {"data": queries}}}), "f")
    of = relation("public", "t", ("id",))
    (put,) = Router(rules).route([change(None, ("1", *[None] * (len(of.columns) - 1)), of)])
    assert isinstance(put, Put)
    assert json.loads(put.data) == {"id": "1", "a": None}
