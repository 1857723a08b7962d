"""Generated frames → how many changes a second one core decodes, assembles, routes and prints as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from replicator.rules.parse import parse_rules
from replicator.rules.printed import Intended
from replicator.rules.route import Intent, Router
from replicator.wal.fast import decode_all
from replicator.wal.transactions import Assembler
from tests.bench import frames, workload
from tests.bench.bench import Bench
from tests.bench.result import Result, at_least

_BAR = 150_000
_OTHERS, _TABLES = 50, 30
#: What one drain of the socket hands over when there is plenty.
_PER_DRAIN = 900


def route(bench: Bench) -> Iterator[Result]:
    """The pure part of the main path, without a server."""
    rows, values = bench.count(1_000_000, 100_000), []
    drains = list(frames.drains(100_000, per_transaction=1000, per_drain=_PER_DRAIN))
    many: list[float] = []
    for _ in bench.each(f"route: {rows:,} changes"):
        values.append(rows / _route_s(drains, rows, workload.RULES))
        many.append(rows / _route_s(drains, rows, _with_others(workload.RULES)))
    yield Result("route", values, "changes/s", "bar", [_BAR], at_least(1))
    name = f"route, {_OTHERS} definitions more"
    yield Result(name, many, "changes/s", "without them", values, at_least(0.9))


def _with_others(rules: str) -> str:
    """The same rules among many that are about other tables: a change should cost those of its own table."""
    others = [
        f"  other_{n}:\n    parameters: SELECT request.user_id() AS id\n"
        f"    data: [SELECT * FROM table_{n % _TABLES} WHERE owner = bucket.id AND kind = 'k{n}']\n"
        for n in range(_OTHERS)
    ]
    return rules + "".join(others)


def _route_s(drains: list[list[bytes]], rows: int, rules: str) -> float:
    assembler, router = Assembler(), Router(parse_rules(rules, "the workload"))
    routed = 0
    begun = time.perf_counter()
    while routed < rows:
        for drain in drains:
            for piece in assembler.assemble(decode_all(drain)).transactions:
                routed += _count(router.print(piece.changes))
    seconds = time.perf_counter() - begun
    assert routed == rows, "every row is in one bucket"
    return seconds


def _count(intents: Sequence[Intent | Intended]) -> int:
    return sum([len(intent.ops) for intent in intents if isinstance(intent, Intended)])
