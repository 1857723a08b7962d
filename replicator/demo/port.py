"""A wish for a port of the loopback → one that stays ours, also while its server is down.

A socket that is bound but does not listen keeps others away. Linux lets a server listen there all the same,
if both say they would share the port, and gives it to nobody who asks for any. Elsewhere the port is given up
when the server starts, and another is taken if somebody was quicker.
"""

from __future__ import annotations

import socket
import sys

from replicator.errors import ConfigError

LOOPBACK = "127.0.0.1"
_KNOCK_S = 5.0


def _knock(address: tuple[str, int]) -> None:
    """Where nobody listens yet, a refusal is the answer that shows a way there; OSError if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as knocking:
        knocking.settimeout(_KNOCK_S)
        try:
            knocking.connect(address)
        except ConnectionRefusedError:
            return


class Port:
    """One port of the loopback, by `number`; any that is free if that is 0."""

    def __init__(self, number: int) -> None:
        self.fixed = number != 0
        self._socket = self._hold(number)
        self.number: int = self._socket.getsockname()[1]

    @staticmethod
    def _hold(number: int) -> socket.socket:
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((LOOPBACK, number))
            _knock(held.getsockname())
        except (OSError, OverflowError) as error:
            held.close()
            raise ConfigError(
                f"port {number} of {LOOPBACK} cannot be had: {error}",
                "Stop who has it, or name another port; 0 takes any that is free. If the network is "
                "unreachable, the loopback is down: ip link set lo up",
            ) from error
        return held

    def hand_over(self) -> None:
        if sys.platform != "linux":
            self._socket.close()

    def change(self) -> None:
        self._socket.close()
        self._socket = self._hold(0)
        self.number = self._socket.getsockname()[1]

    def release(self) -> None:
        self._socket.close()
