"""What a worker wants of a record system → requests to its openEHR REST API, and what it answered.

versions    `uuid::system::1` ↔ VersionUid
bodies      a composition and the uid it must get → a request's body
answers     status, headers and body → Answer, without health data in what may be logged
faults      what went wrong on the way → Unreached, which knows whether anything was sent
turns       so many requests a second → when each may be sent
auth        credentials → the Authorization header
tls         a file of certificates → whom to believe that it is the record system
exchange    one request → one Answer or Unreached
client      the API's calls
"""

from replicator.ehr.client.answers import Answer, Refusal
from replicator.ehr.client.auth import Anonymous, Auth, Basic, Bearer, ClientCredentials, auth_from
from replicator.ehr.client.bodies import Canonical, Composition, Flat
from replicator.ehr.client.client import Client, Ehr, Subject
from replicator.ehr.client.exchange import Limits
from replicator.ehr.client.faults import Fault, Unreached
from replicator.ehr.client.tls import trusting
from replicator.ehr.client.turns import Turns
from replicator.ehr.client.versions import VersionUid

__all__ = [
    "Anonymous",
    "Answer",
    "Auth",
    "Basic",
    "Bearer",
    "Canonical",
    "Client",
    "ClientCredentials",
    "Composition",
    "Ehr",
    "Fault",
    "Flat",
    "Limits",
    "Refusal",
    "Subject",
    "Turns",
    "Unreached",
    "VersionUid",
    "auth_from",
    "trusting",
]
