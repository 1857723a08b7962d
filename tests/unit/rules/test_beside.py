"""Rules beside others: each moves the rows that it has met, and says nothing of those that it has not."""

from __future__ import annotations

import json

from replicator.rules.lookups import OUTER, Step, View, apply, outer_of
from replicator.rules.model import Put, Remove, Rules
from replicator.rules.parse import parse_rules
from replicator.rules.route import Intent, Router
from replicator.rules.versions import only_new, versioned, versions_of
from replicator.wal.messages import Column, Relation

TEXT = 25
VISITS = Relation(1, "public", "visits", "f", (Column("id", TEXT, -1, True), Column("ward", TEXT, -1, True)))
WARDS = Relation(2, "public", "wards", "f", (Column("id", TEXT, -1, True), Column("owner", TEXT, -1, True)))
JOINED = "SELECT * FROM visits WHERE ward IN (SELECT id FROM wards WHERE owner = bucket.x)"


def deployed(*data: str) -> tuple[Rules, Rules]:
    """The first of two sets, and what is new in the second."""
    first, second = [
        parse_rules(
            json.dumps(
                {
                    "bucket_definitions": {
                        "mine": {"parameters": "SELECT request.user_id() AS x", "data": [one]}
                    }
                }
            ),
            "rules.yaml",
        )
        for one in data
    ]
    before = versions_of(first, 1, None)
    after = versions_of(second, 2, before)
    return versioned(first, before), only_new(versioned(second, after), after, 2)


def moved(knows: tuple[str, ...]) -> set[tuple[str, str]]:
    """What becomes of a visit, which these look up, when its ward gets another owner."""
    old, new = deployed(JOINED, JOINED.replace("*", "id"))
    router = Router(old, beside=new)
    for relation in (VISITS, WARDS):
        router.know(relation, (0,))
    visits, wards = router.known(1), router.known(2)
    assert visits is not None and wards is not None
    view = View()
    for lookup in visits.looks_up:
        need = lookup, '["w"]'
        view.reasons[need] = {'["ann"]': {"2/w"}}
        outer = outer_of(visits, ("v", "w"), lookup)
        assert outer is not None
        view.outer[OUTER + lookup, '["w"]'] = {"1/v": outer} if lookup[:1] in knows else {}
    intents: list[Intent] = []
    assert apply(Step(wards, ("w", "ann"), ("w", "bob"), 0.0, 0.0), view, intents.append) == []
    return {(type(one).__name__, one.bucket) for one in intents if isinstance(one, Put | Remove)}


def test_rows_move_by_both_that_have_met_them() -> None:
    old = {("Remove", '1#mine["ann"]'), ("Put", '1#mine["bob"]')}
    new = {("Remove", '2#mine["ann"]'), ("Put", '2#mine["bob"]')}
    assert moved(("1", "2")) == old | new
    assert moved(("1",)) == old
    assert moved(("2",)) == new


def test_a_row_that_is_entered_for_what_is_over_is_nobodys() -> None:
    old, new = deployed(JOINED, JOINED.replace("*", "id"))
    router = Router(old, beside=new)
    visits = router.compiled(VISITS)
    assert visits is not None and outer_of(visits, ("v", "w"), "0#gone") is None
