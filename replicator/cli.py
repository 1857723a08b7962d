"""argv → Config → a verb; and an error of ours → two lines and an exit code.

Exit codes: 0 done, 1 failed, 2 misconfigured. What a verb prints with --json are facts for programs; errors
then are JSON too. Nothing else is decided here.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import orjson

from replicator import __version__, logs
from replicator.config import load
from replicator.errors import ConfigError, ReplicatorError

if TYPE_CHECKING:
    from replicator.buckets.tables import TableState

_Verb = Callable[..., Any]
STOPPING = (signal.SIGTERM, signal.SIGINT)


class Verbs(click.Group):
    """Verbs, each listed with its whole first sentence, over as many lines as that takes."""

    group_class = type

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = self.list_commands(ctx)
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.commands[name].get_short_help_str(200)) for name in names])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="replicator")
def main() -> None:
    """Postgres to offline-first apps and an openEHR server, from one write-ahead log.

    \b
    Start here:
      replicator demo                       see it work, with a Postgres of its own
      replicator run --config my.yaml       run it against yours
    """


def verb(example: str, *, json: bool = False, group: click.Group = main) -> Callable[[_Verb], click.Command]:
    """A command with --config, an example in its help, and errors of ours told as such."""

    def decorate(function: _Verb) -> click.Command:
        def called(**values: Any) -> None:
            as_json = bool(values.get("as_json"))
            try:
                function(**values)
            except ReplicatorError as error:
                _fail(error, as_json)

        called.__name__, called.__doc__ = function.__name__, function.__doc__
        called.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]  # where click keeps the options it was given below
        name = function.__name__.strip("_").removeprefix(f"{group.name}_")
        command = group.command(name, epilog=f"\b\nExample:\n  {example}")(called)
        command.params.append(_CONFIG)
        if json:
            command.params.append(_JSON)
        return command

    return decorate


_CONFIG = click.Option(
    ["--config"],
    type=click.Path(path_type=Path),
    help="The configuration file; else $REPLICATOR_CONFIG; else defaults and $SOURCE_DSN.",
)
_JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print facts as JSON.")


@verb("replicator migrate --dry-run", json=True)
@click.option("--dry-run", is_flag=True, help="Print the SQL instead of running it.")
def migrate(config: Path | None, dry_run: bool, as_json: bool) -> None:
    """Create the storage schema, or bring it to what this release knows.

    Touches nothing outside the schema the configuration names under storage.schema. Refuses a schema that a
    newer release has migrated.
    """
    from replicator.database import migrate as bring

    settings = load(config, os.environ)
    schema = settings.storage.schema_name
    plan = asyncio.run(bring(settings.storage_dsn, schema, dry_run=dry_run))
    if as_json:
        facts(schema=schema, dry_run=dry_run, applied=[m.name for m in plan.pending])
    elif dry_run:
        click.echo("\n".join(plan.statements()) or "-- nothing to do")
    else:
        for migration in plan.pending:
            click.echo(f"applied {migration.number:04d} {migration.name}")
        click.echo(f"schema {schema} is up to date")


@verb("replicator snapshot vital_signs lab_results", json=True)
@click.argument("tables", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every table, from wherever the source is now.")
@click.option("--no-wait", is_flag=True, help="Only ask; `replicator run` does it.")
def snapshot(
    config: Path | None, tables: tuple[str, ...], everything: bool, no_wait: bool, as_json: bool
) -> None:
    """Copy tables again, while everything goes on.

    The first copy needs no asking. This one repairs: after a table left and re-entered the publication, or,
    with --all, after the slot was lost or the source replaced. What clients see stays as it is until the copy
    is complete. The work is done by `replicator run`; interrupting this command does not interrupt the copy.
    """
    from replicator.observe.copies import recopy

    if bool(tables) == everything:
        raise click.UsageError("name the tables, or say --all")
    settings = load(config, os.environ)
    states = asyncio.run(recopy(settings, tables, everything=everything, wait=not no_wait))
    if as_json:
        facts(tables=[_copied(state) for state in states])


@verb("""replicator tail --bucket 'user_data["u1"]'""")
@click.option("--bucket", help="Only this bucket; else all.")
@click.option("--from-start", is_flag=True, help="Begin with the oldest op instead of the next one.")
@click.option(
    "--limit", type=click.IntRange(min=1), help="End after so many ops; of a user, complete checkpoints."
)
@click.option("--user", metavar="SUB", help="Be a client of this user, of a running server.")
@click.option("--server", metavar="URL", help="That server; else sync.token.url, or sync.listen.")
@click.option("--token", help="A token, instead of one signed here; - to read it from standard input.")
@click.option(
    "--client", metavar="ID", help="Which of the user's clients, for write checkpoints; else a new one."
)
@click.option("--rows", "with_rows", is_flag=True, help="Of a user: show each op, with what the row says.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per op, or per event of a user.")
def tail(
    config: Path | None,
    bucket: str | None,
    from_start: bool,
    limit: int | None,
    user: str | None,
    server: str | None,
    token: str | None,
    client: str | None,
    with_rows: bool,
    as_json: bool,
) -> None:
    """Show ops as checkpoints make them visible, in this terminal.

    Prints what rows say. Do not send it where health records must not go.

    With --user, be a client of a running server instead: speak its protocol, keep what a phone would keep,
    and compare the sums. Prints no rows unless --rows is given. Exit code 1 if a sum does not hold.

    \b
    More examples:
      replicator tail --user ann
      replicator tail --user ann --server https://sync.clinic.example --json --limit 1
    """
    if (user, server, token) != (None, None, None):
        if bucket is not None or from_start:
            raise click.UsageError("--bucket and --from-start are about storage, not about a user")
        _tail_user(config, user, server, token, client, limit, with_rows, as_json)
        return
    from replicator.observe.tail import tail as follow

    settings = load(config, os.environ)
    _until_interrupted(follow(settings, bucket=bucket, from_start=from_start, limit=limit, as_json=as_json))


def _tail_user(
    config: Path | None,
    user: str | None,
    server: str | None,
    token: str | None,
    client: str | None,
    limit: int | None,
    with_rows: bool,
    as_json: bool,
) -> None:
    from replicator.observe.tail_shown import Lines, Shown, Table
    from replicator.observe.tail_user import door, tail_user

    if user is None and token is None:
        raise click.UsageError("say who connects, with --user or --token")
    token = sys.stdin.read().strip() if token == "-" else token
    settings = None if server is not None and token is not None else load(config, os.environ)
    way = door(settings, os.environ, user, server, token)
    is_drawn = sys.stdout.isatty() and not as_json and not with_rows
    shown: Shown = Table() if is_drawn else Lines(click.echo, as_json=as_json, with_rows=with_rows)
    _until_interrupted(tail_user(way, shown, limit, client))


@verb("replicator demo --seconds 60")
@click.option("--seconds", type=click.FloatRange(min=1), help="End after so long; else on Ctrl-C.")
@click.option("--patients", default=200, show_default=True, type=click.IntRange(min=1, max=100_000))
@click.option(
    "--rate", default=5.0, show_default=True, help="Changes a second.", type=click.FloatRange(0.1, 10_000)
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    is_flag=False,
    flag_value="replicator-demo",
    help="Keep it all in this folder (else: replicator-demo), and go on from there the next time.",
)
def demo(config: Path | None, seconds: float | None, patients: int, rate: float, keep: Path | None) -> None:
    """Start a Postgres of its own with a small clinic at work in it, and a replicator beside it.

    It shows a patient's bucket and record filling, serves the status page, and says what to try in another
    terminal. The record system is a sandbox: a stand-in of our own, with templates made of the mapping.

    Needs no configuration (any given is ignored) and leaves nothing behind.
    """
    from replicator.demo.show import show

    logs.to_stderr(quiet=True)
    _until_interrupted(show(seconds=seconds, patients=patients, rate=rate, keep=keep))


@main.command(epilog='\b\nExample:\n  eval "$(replicator completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete replicator's commands and options."""
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None, "click knows these three"
    click.echo(made(main, {}, "replicator", "_REPLICATOR_COMPLETE").source())


def _until_interrupted(work: Coroutine[Any, Any, None]) -> None:
    """Run what has nothing to finish: SIGTERM and Ctrl-C end it where it is."""

    async def body() -> None:
        task = asyncio.create_task(work)
        for number in STOPPING:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(body())


def ask(question: str, yes: bool) -> None:
    """Go on only if somebody says so, now or by --yes."""
    if not yes and not sys.stdin.isatty():
        raise ConfigError("this asks before it changes anything, and nobody is here to answer", "Add --yes.")
    if not yes:
        click.confirm(question, abort=True, err=True)


def width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 110)


def facts(**facts: object) -> None:
    click.echo(orjson.dumps(facts, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS), nl=False)


def _copied(state: TableState) -> dict[str, object]:
    return {"table": f"{state.namespace}.{state.name}", "state": state.state, "rows": state.rows_copied}


def _fail(error: ReplicatorError, as_json: bool) -> NoReturn:
    if as_json:
        facts(error=type(error).__name__, what=error.what, hint=error.hint)
    else:
        click.secho("error: ", fg="red", bold=True, nl=False, err=True)
        click.echo(error.what, err=True)
        for line in error.hint.splitlines():
            click.echo(f"  {line}", err=True)
    sys.exit(error.exit_code)


# The verbs about rules, the source and tokens, which need what stands above.
import replicator.cli_buckets  # noqa: E402
import replicator.cli_deploy  # noqa: E402
import replicator.cli_queue  # noqa: E402
import replicator.cli_rules  # noqa: E402
import replicator.cli_run  # noqa: E402
import replicator.cli_source  # noqa: E402
import replicator.cli_status  # noqa: E402
import replicator.cli_token  # noqa: E402, F401
