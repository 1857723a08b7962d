"""argv → `replicator rules …`: what rules say, what they come to, and what they give to whom."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import click
import orjson

from replicator.cli import main, verb
from replicator.config import Config, load
from replicator.settings.keys import SourceKeys

_FILE = click.argument("file", required=False, type=click.Path(path_type=Path))


@main.group()
def rules() -> None:
    """The rules that say which rows belong to whom: check them, read them, try them."""


@verb("replicator rules validate rules.yaml", json=True, group=rules)
@_FILE
@click.option(
    "--source", "with_source", is_flag=True, help="Also look whether the source has what they name."
)
def rules_validate(config: Path | None, file: Path | None, with_source: bool, as_json: bool) -> None:
    """Say everything that is wrong with a rules file, and what may not be meant.

    FILE is the one that the configuration names if it is left out. Exit code 2 if there are problems, 1 if
    the source lacks a table or column, or does not publish it; warnings do not count.
    """
    from replicator.observe.rules import validate as validation

    settings = load(config, os.environ) if with_source else None
    path = file or _path(config, settings)
    validated = asyncio.run(validation.validate(path, settings))
    if as_json:
        _print(validation.facts_of(validated))
    else:
        click.echo(validation.text_of(validated))
    sys.exit(validated.exit_code)


@verb("replicator rules explain rules.yaml user_data | less", json=True, group=rules)
@_FILE
@click.argument("name", required=False)
def rules_explain(config: Path | None, file: Path | None, name: str | None, as_json: bool) -> None:
    """Say what a rules file comes to: who gets which rows, and what that takes.

    With NAME, only that definition. FILE is the one that the configuration names if it is left out.
    """
    from replicator.observe.rules import text as rules_text
    from replicator.observe.rules.explain import explain
    from replicator.rules.parse import load_rules

    if file is not None and name is None and not file.suffix and not file.exists():
        file, name = None, str(file)
    settings = load(config, os.environ) if _is_configured(config) and file is None else None
    publication = settings.source.publication if settings else SourceKeys().publication
    explained = explain(load_rules(file or _path(config, settings)), publication, name)
    if as_json:
        _print(rules_text.facts_of(explained))
    else:
        click.echo(rules_text.text_of(explained, min(shutil.get_terminal_size((88, 24)).columns, 100)))


@verb("replicator rules test --user ann --rows", json=True, group=rules)
@click.option("--user", metavar="SUB", help="The token's subject.")
@click.option("--jwt", "token", type=click.File("r"), help="A file with a token, or its claims as JSON.")
@click.option("--parameters", metavar="JSON", help="What the client sends with its connection.")
@click.option("--stream", "streams", metavar="NAME[=JSON]", multiple=True, help="A stream it subscribes to.")
@click.option("--row", "row", metavar="TABLE ID", nargs=2, help="Ask about this row instead.")
@click.option("--rows", "with_rows", is_flag=True, help="Show the rows themselves, not only how many.")
@click.option("--max-buckets", default=1000, show_default=True, type=click.IntRange(min=1))
@click.option("--max-rows", default=1000, show_default=True, type=click.IntRange(min=1))
def rules_test(
    config: Path | None,
    user: str | None,
    token: TextIO | None,
    parameters: str | None,
    streams: tuple[str, ...],
    row: tuple[str, str] | None,
    with_rows: bool,
    max_buckets: int,
    max_rows: int,
    as_json: bool,
) -> None:
    """Show what a user would get from the source as it is now, or where one row is.

    With --row, the buckets that hold the row, and what keeps it out of the others; with --user as well,
    which of them are this user's. Signatures are not checked: whoever may read the source may ask as anybody.

    \b
    Prints what rows say. Do not send it where health records must not go.
    Exit code 1 if the user gets no bucket.

    \b
    More examples:
      replicator rules test --user ann --stream 'todos={"list": "l1"}'
      replicator rules test --row vital_signs 8c0a5b1e-3d43-4d2c-9a52-0f4c3f0e7f11
    """
    from replicator.observe.rules import row as rules_row
    from replicator.observe.rules import told as rules_told
    from replicator.observe.rules import user as rules_user
    from replicator.observe.rules.asked import user_of
    from replicator.rules.parse import load_rules

    if user is None and token is None and row is None:
        raise click.UsageError("say who asks, with --user or --jwt, or about which --row")
    settings = load(config, os.environ)
    is_somebody = user is not None or token is not None
    claims = token.read() if token is not None else None
    who = user_of(user, claims, parameters, streams) if is_somebody else None
    loaded = load_rules(settings.rules_path)
    if row is not None:
        placement = asyncio.run(rules_row.place(settings, loaded, *row, who))
        _show(rules_told.facts_of_row(placement), rules_told.text_of_row(placement), as_json)
        return
    assert who is not None, "somebody asks, or about a row"
    most = max_rows if with_rows else 0
    got = asyncio.run(rules_user.get(settings, loaded, who, most_buckets=max_buckets, most_rows=most))
    _show(rules_told.facts_of_user(got, with_rows=with_rows), rules_told.text_of_user(got), as_json)
    sys.exit(got.exit_code)


def _is_configured(config: Path | None) -> bool:
    return config is not None or bool(os.environ.get("REPLICATOR_CONFIG"))


def _path(config: Path | None, settings: Config | None) -> Path:
    """Where the rules are; without a configuration, where they are by default."""
    if settings is None and _is_configured(config):
        settings = load(config, os.environ)
    return settings.rules_path if settings else Path("rules.yaml")


def _show(facts: Mapping[str, object], text: str, as_json: bool) -> None:
    if as_json:
        _print(facts)
    else:
        click.echo(text)


def _print(facts: Mapping[str, object]) -> None:
    click.echo(orjson.dumps(facts, option=orjson.OPT_APPEND_NEWLINE), nl=False)
