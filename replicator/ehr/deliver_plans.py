"""A table's mapping × the server's template → a Plan and a Shape, asked for once; or why there is none."""

from __future__ import annotations

from replicator.ehr.bind import Plan, bind
from replicator.ehr.canonical import misfit
from replicator.ehr.client import Answer, Client, Refusal
from replicator.ehr.job import Operation
from replicator.ehr.model import RecordMapping, TableMapping
from replicator.ehr.retry import Hold, Verdict, verdict
from replicator.ehr.shape import NotATemplate, Shape, read_shape
from replicator.ehr.webtemplate import NotAWebTemplate, read_web_template

#: Of a template that a server has, and not as it was uploaded.
NOT_GIVEN = 406


class Plans:
    """The plans of one mapping with one server."""

    def __init__(self, client: Client, mapping: RecordMapping) -> None:
        self._client, self._mapping = client, mapping
        self._plans: dict[str, Plan] = {}
        self._shapes: dict[str, Shape] = {}

    async def of(self, table: TableMapping) -> Plan | Verdict:
        """The plan of a table; another thing than a plan says why the job must wait."""
        if (plan := self._plans.get(table.name)) is not None:
            return plan
        assert table.template is not None, "only compositions are planned"
        answer = await self._client.web_template(table.template.id)
        if (why := unusable(answer)) is not None:
            return why
        try:
            template = read_web_template(answer.body)
        except NotAWebTemplate as error:
            return Hold("template", error.what)
        plan, problems = bind(self._mapping, table, template)
        if problems:
            return Hold("template", f"the mapping does not fit the server's template: {problems[0]}")
        if table.atomic:
            shape = await self.shape(table.template.id)
            if not isinstance(shape, Shape):
                return shape
            if (what := misfit(plan, shape)) is not None:
                return Hold("template", f"contributions cannot be made of the server's template: {what}")
        self._plans[table.name] = plan
        return plan

    async def shape(self, template: str) -> Shape | Verdict:
        """What stands where in canonical compositions of a template."""
        if (shape := self._shapes.get(template)) is not None:
            return shape
        answer = await self._client.operational_template(template)
        if answer.status == NOT_GIVEN:
            return Hold("template", "the server does not give the operational template that `atomic` needs")
        if (why := unusable(answer)) is not None:
            return why
        try:
            shape = self._shapes[template] = read_shape(answer.body)
        except NotATemplate as error:
            return Hold("template", error.what)
        return shape

    def forget(self, template: str) -> None:
        """The server may have another version of a template by now."""
        self._shapes.pop(template, None)
        for name, plan in list(self._plans.items()):
            if plan.template.id == template:
                del self._plans[name]


def unusable(answer: Answer) -> Verdict | None:
    """What follows from a template that was not to be had."""
    if answer.ok:
        return None
    if answer.refusal in (Refusal.NOT_FOUND, Refusal.UNKNOWN_TEMPLATE):
        return Hold("template", "the server has no such template")
    return verdict(Operation.CREATE, answer, tries=0, template_is_known=True)
