"""What a service manager should know → a datagram to the socket that $NOTIFY_SOCKET names."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

SOCKET = "NOTIFY_SOCKET"
#: What a part of ours must not inherit: only the first process speaks for all.
VARIABLES = (SOCKET, "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Speaks to systemd, or to nobody: one that does not listen never holds us up."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get(SOCKET, "")
        # A leading @ stands for the first byte of an abstract name.
        self._path = "\0" + path[1:] if path.startswith("@") else path

    def tell(self, **facts: str | int) -> None:
        """Send facts in one datagram: `tell(READY=1, STATUS="replicating")`."""
        if not self._path:
            return
        text = "".join(f"{name}={_line(value)}\n" for name, value in facts.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(text.encode(), self._path)
        except OSError:
            return  # the manager is restarting, or the socket is not for us


def _line(value: str | int) -> str:
    return " ".join(str(value).split())
