"""AQL asked → rows, for the few queries that `aql` understands."""

from __future__ import annotations

from starlette.requests import Request

from replicator.ehr.client.versions import uuid_in
from replicator.ehr.sandbox.aql import parse
from replicator.ehr.sandbox.drafts import parsed
from replicator.ehr.sandbox.refusals import Refused
from replicator.ehr.sandbox.reply import Reply, Room


async def run(room: Room, request: Request) -> Reply:
    body = parsed(await request.body())
    text, parameters = body.get("q"), body.get("query_parameters") or {}
    if not isinstance(text, str) or not isinstance(parameters, dict):
        raise Refused(400, "No aql query provided")
    pages = [body.get(name) for name in ("fetch", "offset")]
    if not all(page is None or isinstance(page, int) for page in pages):
        raise Refused(400, "fetch and offset are numbers")
    query = parse(text, parameters, *pages)
    ehr_id = uuid_in(query.ehr_id)
    # Where there is no such EHR a query finds nothing.
    versions = await room.store.latest(ehr_id, "COMPOSITION") if ehr_id else []
    columns = [{"path": column.full_path, "name": column.name} for column in query.columns]
    return Reply(200, {"q": text, "columns": columns, "rows": query.rows(versions, room.system)})
