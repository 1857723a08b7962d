"""The folder of a running server → in it, the files with which `replicator` works on the demo's clinic."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import NamedTuple

from replicator import queries
from replicator.demo.port import LOOPBACK

_CONFIG = """\
# What `replicator demo` runs with; written anew whenever it starts.
source: {{dsn: "{dsn}", publication: powersync, slot: replicator}}
storage: {{dsn: "{dsn}"}}
rules: rules.yaml
run: {{log_level: warning}}
sync:
  listen: {listen}
  audience: [demo]
  keys: [{{kty: oct, kid: demo, alg: HS256, k: "{key}"}}]
  admin_tokens: ["{token}"]
ehr: {{mapping: ehr.yaml, url: "{record}"}}
"""


class Place(NamedTuple):
    """Where everything is."""

    config: Path
    #: Where apps and the status page are served.
    root: str
    #: What the page asks for.
    token: str


def lay_out(folder: Path, dsn: str, record: str, port: int) -> Place:
    """Write the configuration; and rules and mapping, unless somebody who came back has written others."""
    config = queries.house("config")
    for name, given in (("rules.yaml", config / "rules.yaml"), ("ehr.yaml", config / "ehr" / "clinic.yaml")):
        if not (folder / name).exists():
            shutil.copyfile(given, folder / name)
    token, listen = secrets.token_urlsafe(18), f"{LOOPBACK}:{port}"
    text = _CONFIG.format(dsn=dsn, listen=listen, key=secrets.token_urlsafe(32), token=token, record=record)
    path = folder / "replicator.yaml"
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return Place(path, f"http://{listen}", token)
