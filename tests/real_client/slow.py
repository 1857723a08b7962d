"""An address → the same address over a line that stands still where a test wants it to."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from replicator.demo.port import LOOPBACK
from tests.fixtures.proxy import Proxy
from tests.real_client.phones import PATIENCE_S

#: Bytes a second: slow enough to be stopped where it is meant, since a kernel's buffers hold more than tests.
_SLOWLY = 2_000_000


@dataclass(frozen=True)
class _Address:
    """What a Proxy asks of what it stands before."""

    port: int
    version: int = 0

    def dsn(self, database: str = "", **params: Any) -> str:
        return make_conninfo("", **{"host": LOOPBACK, "port": self.port, "dbname": database, **params})


class SlowLine:
    """Stands between phones and what serves them, who may both compress: it counts the bytes that remain."""

    def __init__(self, port: int) -> None:
        self._proxy = Proxy(_Address(port))
        self._watching: threading.Thread | None = None
        self._is_stalled = False

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{conninfo_to_dict(self._proxy.dsn())['port']}"

    def stall_after(self, count: int) -> None:
        """Stand still once about so many bytes have come to phones."""
        self._proxy.throttle(_SLOWLY)
        upto = self._proxy.to_client + count
        self._watching = threading.Thread(target=self._stall_at, args=[upto], daemon=True)
        self._watching.start()

    def _stall_at(self, count: int) -> None:
        with suppress(TimeoutError):
            self._proxy.wait_until(lambda proxy: proxy.to_client >= count, timeout=PATIENCE_S)
            self._proxy.stall()
            self._is_stalled = True

    def until_stalled(self) -> None:
        assert self._watching is not None
        self._watching.join()
        assert self._is_stalled, f"it never got so far: {self._proxy}"

    def resume(self) -> None:
        self._proxy.throttle(None)
        self._proxy.resume()

    def close(self) -> None:
        self._proxy.close()
