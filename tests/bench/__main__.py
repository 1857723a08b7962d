"""Names of measurements → what they came to, beside their yardsticks: `./dev bench`.

`--quick` measures less of everything, once. It is for finding out whether anything has collapsed: only then
is the exit code 1, in either mode. Whether a bar is met is told, and judged by people who know the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache

from replicator.demo.postgres import Binaries, Server, find_binaries
from replicator.errors import ReplicatorError
from tests.bench.bench import Bench, Measure
from tests.bench.deliver import deliver
from tests.bench.jobs import jobs
from tests.bench.lanes import lanes
from tests.bench.machine import machine, sentence
from tests.bench.place import SETTINGS, wear_in
from tests.bench.reader import reader
from tests.bench.result import Result, table
from tests.bench.route import route
from tests.bench.serving import download, fanout, idle, latency
from tests.bench.storage import storage
from tests.bench.stream import single, snapshot, stream

MEASURES: dict[str, Measure] = {
    "reader": reader,
    "route": route,
    "stream": stream,
    "single": single,
    "snapshot": snapshot,
    "storage": storage,
    "latency": latency,
    "download": download,
    "fanout": fanout,
    "idle": idle,
    "jobs": jobs,
    "lanes": lanes,
    "deliver": deliver,
}


def main() -> int:
    options = _options()
    try:
        binaries = _binaries(options.pg)
    except ReplicatorError as error:
        print(f"bench: {error.what}\n{error.hint}", file=sys.stderr)
        return 2
    facts = machine(binaries.release)
    if options.json:
        print(json.dumps({"machine": facts}), flush=True)
    results: list[Result] = []
    with ExitStack() as stack:

        @cache
        def serve() -> Server:
            server = stack.enter_context(Server(binaries, fsync=True, settings=SETTINGS))
            if not options.quick:
                wear_in(server)
            return server

        bench = Bench(options.quick, options.runs or (1 if options.quick else 3), serve)
        for result in _measure(bench, options.names):
            results.append(result)
            if options.json:
                print(result.json(), flush=True)
    if not options.json:
        print(f"{sentence(facts)}; medians of {bench.runs}\n\n{table(results)}")
    collapsed = [result.name for result in results if result.has_collapsed]
    if collapsed:
        print(f"bench: far below what it should be: {', '.join(collapsed)}", file=sys.stderr)
    return 1 if collapsed else 0


def _measure(bench: Bench, names: list[str]) -> Iterator[Result]:
    for name in names or MEASURES:
        yield from MEASURES[name](bench)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASURES)}; all, if none")
    parser.add_argument("--quick", action="store_true", help="little of everything, once: has it collapsed?")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, the machine first")
    parser.add_argument("--runs", type=_positive, help="how often; medians are told (3; with --quick 1)")
    parser.add_argument(
        "--pg", type=int, metavar="VERSION", help="which Postgres, as in 15 (the newest found)"
    )
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in MEASURES]:
        parser.error(f"no measurement {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _binaries(version: int | None) -> Binaries:
    found = find_binaries(os.environ)
    fitting = [one for one in found if version is None or one.version == version]
    if not fitting:
        there = ", ".join(str(one.version) for one in found) or "none"
        raise ReplicatorError(f"no Postgres {version or ''} to measure on", f"Found: {there}.")
    return max(fitting, key=lambda one: one.version)


if __name__ == "__main__":
    sys.exit(main())
