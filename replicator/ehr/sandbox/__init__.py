"""A stand-in for a record system: a few calls of the openEHR REST API → versions in a schema `sandbox`.

For the demo and for fast tests. It answers with the status codes EHRbase answers with, keeps what it is given
as it is given, checks FLAT paths against templates, and validates no more than that. It is not a place for
anybody's record: it says so in every response, at `/`, and when it starts.

    server      starts and ends it
    routes      a request → the call it is
    ehrs, compositions, contributions, templates, search      the calls
    store       the schema `sandbox`
    changes     the versions there are × what is asked for → the next version, or a refusal
    drafts      a body → what it would store
    paths       FLAT paths × web template → what does not fit
    guess       a mapping → web templates that fit it, where there are no others
    opt         an operational template → its web template
    aql         the few queries it understands
    refusals    what it says when it does not
    trouble     failures to order
"""

from replicator.ehr.sandbox.server import Sandbox
from replicator.ehr.sandbox.trouble import Trouble

__all__ = ["Sandbox", "Trouble"]
