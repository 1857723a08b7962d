"""What went wrong on the way to a server → an error that knows whether the request may be obeyed."""

from __future__ import annotations

from enum import StrEnum

import aiohttp

from replicator.errors import Unavailable


class Fault(StrEnum):
    """How far a request came."""

    # Nothing was sent: trying again is safe.
    DNS = "its name is not known"
    REFUSED = "nobody listens there"
    TLS = "its certificate or TLS does not satisfy"
    NO_CONNECTION = "no connection in time"
    # Sent, and perhaps obeyed: look before trying again.
    SILENT = "no answer in time"
    LOST = "the connection ended before the answer"
    GARBLED = "the answer is not HTTP"
    TOO_LARGE = "the answer is too large"


_SENT = frozenset({Fault.SILENT, Fault.LOST, Fault.GARBLED, Fault.TOO_LARGE})
_HINTS = {
    Fault.DNS: "Check the host in ehr.url.",
    Fault.REFUSED: "Is the record system running, and is the port in ehr.url right?",
    Fault.TLS: "Name the file of who signed the record system's certificate as ehr.ca_file.",
    Fault.NO_CONNECTION: "Is the record system reachable from here? Is a firewall between?",
}


class Unreached(Unavailable):
    """A request that got no answer."""

    def __init__(self, fault: Fault, what: str) -> None:
        super().__init__(f"{what}: {fault}", _HINTS.get(fault, ""))
        self.fault = fault

    @property
    def outcome_unknown(self) -> bool:
        """Whether the server may have done it: then read before repeating."""
        return self.fault in _SENT

    @property
    def needs_operator(self) -> bool:
        """Whether time alone will probably not heal it."""
        return self.fault in (Fault.DNS, Fault.TLS)


def fault_of(error: Exception, *, sent: bool) -> Fault:
    """Which fault this error of the HTTP library is."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return Fault.DNS
        case aiohttp.ClientSSLError() | aiohttp.ServerFingerprintMismatch():
            return Fault.TLS
        case aiohttp.ClientConnectorError():
            return Fault.REFUSED
        case TimeoutError():
            return Fault.SILENT if sent else Fault.NO_CONNECTION
        case aiohttp.ClientResponseError():
            return Fault.GARBLED
        case _:
            return Fault.LOST if sent else Fault.REFUSED
