"""A Clinic → the same, replicated and served by processes of their own, and asked over HTTP."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.faults.clinic import Clinic
from tests.fixtures.children import Child, StartChild
from tests.fixtures.postgres import Database
from tests.fixtures.tokens import AUDIENCE, KEY

ADMIN = "sixteen-letters-or-more"
Answer = tuple[int, Any]


class Served(Clinic):
    """What replicates, what serves, and who asks."""

    def __init__(
        self, database: Database, folder: Path, children: StartChild, rules: str | None = None, **sync: Any
    ) -> None:
        super().__init__(database, folder, children, rules=rules)
        self.start_child, self.url = children, ""
        self.serving: Child | None = None
        keys = json.loads(self.path.read_text())
        given = {"listen": "127.0.0.1:0", "audience": [AUDIENCE], "keys": [KEY], "admin_tokens": [ADMIN]}
        self.path.write_text(json.dumps({**keys, "sync": {**given, **sync}}))

    @property
    def config(self) -> Path:
        return self.path

    @property
    def rules_text(self) -> str:
        return self.rules.read_text()

    def replicate(self) -> Child:
        self._last = self.start_child("run", "--only", "replicate", "--config", self.path)
        return self._last

    def serve(self) -> Child:
        self.serving = serving = self.start_child("run", "--only", "serve", "--config", self.path)
        self.url = f"http://{serving.wait_for('serving')['address']}"
        return serving

    def serve_again(self) -> Child:
        """Where it was served before."""
        written = json.loads(self.path.read_text())
        written["sync"]["listen"] = self.url.removeprefix("http://")
        self.path.write_text(json.dumps(written))
        return self.serve()

    def until_ready(self) -> None:
        """Wait until the server sees what is shown."""
        deadline = time.monotonic() + 60
        while self.request("/probes/readiness", token=None)[0] != 200:
            assert time.monotonic() < deadline, "it never became ready"
            time.sleep(0.02)

    def request(
        self,
        path: str,
        body: bytes | dict[str, Any] | None = None,
        *,
        token: str | None = ADMIN,
        kind: str = "application/json",
    ) -> Answer:
        """Status and body of an answer."""
        headers = {"content-type": kind}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        request = urllib.request.Request(f"{self.url}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def people(self) -> list[str]:
        return [str(row[0]) for row in self.database.execute("SELECT id FROM users ORDER BY firebase_uid")]

    def until(self, path: str, token: str, holds: Any) -> dict[str, Any]:
        """The first answer of which this holds."""
        deadline = time.monotonic() + 60
        while True:
            status, body = self.request(path, token=token)
            assert status == 200, body
            if holds(body):
                return dict(body)
            assert time.monotonic() < deadline, body
            time.sleep(0.2)
