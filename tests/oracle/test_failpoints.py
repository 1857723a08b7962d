"""The replicator fails at its first durable step, then at its second, and so on: what it shows is right.

A small day is lived through again and again, each time in a clone of the same databases. At one step the
process is killed, just before it or just after it, and another one goes on. When a day ends in which the
step was not met, there is none of its kind left to fail at.

`--rounds 100` and more fail at every step; fewer fail at the first of each kind, and pass over some of
the others, which ones is chance; and very few pass over most.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fixtures.forks import fork_readily
from tests.fixtures.postgres import Cluster, Database
from tests.oracle.conftest import ROUNDS
from tests.oracle.day import Day, make_template
from tests.oracle.steps import Fault, How

pytestmark = pytest.mark.oracle

_EVERY_STEP_FROM = 100
#: From one step of a kind to the next, otherwise, on average; and with fewer rounds than usual.
_STRIDE, _LONG_STRIDE = 10, 40


@contextmanager
def clone(server: Cluster) -> Iterator[Database]:
    template = server.template("a day", make_template)
    name = server.create(template)
    database = Database(server, name, template, is_furnished=True)
    try:
        yield database
    finally:
        database.close()
        server.drop(name)


def live(server: Cluster, folder: Path, rng: random.Random, fault: Fault | None = None) -> Day:
    """A day with this fault."""
    with clone(server) as database:
        day = Day(database, folder, rng, fault)
        try:
            day.run()
        except BaseException as error:
            error.add_note(f"the fault was {fault}; the last steps before it: {day.steps[-5:]}")
            raise
    return day


#: What a day must come by, whatever happens at the same time.
KINDS = {
    *("pg_create_logical_replication_slot", "begin_checkpoint", "raise_fence", "acknowledgement"),
    *("want", "write_mark", "begin_copy", "forget_rows", "advance_copy", "sweep_table", "finish_copy"),
    *("COPY data", "COPY end", "write_states", "drop_states", "sum_up", "advance", "COMMIT"),
    *("store", "replace", "begin", "want_copy", "retire", "put_in_force", "free_tables"),
    *("drop_slot", "want_all", "begin_again", "end of transaction"),
}


def test_a_day_comes_by_every_kind_of_step(server: Cluster, tmp_path: Path, rng: random.Random) -> None:
    fork_readily()
    steps = live(server, tmp_path, rng).steps
    print(f"{len(steps)} steps:", ", ".join(steps))
    assert set(steps) >= KINDS


# Every step, twice, on a busy machine.
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", ["before", "after"])
def test_after_a_failure_at_any_step(
    how: How, server: Cluster, tmp_path: Path, rng: random.Random, pytestconfig: pytest.Config
) -> None:
    fork_readily()
    rounds: int = pytestconfig.getoption("--rounds")
    is_every, stride = rounds >= _EVERY_STEP_FROM, _STRIDE if rounds >= ROUNDS else _LONG_STRIDE
    usual = Counter(live(server, tmp_path, rng).steps)
    failures = Counter[str]()
    for name, count in usual.items():
        nth = 1
        while (is_every or nth <= count) and live(server, tmp_path, rng, Fault(name, nth, how)).has_failed:
            failures[name] += 1
            nth += 1 if is_every else rng.randint(1, 2 * stride)
    print(f"{failures.total()} failures {how} a step: {dict(failures)}")
    assert failures.keys() >= KINDS
