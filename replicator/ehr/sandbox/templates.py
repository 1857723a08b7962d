"""Templates uploaded → kept, listed, and given back as web templates.

Besides an operational template in XML, the sandbox takes a web template itself (its JSON, under the media
type it has when it is read), which no record system does.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from replicator.ehr.sandbox.drafts import parsed
from replicator.ehr.sandbox.opt import web_template_of
from replicator.ehr.sandbox.refusals import Refused
from replicator.ehr.sandbox.reply import Reply, Room

WEB_TEMPLATE = "application/openehr.wt+json"


async def upload(room: Room, request: Request) -> Reply:
    content = await request.body()
    opt, web_template = _read(request, content)
    template_id = web_template["templateId"]
    if not await room.store.add_template(opt, web_template, room.now):
        raise Refused(409, f"Operational template with this template ID already exists: {template_id}")
    location = f"{room.root}ehrbase/rest/openehr/v1/definition/template/adl1.4/{template_id}"
    return Reply(201, None, {"Location": location, "ETag": f'"{template_id}"'})


async def listed(room: Room, request: Request) -> Reply:
    found = await room.store.templates()
    return Reply(
        200,
        [
            {
                "template_id": template_id,
                "concept": concept,
                "archetype_id": template_id,
                "created_timestamp": created_at.isoformat(timespec="milliseconds"),
            }
            for template_id, concept, created_at in found
        ],
    )


async def read(room: Room, request: Request) -> Reply:
    template_id = request.path_params["template_id"]
    found = await room.store.template(template_id)
    if found is None:
        raise Refused(404, f"Template with id '{template_id}' does not exist")
    opt, web_template = found
    if WEB_TEMPLATE in request.headers.get("accept", ""):
        return Reply(200, web_template, media_type=WEB_TEMPLATE)
    if opt is None:
        raise Refused(406, "The sandbox has only the web template")
    return Reply(200, opt.encode(), media_type="application/xml")


def _read(request: Request, content: bytes) -> tuple[str | None, dict[str, Any]]:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip()
    if media_type == WEB_TEMPLATE:
        web_template = parsed(content)
        if not isinstance(web_template.get("templateId"), str) or not _is_tree(web_template.get("tree")):
            raise Refused(400, "Not a web template")
        return None, web_template
    if media_type != "application/xml":
        raise Refused(415, "Only XML is supported at the moment")
    if "xml" not in request.headers.get("accept", "*/*") and "*/*" not in request.headers.get("accept", ""):
        raise Refused(406, "Not Acceptable")
    return content.decode("utf-8", "replace"), web_template_of(content)


def _is_tree(node: Any) -> bool:
    return (
        isinstance(node, dict)
        and isinstance(node.get("id"), str)
        and all(_is_tree(child) for child in node.get("children", []))
    )
