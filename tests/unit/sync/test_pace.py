"""Who asks more often than anybody means is stopped, and nobody else; after a while it is forgotten."""

from __future__ import annotations

from replicator.sync.pace import Pace


def test_a_burst_and_then_so_many_a_second() -> None:
    pace = Pace(burst=3, per_s=2.0)
    assert [pace.allows("a", 10.0) for _ in range(4)] == [True, True, True, False]
    assert [pace.allows("a", 10.5) for _ in range(2)] == [True, False]
    assert [pace.allows("a", 1e6) for _ in range(4)] == [True, True, True, False], "no more than a burst"


def test_others_do_not_suffer() -> None:
    pace = Pace(burst=1, per_s=0.001)
    assert pace.allows("a", 0.0) and not pace.allows("a", 1.0)
    assert pace.allows("b", 1.0)


def test_who_is_stopped_is_not_let_go_on_by_being_forgotten() -> None:
    pace = Pace(burst=10, per_s=1.0)
    for second in range(100):
        allowed = sum(pace.allows("a", float(second)) for _ in range(50))
        assert allowed == (10 if not second else 1), second
