"""A row × the Plan of its table → what is said of its composition as a whole. No I/O.

When and where it was, who says it, and by which row and which change of the source it came to be.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from replicator.ehr import prints
from replicator.ehr.bind import Plan
from replicator.ehr.identity import ChangeId
from replicator.ehr.leaves import Json, Parts
from replicator.ehr.model import Column, Constant, Ctx, Row, TableMapping
from replicator.ehr.parts import SETTINGS
from replicator.ehr.webtemplate import WebTemplate
from replicator.errors import ReplicatorError

Flat: TypeAlias = dict[str, Json]

#: openEHR's codes for what a composition is, if the template does not say: an event.
EVENT = ("433", "event")
LABEL_OF_SETTING = {code: name for name, code in SETTINGS.items()}


class NotComposed(ReplicatorError):
    """A row that cannot become a composition. It names the column, the path and the rule, never the value."""

    def __init__(self, table: str, column: str, path: str, rule: str) -> None:
        where = f"{table}.{column}" if column else table
        super().__init__(
            f"{where} → {path}: {rule}" if path else f"{where}: {rule}",
            "Correct the row in the source, or the mapping; then retry the job.",
        )
        self.table, self.column, self.path, self.rule = table, column, path, rule


class Stamp(NamedTuple):
    """Where a composition comes from, and what it is to be called."""

    #: The key of the row, as text.
    key: str
    change: ChangeId
    #: `uuid::system::version`; None leaves the name to the server, as an update does.
    uid: str | None = None


def refusal(plan: Plan, column: str, path: str, rule: str) -> NotComposed:
    """What to raise about a column, or about the row if none is named."""
    return NotComposed(plan.table.table, column, path, rule)


def _ctx(plan: Plan) -> Ctx:
    ctx = plan.table.ctx
    assert ctx is not None, "a table with a template has a ctx"
    return ctx


def time(plan: Plan, row: Row) -> str:
    """When it was, clinically: never when it was sent."""
    names, path = [column.name for column in _ctx(plan).time], f"{plan.template.root}/context/start_time"
    column = next((name for name in names if row.get(name)), names[-1])
    if not (text := row.get(column)):
        raise refusal(plan, column, path, "required, and missing")
    try:
        return prints.date_time(text, plan.mapping.zone)
    except ValueError as error:
        raise refusal(plan, column, path, str(error)) from None


def head(plan: Plan, row: Row, stamp: Stamp, began: str) -> Flat:
    """The attributes that every composition has."""
    root, ctx = plan.template.root, _ctx(plan)
    flat: Flat = {f"{root}/_uid": stamp.uid} if stamp.uid is not None else {}
    flat |= {f"{root}/category|{suffix}": value for suffix, value in _category(plan).items()}
    flat |= {
        f"{root}/language|code": ctx.language,
        f"{root}/language|terminology": "ISO_639-1",
        f"{root}/territory|code": ctx.territory,
        f"{root}/territory|terminology": "ISO_3166-1",
        f"{root}/composer|name": _composer(plan, ctx, row),
    }
    if f"{root}/context" in plan.template.nodes:
        flat |= _context(plan, ctx, row, began)
    return flat | _audit(plan, stamp)


def _context(plan: Plan, ctx: Ctx, row: Row, began: str) -> Flat:
    """When and where. Of a context that its template says nothing of, a server tells, but takes no path."""
    at = f"{plan.template.root}/context"
    facility = _said(ctx.facility, row) if ctx.facility is not None else None
    if _is_silent_about_context(plan.template):
        named: Flat = {"ctx/health_care_facility|name": facility} if facility else {}
        return {"ctx/time": began, "ctx/setting": ctx.setting} | named
    named = {f"{at}/_health_care_facility|name": facility} if facility else {}
    return {
        f"{at}/start_time": began,
        f"{at}/setting|code": ctx.setting,
        f"{at}/setting|value": LABEL_OF_SETTING[ctx.setting],
        f"{at}/setting|terminology": "openehr",
    } | named


def _is_silent_about_context(template: WebTemplate) -> bool:
    """Whether the operational template has none: then its parts are not marked as the record model's own."""
    began = template.node(f"{template.root}/context/start_time")
    return began is not None and not began.in_context


def _category(plan: Plan) -> Parts:
    node = plan.template.node(f"{plan.template.root}/category")
    part = node.input("code") if node is not None else None
    code, label = (part.options[0].value, part.options[0].label) if part and part.options else EVENT
    return {"code": code, "value": label, "terminology": "openehr"}


def _composer(plan: Plan, ctx: Ctx, row: Row) -> str:
    if (name := _said(ctx.composer, row) or ctx.composer_default) is None:
        column = ctx.composer.name if isinstance(ctx.composer, Column) else ""
        raise refusal(plan, column, f"{plan.template.root}/composer", "required, and missing")
    return name


def _said(source: Column | Constant, row: Row) -> str | None:
    text = source.text if isinstance(source, Constant) else row.get(source.name)
    return text if text and text.strip() else None


def _audit(plan: Plan, stamp: Stamp) -> Flat:
    """By this a composition says which row and which change it is, also if our own memory is lost."""
    above, system = f"{plan.template.root}/_feeder_audit", plan.mapping.system
    return {
        f"{above}/originating_system_audit|system_id": system,
        f"{above}/originating_system_audit|version_id": str(stamp.change),
        f"{above}/originating_system_item_id:0|id": stamp.key,
        f"{above}/originating_system_item_id:0|type": plan.table.table,
        f"{above}/originating_system_item_id:0|issuer": system,
        f"{above}/originating_system_item_id:0|assigner": system,
    }


def supplied(plan: Plan, path: str, name: str, began: str) -> Flat:
    """What stands at one of the record model's own attributes below an entry."""
    match name:
        case "language":
            return {f"{path}|code": _ctx(plan).language, f"{path}|terminology": "ISO_639-1"}
        case "encoding":
            return {f"{path}|code": "UTF-8", f"{path}|terminology": "IANA_character-sets"}
        case "time" | "origin":
            return {path: began}
    return {}  # the subject of an entry is the EHR's own, and the rest stands in the head


# Who an EHR is about.


class Flags(NamedTuple):
    """What an EHR's status says besides whom it is about."""

    is_modifiable: bool
    is_queryable: bool


def status_flags(table: TableMapping, row: Row) -> Flags:
    """The flags of a row that is a patient; nothing else of it goes into the record."""
    status = table.status
    columns = (status.modifiable, status.queryable) if status is not None else (None, None)
    return Flags(*(column is None or row.get(column.name) != "f" for column in columns))
