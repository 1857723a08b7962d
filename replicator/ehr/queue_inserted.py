"""A mapped table × its columns → what adds an inserted row to the queue, without a Job. No I/O.

Most of what passes are rows that are new, of tables of which nothing more is asked than that each becomes a
composition. The job that each of them means is known but for its values. Whatever is less plain (a filter,
an odd character in a key, a patient who stands elsewhere) takes the long way, by way of a Job.

Nothing of a patient is computed twice. What is the same for all rows, like the names of their columns, is
said with the manner of their jobs; and what follows from the row is not said again, neither its key nor the
id of its composition. All of that would be about as long as the row itself, and to compute the id, a hash,
takes longer than the rest. Whoever lays the job out does that: see `queue_laid_out`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from sys import getsizeof
from typing import Any, TypeAlias

import orjson

from replicator.ehr.identity import ehr_id, joined
from replicator.ehr.model import Children, RecordMapping, TableMapping
from replicator.ehr.queue_added import OVERHEAD, Added
from replicator.ehr.queue_manners import of_new_rows
from replicator.rules.columns.types import BOOL, DATE, INTEGERS, PLAIN, REALS, TIME, TIMESTAMP, TIMESTAMPTZ
from replicator.rules.compute.code import Code
from replicator.wal.lsn import Lsn
from replicator.wal.messages import Column
from replicator.wal.transactions import Change, Kind

#: (a change, those after it, their commit's position) → the first of them that goes the long way, or None. It
#: takes the others from those after it, up to that one.
Write: TypeAlias = Callable[[Change, Iterator[Change], int], Change | None]
#: What adds to these, of which it remembers patients.
Insertion: TypeAlias = Callable[[Added], Write]
#: What is printed without a slash and a tilde: of what is plain, networks are not.
_BARE = (frozenset(PLAIN) | INTEGERS | REALS | {BOOL, DATE, TIME, TIMESTAMP, TIMESTAMPTZ}) - {650, 869}


def insertion(mapping: RecordMapping, name: str, columns: Sequence[Column]) -> Insertion | None:
    """None for a table of which more is asked. `name` has its schema."""
    tables, names = mapping.of(name), [column.name for column in columns]
    if len(tables) != 1 or not _is_plain(mapping, tables[0]):
        return None
    table = tables[0]
    manner = of_new_rows(mapping, table, names)
    if manner is None or manner.key_at is None or table.patient.column.name not in names:
        return None
    priority = table.priority

    @lru_cache(maxsize=65_536)
    def of_patient(patient: object) -> tuple[str, str] | None:
        """A patient's lane by name, and their EHR."""
        if type(patient) is not str or not patient or not _is_bare(patient):
            return None
        return joined(("patient", patient)), ehr_id(mapping.namespace, patient)

    patient_at = names.index(table.patient.column.name)
    run = _runner(columns, manner.key_at, patient_at, priority)

    def writer(added: Added) -> Write:
        added.manner(manner)
        met = dict[Any, Any]()

        def meet(patient: Any) -> Any:
            if (known := of_patient(patient)) is None:
                return None
            name, ehr = known
            lane = added.lane(name, patient, ehr, priority)
            if lane.name != name:
                return None
            met[patient] = found = lane, lane.jobs
            return found

        def write(change: Change, after: Iterator[Change], commit_lsn: int) -> Change | None:
            head = f'{{"manner":{manner.id},"lsn":"{Lsn(commit_lsn)!s}","ordinal":'
            rest, jobs, size = run(change, after, met.get, meet, head)
            added.bytes += size + jobs * OVERHEAD
            return rest  # type: ignore[no-any-return]  # a change, or None

        return write

    return writer


def _is_bare(text: str) -> bool:
    """Whether a text is itself as a part of a name."""
    return "/" not in text and "~" not in text


def _runner(columns: Sequence[Column], key_at: int, patient_at: int, priority: int) -> Callable[..., Any]:
    """What adds rows, one after another, without a call for each: that costs half of what there is to do.

    It answers the change it stopped at, how many jobs it has added, and how much memory they take.
    """
    code = Code()
    use = code.name
    is_odd = "name is None"
    if columns[key_at].type_oid not in _BARE:
        is_odd += " or '/' in name or '~' in name"
    job = f'{{head}}{{ordinal}},"row":{{{use(orjson.dumps)}(row).decode()}}}}}}'
    return code.function(
        "change, after, known, meet, head",
        [
            "jobs = size = 0",
            "of = change.relation",
            f"for change in {use(chain)}((change,), after):",
            "    kind, relation, _, row, ordinal, _ = change",
            f"    if kind is not {use(Kind.INSERT)} or relation is not of:",
            "        return change, jobs, size",
            f"    name, patient = row[{key_at}], row[{patient_at}]",
            "    found = known(patient) or meet(patient)",
            f"    if found is None or {is_odd}:",
            "        return change, jobs, size",
            "    lane, added = found",
            f"    job = f'{job}'",
            "    added.append(job)",
            f"    if {priority} <= lane.priority:",
            f"        lane.priority, lane.urgent_upto = {priority}, {use(len)}(added)",
            "    jobs += 1",
            f"    size += {use(len)}(job) if job.isascii() else {use(getsizeof)}(job)",
            "return None, jobs, size",
        ],
    )


def _is_plain(mapping: RecordMapping, table: TableMapping) -> bool:
    is_part = any(
        isinstance(group.each, Children) and group.each.table == table.table
        for other in mapping.tables.values()
        for group in other.groups
    )
    return (
        not is_part
        and table.template is not None
        and table.filter is None
        and table.gone is None
        and table.status is None
        and table.patient.through is None
    )
