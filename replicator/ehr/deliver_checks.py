"""The record system → whether it answers us, and has what a mapping needs."""

from __future__ import annotations

from replicator.ehr.client import Client, Unreached
from replicator.ehr.deliver import End
from replicator.ehr.deliver_plans import Plans
from replicator.ehr.job import Operation
from replicator.ehr.model import RecordMapping
from replicator.ehr.retry import Done, Hold, Park, Retry, verdict
from replicator.errors import ReplicatorError
from replicator.marks import mark


class Checks:
    """Questions that change nothing there."""

    def __init__(self, client: Client, plans: Plans, mapping: RecordMapping) -> None:
        self._client, self._plans, self._mapping = client, plans, mapping

    async def server(self) -> End:
        """Whether it answers, and lets us in."""
        mark("probing")
        try:
            answer = await self._client.templates()
        except Unreached as unreached:
            return Retry(unreached.what, is_outage=True)
        except ReplicatorError as error:
            return Hold("server", error.what)
        if isinstance(answer, tuple):
            return Done()
        said = verdict(Operation.STATUS, answer, tries=0, template_is_known=True)
        return said if isinstance(said, Retry | Hold) else Park(answer.summary)

    async def template(self, name: str) -> End:
        """Whether the server has it, in a form that fits every table that is mapped to it."""
        self._plans.forget(name)
        for table in self._mapping.tables.values():
            if table.template is None or table.template.id != name:
                continue
            try:
                plan = await self._plans.of(table)
            except ReplicatorError as error:
                return Hold("template", error.what)
            if isinstance(plan, Retry | Hold | Park):
                return plan
        return Done()
