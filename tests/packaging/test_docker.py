"""What the image and the compose file name is there: files, variables, verbs; and little is left open."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from replicator.cli import main
from replicator.config import load
from replicator.ehr.mapping import load_mapping
from replicator.queries import house
from replicator.rules.parse import load_rules

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = DOCKER / "compose.yaml"
#: Of a value: ${NAME}, ${NAME:-default}, ${NAME:?message}.
VARIABLE = re.compile(r"\$\{([A-Z_]+)[^}]*\}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found = yaml.safe_load(COMPOSE.read_text())
    assert isinstance(found, dict)
    return found


def ours(compose: dict[str, Any]) -> dict[str, Any]:
    services = compose["services"].items()
    return {name: one for name, one in services if one["image"] == "pg-ehr-replicator"}


def instructions(path: Path) -> list[tuple[str, str]]:
    text = path.read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2]) for line in lines]


def test_every_service_is_there_that_another_waits_for(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for one in services.values():
        for name, wanted in one.get("depends_on", {}).items():
            condition = wanted["condition"]
            assert name in services
            assert condition != "service_healthy" or "test" in services[name]["healthcheck"]
    assert {"postgres", "replicator", "ehrbase"} <= services.keys()


def test_every_file_is_there(compose: dict[str, Any]) -> None:
    named = set(compose["volumes"])
    for one in compose["services"].values():
        for volume in one["volumes"] if "volumes" in one else []:
            source = volume.split(":")[0]
            assert source in named or (DOCKER / source).exists(), source
        if "build" in one:
            context = DOCKER / one["build"]["context"]
            assert (context / one["build"]["dockerfile"]).is_file()


def test_every_variable_is_in_the_example_and_none_has_a_value_there() -> None:
    asked = set(VARIABLE.findall(COMPOSE.read_text()))
    lines = [line for line in (DOCKER / "example.env").read_text().splitlines() if not line.startswith("#")]
    assert {line.partition("=")[0] for line in lines} == asked
    assert all(line.endswith("=") for line in lines), "a secret that everybody knows is none"
    assert "${" not in re.sub(r"\$\{[A-Z_]+:\?see example\.env\}", "", COMPOSE.read_text())


def test_every_command_is_a_verb_of_ours_with_its_options(compose: dict[str, Any]) -> None:
    assert len(ours(compose)) == 3
    for one in ours(compose).values():
        command: Any = main
        words = list(one["command"])
        context = click.Context(main)
        while isinstance(command, click.Group):
            command = command.get_command(context, words.pop(0))
        command.make_context(command.name, words)  # which refuses what it does not know


def test_the_configuration_is_one_that_can_be_meant(compose: dict[str, Any], tmp_path: Path) -> None:
    for service in ours(compose).values():
        environ = dict.fromkeys(service["environment"], "A" * 43) | {
            "SOURCE_DSN": VARIABLE.sub("secret", service["environment"]["SOURCE_DSN"]),
            "EHR_URL": service["environment"]["EHR_URL"],
        }
        config = load(DOCKER / "replicator.yaml", environ)
        folder = Path("/etc/replicator")
        mounted = dict(volume.split(":")[1::-1] for volume in service["volumes"])
        rules = mounted[str(folder / config.rules_path.name)]
        mapping = mounted[str(folder / config.ehr.mapping_path.name)]
        load_rules(DOCKER / rules)
        load_mapping(DOCKER / mapping)
        assert str(folder / "replicator.yaml") in mounted
        assert int(compose["services"]["replicator"]["stop_grace_period"][:-1]) > config.run.stop_timeout_s


def test_nothing_is_reachable_from_elsewhere(compose: dict[str, Any]) -> None:
    published = [port for one in compose["services"].values() for port in one.get("ports", [])]
    assert published and all(port.startswith("127.0.0.1:") for port in published)


def test_ours_can_change_nothing_and_is_nobody(compose: dict[str, Any]) -> None:
    for one in ours(compose).values():
        assert one["read_only"] is True and one["cap_drop"] == ["ALL"]
    found = instructions(DOCKER / "Dockerfile")
    users = [value for name, value in found if name == "USER"]
    assert users and users[-1].partition(":")[0].isdigit() and users[-1].partition(":")[0] != "0"
    (check,) = [value for name, value in found if name == "HEALTHCHECK"]
    assert "/probes/liveness" in check


def test_the_image_is_made_of_what_the_package_is_made_of(tmp_path: Path) -> None:
    """The files that are copied are there, are not ignored, and are enough to build the package of."""
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    copied: list[str] = []
    for name, value in instructions(DOCKER / "Dockerfile"):
        if name == "COPY" and not value.startswith("--from"):
            copied += value.split()[:-1]
    for name in copied:
        assert f"!{name}" in ignored
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    pytest.importorskip("hatchling.build", reason="building the package needs hatchling")
    code = (
        f"import os; os.chdir({str(tmp_path)!r}); from hatchling.build import build_wheel; build_wheel('out')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    (wheel,) = (tmp_path / "out").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for part in ("replicator/cli.py", "replicator/sql/schema.sql", "replicator/config/replicator.yaml"):
        assert part in names


def test_the_clinic_of_the_image_takes_the_sections_that_are_there() -> None:
    script = (DOCKER / "clinic.sh").read_text()
    subprocess.run(["sh", "-n", str(DOCKER / "clinic.sh")], check=True)
    for section in re.findall(r"^section (\w+)", script, re.MULTILINE):
        assert f"-- name: {section}\n" in (house("sql") / "clinic.sql").read_text()
