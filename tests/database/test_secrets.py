"""Whatever goes wrong in whichever verb, no secret is printed, and none is in the list of processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from psycopg.conninfo import conninfo_to_dict

from replicator.cli import main
from replicator.queries import house
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

#: Part of every secret, so that each would be recognised, in whatever is made of it.
MARK = "xyzzy"
PASSWORD, KEY, ADMIN, EHR = f"pass{MARK}", f"{MARK}Key" * 6, f"admin{MARK}" * 3, f"ehr{MARK}word"
RULES = house("config") / "rules.yaml"
MAPPING = house("config") / "ehr.yaml"
#: What each verb's arguments may be, where it must have some.
WORDS: dict[str, list[str]] = {
    "table": ["vital_signs"],
    "row_id": ["1"],
    "job": ["1.1"],
    "jobs": ["1.1"],
    "why": ["--why", "because"],
    "file": [str(RULES)],
    "name": ["another_slot"],
    "user": ["u1"],
    "tables": ["vital_signs"],
}
#: These run until they are ended, or have nothing to do with a configuration.
ELSEWHERE = {"run", "demo", "completion"}


def verbs(
    command: click.Command, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in sorted(command.commands.items()):
            yield from verbs(inner, (*words, name))
    elif words[0] not in ELSEWHERE:
        yield words, command


VERBS = dict(verbs(main))


def arguments(command: click.Command) -> list[str]:
    found: list[str] = []
    for one in command.params:
        is_wanted = one.required or (isinstance(one, click.Argument) and one.name in ("jobs", "tables"))
        found += WORDS[str(one.name)] if is_wanted else []
    return found + (["--yes"] if any(one.name == "yes" for one in command.params) else [])


def keys(dsn: str) -> dict[str, Any]:
    return {
        "source": {"dsn": dsn},
        "rules": str(RULES),
        "sync": {
            "listen": "127.0.0.1:0",
            "audience": ["a"],
            "keys": [{"kty": "oct", "kid": "k", "alg": "HS256", "k": KEY}],
            "admin_tokens": [ADMIN],
            "supabase": {"project_url": "http://127.0.0.1:1", "secret": KEY},
            "token": {"key": f"-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----"},
        },
        "ehr": {"mapping": str(MAPPING), "url": "http://127.0.0.1:1", "auth": {"user": "u", "password": EHR}},
    }


def misplaced(dsn: str) -> dict[str, Any]:
    """Secrets where they do not belong, as by a slip of the hand."""
    found = keys(dsn)
    found["source"] |= {"slot": PASSWORD + "!", "publication": [PASSWORD], "on_slot_loss": PASSWORD}
    found["sync"] |= {"listen": ADMIN, "max_age": KEY, "without_tls": ADMIN, "token": {"lifetime": KEY}}
    found["ehr"] |= {"url": f"user:{EHR}@nowhere", "rate": EHR}
    return found


@pytest.fixture(params=["wrong password", "nobody there", "no storage", "misplaced", "no DSN"])
def config(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Path:
    server = database.server
    written = {
        "wrong password": lambda: keys(server.dsn(database.name, password=PASSWORD)),
        "nobody there": lambda: keys(f"postgresql://somebody:{PASSWORD}@127.0.0.1:1/records"),
        "no storage": lambda: keys(database.dsn),
        "misplaced": lambda: misplaced(f"postgresql://somebody:{PASSWORD}@127.0.0.1:1/records"),
        "no DSN": lambda: keys(f"postgresql:/somebody:{PASSWORD}@127.0.0.1:1/records?{PASSWORD}"),
    }
    path = tmp_path / "replicator.yaml"
    path.write_text(json.dumps(written[request.param]()))
    return path


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_no_verb_prints_a_secret(
    words: tuple[str, ...], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where `token keygen` puts what it makes
    command = VERBS[words]
    is_json = any(one.name == "as_json" for one in command.params)
    for options in ([], ["--json"]) if is_json else ([],):
        argv = [*words, *arguments(command), "--config", str(config), *options]
        done = CliRunner().invoke(main, argv)
        # Also that it did not end as nobody foresaw, with a traceback.
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        assert done.exit_code in (0, 1, 2)
        assert MARK not in done.output


@pytest.mark.parametrize("only", ["replicate", "serve", "work"])
def test_nor_does_what_runs(config: Path, children: StartChild, only: str) -> None:
    running = children("run", "--only", only, "--config", config)
    if "127.0.0.1:1/" in config.read_text():
        try:
            running.wait_for("waiting")
        except AssertionError:
            assert running.code in (1, 2), "it has ended, and said why"
        running.terminate()
    running.wait()
    assert MARK not in running.stdout + running.stderr
    assert running.stderr


async def test_no_secret_is_in_the_list_of_processes(
    database: Database, tmp_path: Path, children: StartChild
) -> None:
    config = tmp_path / "replicator.yaml"
    written = keys("${SOURCE_DSN}")
    del written["sync"]["token"], written["ehr"]
    config.write_text(json.dumps(written))
    environ = {"SOURCE_DSN": database.dsn}
    assert children("migrate", "--config", config, env=environ).wait() == 0
    running = children("run", "--config", config, env=environ, block_at=("part started", 2), is_fresh=True)
    running.wait_for("part started", n=2)
    pids = [running.pid, *(int(str(running.wait_for("part started", n=n)["pid"])) for n in (1, 2))]
    lists = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in pids]
    running.go_on()
    assert all("run" in one for one in lists), lists
    password = str(conninfo_to_dict(database.dsn)["password"])
    assert not [one for one in lists if MARK in one or password in one]
