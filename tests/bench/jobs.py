"""The workload, mapped → what it costs the main path that each of its rows becomes a job as well."""

from __future__ import annotations

from collections.abc import Iterator

from replicator import queries
from tests.bench import ours
from tests.bench.bench import Bench
from tests.bench.place import source
from tests.bench.result import Result, at_least

_MAPPING = queries.house("config") / "ehr" / "clinic.yaml"


def jobs(bench: Bench) -> Iterator[Result]:
    """The same log through the pipeline twice: with a record system to feed, and without."""
    rows = bench.count(200_000, 20_000)
    fed: list[float] = []
    plain: list[float] = []
    with source(bench.serve(), "bench_jobs") as db:
        for run in range(1, bench.runs + 1):
            for kind in ("fed", "plain"):
                ours.run(ours.Order("replicate", db.dsn, f"{kind}_{run}", 0, f"{kind}_{run}"))
        bench.say(f"jobs: writing {rows:,} rows")
        db.write(rows, per_transaction=1000)
        for run in bench.each("jobs"):
            for kind, found, mapping in (("plain", plain, ""), ("fed", fed, str(_MAPPING))):
                name = f"{kind}_{run}"
                db.settle()
                took = ours.run(ours.Order("replicate", db.dsn, name, rows, name, mapping=mapping))
                waiting = db.session.execute(f'SELECT count(*) FROM "{name}".ehr_sync_queue_open'.encode())
                expected = rows if mapping else 0
                if waiting.fetchone() != (expected,):
                    raise RuntimeError("not every row became a job: this measured something else")
                found.append(rows / took.seconds)
                db.drop_schema(name)
    yield Result("jobs", fed, "rows/s", "without jobs", plain, at_least(0.7))
