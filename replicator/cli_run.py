"""argv → `replicator run`: one part in this process, or all of them in processes beside each other."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from replicator import logs
from replicator.cli import STOPPING, verb
from replicator.errors import ReplicatorError, place_of
from replicator.marks import mark

if TYPE_CHECKING:
    from replicator.files import Files
    from replicator.together import Together, Watch

_T = TypeVar("_T")
_Work = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


@verb("replicator run --config /etc/replicator/replicator.yaml")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(["replicate", "serve", "work"]),
    help="Run only this part; else all that are configured.",
)
def run(config: Path | None, only: tuple[str, ...]) -> None:
    """Run the replicator until it is told to stop.

    Follows the source's write-ahead log into buckets, serves them to apps where the configuration says whom
    to let in, and delivers clinical changes where it names a record system (ehr.url). Waits for servers that
    do not answer; ends with exit code 1 and the remedy when going on would be wrong.

    The parts are processes of their own, and one that is killed or crashes is started again. Any number of
    machines may serve from one storage, with --only serve, and deliver from it, with --only work; one
    replicates, and others with --only replicate stand by, and take over when it ends.

    SIGTERM ends the work that is under way, for run.stop_timeout at most. SIGHUP reads the rules, the mapping
    and run.log_level again; other rules are built beside those in force.

    \b
    More examples:
      replicator run --only serve
      replicator run --only work
    """
    # Until there is something to reload, being told to must not end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from replicator.files import Files
    from replicator.notify import Notifier
    from replicator.together import CRASHED, Together, Watch, parts

    logs.to_stderr()
    files = Files(config, os.environ)
    logs.set_level(files.config.run.log_level)
    names = list(dict.fromkeys(only or parts(files.config, os.environ)))
    for name in names:
        files.read_for(name)  # what is wrong with them is told before anything is started
    watch = Watch(names, Notifier())
    code = 0
    try:
        if len(names) == 1:
            _run_one(names[0], files, watch)
        else:
            code = _run_all(Together(names, config, watch), files)
    except ReplicatorError:
        raise
    except Exception as error:  # what it says may hold a row's value
        mark("crashed", level=logging.CRITICAL, why=place_of(error))
        code = CRASHED
    sys.exit(code)


def _run_all(together: Together, files: Files) -> int:
    async def work(stop: asyncio.Event) -> int:
        return await together.run(stop, files.config.run.stop_timeout_s)

    def reload() -> None:
        if files.reload():
            together.reload()

    return asyncio.run(_told(work, reload))


def _run_one(name: str, files: Files, watch: Watch) -> None:
    from replicator.observe.metrics.telling import telling
    from replicator.part import live, parent

    work, above, storage = _work_of(name, files), parent(), files.config.storage

    async def living(stop: asyncio.Event) -> None:
        async with telling(files.config.storage_dsn, storage.schema_name, name):
            await _live(stop)

    async def _live(stop: asyncio.Event) -> None:
        if above is None:
            await live(work, stop, files.config.run.stop_timeout_s, lambda now: watch.hear(name, now))
        else:  # which waits for us, no longer than that
            above.watch(asyncio.get_running_loop(), stop)
            await live(work, stop, None, above.tell)

    with asyncio.Runner(loop_factory=_loop_factory(name)) as runner:
        runner.run(_told(living, files.reload))


async def _told(work: Callable[[asyncio.Event], Coroutine[Any, Any, _T]], reload: Callable[[], object]) -> _T:
    """Run what stops by itself when asked: SIGTERM and Ctrl-C set the event."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in STOPPING:
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    return await work(stop)


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if name != "serve":
        return None
    import uvloop

    return uvloop.new_event_loop


def _work_of(name: str, files: Files) -> _Work:
    if name == "serve":
        from replicator.serve import run_serve

        return lambda stop: run_serve(files.config, stop, os.environ)
    if name == "work":
        return lambda stop: _deliver(files, stop)
    from replicator.supervise import run_replicate

    rules = files.rules
    assert rules is not None, "they were read for it"
    return lambda stop: run_replicate(files.config, rules, stop, files)


async def _deliver(files: Files, stop: asyncio.Event) -> None:
    """Work by the mapping as it is; and when it is another, finish what was taken, and work by that."""
    from replicator.supervise import first_to_end
    from replicator.work import run_work

    while not stop.is_set():
        files.renewed.clear()
        enough = asyncio.Event()

        async def end(told: asyncio.Event, enough: asyncio.Event = enough) -> None:
            await told.wait()
            enough.set()
            await asyncio.Event().wait()  # the work ends by itself, in its own time

        assert files.mapping is not None, "it was read for delivering"
        await first_to_end(run_work(files.config, files.mapping, enough), end(stop), end(files.renewed))
