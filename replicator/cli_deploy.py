"""argv → `replicator rules deploy` and `rules list`: other rules beside those in force."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click

from replicator.cli import facts, verb
from replicator.cli_rules import rules
from replicator.config import load


@verb("replicator rules deploy rules.yaml --dry-run", json=True, group=rules)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what it would change and read, and roughly how long.")
@click.option("--no-wait", is_flag=True, help="Only ask; `replicator run` does it.")
def rules_deploy(config: Path | None, file: Path, dry_run: bool, no_wait: bool, as_json: bool) -> None:
    """Put other rules in force, without anybody waiting.

    The new rules are built beside those in force, which go on serving; clients are switched when everything
    is there. Definitions that mean what they meant keep their buckets. If it cannot be done, those in force
    stay.

    The work is done by `replicator run`; interrupting this command does not interrupt it. These rules stay in
    force when the replicator is restarted, until the file that the configuration names is changed.
    """
    from replicator.observe.rules import deployed, deploying, estimate, validate

    settings = load(config, os.environ)
    validated, plan = asyncio.run(deploying.planned(settings, file))
    if plan is None or (validated.rules is not None and validated.rules.warnings and not as_json):
        said = validate.facts_of(validated) if as_json else validate.text_of(validated)
        facts(**said) if isinstance(said, dict) else click.echo(said, err=plan is not None)
    if plan is None:
        sys.exit(2)
    if dry_run:
        estimated = asyncio.run(estimate.estimate(settings, plan))
        if as_json:
            facts(**deployed.facts_of_plan(plan, estimated))
        else:
            click.echo(deployed.text_of_plan(plan, estimated))
        return
    outcome = asyncio.run(deploying.carry_out(settings, plan, wait=not no_wait))
    if as_json:
        facts(**deployed.facts_of_outcome(outcome))
    else:
        click.echo(deployed.text_of_outcome(outcome))
    sys.exit(outcome.exit_code)


@verb("replicator rules list", json=True, group=rules)
def rules_list(config: Path | None, as_json: bool) -> None:
    """Show which rules are in force, which are being prepared, and which were."""
    from replicator.observe.rules import deployed, deploying

    known, reading = asyncio.run(deploying.listed(load(config, os.environ)))
    if as_json:
        facts(**deployed.facts_of_sets(known, reading))
    else:
        click.echo(deployed.text_of_sets(known, reading))
