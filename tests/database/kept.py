"""Orders as JSON → a Postgres of this process, for tests that kill this process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from replicator.demo.account import Account
from replicator.demo.binaries import Binaries
from replicator.demo.guarded import Guarded
from replicator.demo.initdb import environment
from replicator.demo.postgres import Server


def main() -> None:
    """Say which processes there are, and stay until killed."""
    orders = json.loads(sys.argv[1])
    folder, version, release, origin = orders["binaries"]
    binaries = Binaries(Path(folder), version, release, origin)
    account = Account(binaries, orders["user"], orders["group"], tuple(orders["through"]))
    directory = Path(orders["directory"])
    if orders["in_initdb"]:
        guarded = Guarded(directory, account, keep=orders["keep"])
        argv = account.argv("initdb", f"--pgdata={directory / 'data'}", "--username=postgres")
        pid = guarded.run(argv, directory / "server.log", environment())
    else:
        server = Server(binaries, directory=directory, account=account, keep=orders["keep"])
        server.start()
        assert server._guarded is not None
        guarded, pid = server._guarded, server.pid
    print(json.dumps([guarded.guard_pid, pid]), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
