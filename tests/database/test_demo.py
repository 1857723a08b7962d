"""The demo shows a patient's bucket and record fill, what it says to type works, and it goes as it came."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.faults.weather import wait_until
from tests.fixtures.children import Child, StartChild

pytestmark = pytest.mark.timeout(240)


def said(child: Child, pattern: str) -> re.Match[str]:
    """Wait until it has said so."""
    until = time.monotonic() + 150
    while (found := re.search(pattern, child.stdout, re.MULTILINE)) is None:
        assert child.code is None and time.monotonic() < until, child.stdout + child.stderr
        time.sleep(0.05)  # between two looks; what is waited for are its words
    return found


def folder_of(demo: Child) -> Path:
    return Path(said(demo, r"REPLICATOR_CONFIG=(\S+)/replicator\.yaml")[1])


def processes_in(folder: Path) -> list[str]:
    """What runs with this folder in its command, such as a part of the replicator, or Postgres."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{folder}/" in words:
            found.append(words)
    return found


def test_what_the_banner_says_to_type_works_as_it_stands(children: StartChild) -> None:
    demo = children("demo", "--patients", "5", "--rate", "20")
    lines = said(demo, r"^  export [^\n]+\n(  replicator [^\n]+\n){3}")[0].splitlines()
    setting, *commands = [line.strip() for line in lines]
    assert [line.split()[1] for line in commands] == ["tail", "rules", "queue"]
    assert re.search(r"5 patients, about 20 changes a second", demo.stdout)
    said(demo, r"record  created +vital_signs/\S+  version 1 of composition \S+")
    said(demo, r"record  status +users/")
    said(demo, r"PUT +vital_signs/")
    # One who follows ends by himself only if told to.
    tail, test, queue = (pasted(setting, line) for line in (f"{commands[0]} --limit 1", *commands[1:]))
    user = commands[0].split()[-1]
    assert "checkpoint" in tail and user in test and "user_data" in test
    # Of which tables the ten are that it lists, chance decides.
    assert (
        len(re.findall(r"  done  (?:create|update|delete|status) \w+ ", queue)) == 10 and "10 jobs" in queue
    )
    folder = folder_of(demo)
    assert processes_in(folder) and (folder / "replicator.yaml").stat().st_mode & 0o077 == 0
    demo.interrupt()
    assert demo.wait() == 0, demo.stderr
    assert not folder.exists() and processes_in(folder) == []
    assert demo.stderr == ""


def pasted(setting: str, command: str) -> str:
    """What a shell prints in which nothing is set up."""
    environ = {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(
        ["sh", "-c", f"{setting}\n{command}"], env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_page_is_there_and_asks_for_the_token_that_its_address_brings(children: StartChild) -> None:
    demo = children("demo", "--patients", "2")
    root, token = said(demo, r"status page +(http://127\.0\.0\.1:\d+)/#token=(\S+)").groups()
    with urllib.request.urlopen(root, timeout=60) as page:
        assert b"<title>replicator</title>" in page.read()
    request = urllib.request.Request(
        f"{root}/api/admin/v1/status", headers={"authorization": f"Bearer {token}"}
    )

    def running() -> dict[str, int]:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.loads(answer.read())["running"])

    wait_until(lambda: running() == {"replicate": 1, "serve": 1, "work": 1})


def test_killed_it_leaves_nothing_either(children: StartChild) -> None:
    demo = children("demo", "--patients", "2")
    folder = folder_of(demo)
    assert processes_in(folder)
    demo.kill()
    wait_until(lambda: not folder.exists() and processes_in(folder) == [])


def test_what_is_kept_is_gone_on_with(children: StartChild, place: Path) -> None:
    folder = place / "kept"
    first = children("demo", "--patients", "2", "--keep", folder, "--seconds", "2")
    user = said(first, r"replicator tail --user (\S+)")[1]
    assert first.wait(120) == 0, first.stderr
    assert f"replicator demo --keep {folder} goes on from there" in first.stdout
    assert processes_in(folder) == []
    rules = folder / "rules.yaml"
    rules.write_text(f"# ours\n{rules.read_text()}")
    second = children("demo", "--patients", "9", "--keep", folder)
    assert said(second, r"replicator tail --user (\S+)")[1] == user
    assert "a clinic with 2 patients" in second.stdout and rules.read_text().startswith("# ours\n")
    third = children("demo", "--keep", folder)
    assert third.wait(120) == 2 and "a server runs in" in third.stderr
    second.interrupt()
    assert second.wait(120) == 0, second.stderr
