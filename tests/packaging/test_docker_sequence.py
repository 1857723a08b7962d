"""What compose does step by step, done by hand on a Postgres of this machine: it replicates and serves."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import yaml

from replicator.demo.postgres import Server
from replicator.queries import house
from tests.faults.weather import wait_until
from tests.fixtures.children import StartChild
from tests.fixtures.servers import Found

ROOT = Path(__file__).parents[2]


async def test_the_steps_lead_to_a_replicator_that_serves(
    pg: Found, own_server: Callable[..., Server], tmp_path: Path, children: StartChild
) -> None:
    psql = pg.binaries.bin / "psql" if pg.binaries is not None else None
    if psql is None or not psql.exists():
        pytest.skip("needs psql beside the server")
    server = own_server()
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE clinic")
    initialise(server, psql, tmp_path)
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    config = configured(tmp_path)
    secrets = {"SYNC_KEY": "A" * 43, "ADMIN_TOKEN": "B" * 20, "EHR_USER": "e", "EHR_PASSWORD": "C" * 20}
    dba, ours = server.dsn("clinic"), server.dsn("clinic", user="replicator", password="D" * 20)
    # Nobody answers there, as when the EHRbase is still starting.
    for name, dsn in (("publication", dba), ("migrate", ours), ("replicator", ours)):
        environ = {**secrets, "SOURCE_DSN": dsn, "EHR_URL": "http://127.0.0.1:9/openehr/v1"}
        step = children(*services[name]["command"], "--config", config, env=environ)
        if name != "replicator":
            assert step.wait() == 0, f"{name}: {step.stdout}{step.stderr}"
    step.wait_for("part ready", part="replicate")
    step.wait_for("part ready", part="serve")
    with psycopg.connect(dba, autocommit=True) as clinic:
        clinic.execute("INSERT INTO users (firebase_uid) VALUES ('u1')")
        wait_until(lambda: clinic.execute("SELECT count(*) FROM replicator.history").fetchone() == (1,))
    step.terminate()
    assert step.wait() == 0, step.stderr
    for secret in ("A" * 43, "B" * 20, "C" * 20, "D" * 20):
        assert secret not in step.stderr


def initialise(server: Server, psql: Path, folder: Path) -> None:
    """What the image of Postgres does with a script in its folder."""
    script = (ROOT / "docker" / "clinic.sh").read_text()
    local = folder / "clinic.sh"
    local.write_text(script.replace("/clinic.sql", str(house("sql") / "clinic.sql")))
    parts = psycopg.conninfo.conninfo_to_dict(server.dsn("clinic"))
    environ = {
        "PATH": f"{psql.parent}{os.pathsep}{os.environ['PATH']}",
        "PGHOST": str(parts["host"]),
        "PGPORT": str(parts["port"]),
        "PGPASSWORD": str(parts["password"]),
        "POSTGRES_USER": str(parts["user"]),
        "POSTGRES_DB": "clinic",
        "REPLICATOR_PASSWORD": "D" * 20,
    }
    done = subprocess.run(["sh", str(local)], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def configured(folder: Path) -> Path:
    """The configuration of compose, at a port that is free, with its files where they are here."""
    text = (ROOT / "docker" / "replicator.yaml").read_text()
    volumes = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]["replicator"][
        "volumes"
    ]
    mounted = dict(volume.split(":")[1::-1] for volume in volumes)
    for name in ("rules.yaml", "ehr.yaml"):
        assert f": {name}" in text
        there = ROOT / "docker" / mounted[f"/etc/replicator/{name}"]
        text = text.replace(f": {name}", f": {there}")
    assert "0.0.0.0:8080" in text
    path = folder / "replicator.yaml"
    path.write_text(text.replace("0.0.0.0:8080", "127.0.0.1:0"))
    return path
