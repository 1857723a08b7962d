"""A table's mapping × the server's web template → a Plan to compose by, or what does not fit. No I/O.

Nothing is sent before this has found nothing: a column that does not exist would be silence in the record,
and a path or a unit that the template does not know would be a refusal for every single row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from replicator.ehr.demands import Demanded, demands, entry_of
from replicator.ehr.fit import misfits
from replicator.ehr.leaves import Slot
from replicator.ehr.model import Constant, Field, Group, Place, RecordMapping, TableMapping
from replicator.ehr.tables import Columns, check_columns, check_expressions, check_types
from replicator.ehr.webtemplate import WebTemplate, without_indices
from replicator.text.nodes import Problem

#: What the composer writes itself, wherever it stands.
OURS = frozenset({"category", "language", "territory", "composer", "encoding", "subject"})

OURS_OF_CONTEXT = frozenset({"/context/start_time", "/context/setting"})


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """A group, and the leaves that each of its elements fills."""

    group: Group
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that composing the rows of a table needs."""

    mapping: RecordMapping
    table: TableMapping
    template: WebTemplate
    slots: tuple[Slot, ...]
    groups: tuple[GroupPlan, ...]
    #: What says that the row is gone.
    marked: tuple[Slot, ...]
    demanded: Demanded


@dataclass(slots=True)
class Binding:
    """A plan as far as it has come, and what does not fit."""

    mapping: RecordMapping
    table: TableMapping
    template: WebTemplate
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, at: Place, part: str, what: str) -> None:
        key = f"tables.{self.table.name}.{part}"
        self.problems.append(Problem(self.mapping.file, at.line, at.column, key, what))


def bind(
    mapping: RecordMapping, table: TableMapping, template: WebTemplate, columns: Columns | None = None
) -> tuple[Plan, list[Problem]]:
    """The plan, which is of use only if there are no problems."""
    binding = Binding(mapping, table, template)
    _check_template(binding)
    slots = _slots(binding, table.fields, "fields")
    marked = _slots(binding, table.marked, "marked")
    groups = tuple(_group(binding, group) for group in table.groups)
    plan = Plan(mapping, table, template, slots, groups, marked, Demanded(template))
    own = columns.get(table.table, {}) if columns is not None else {}
    for slot in (*slots, *marked):
        for at, what in check_types(slot, own):
            binding.refuse(at, "fields", what)
    if not binding.problems:
        _check_demands(binding, plan)
    return plan, binding.problems


def validate(
    mapping: RecordMapping,
    templates: Mapping[str, WebTemplate],
    columns: Columns | None = None,
) -> list[Problem]:
    """All that does not fit: the server's templates by id, and the source's columns if known."""
    problems: list[Problem] = []
    for table in mapping.tables.values():
        if columns is not None:
            problems += check_columns(mapping, table, columns)
            problems += check_expressions(mapping, table, columns)
        if table.template is None:
            continue
        if (template := templates.get(table.template.id)) is None:
            what = "the server has no template of this id: upload it" + _others(templates)
            problems.append(Problem(mapping.file, *table.template.at, f"tables.{table.name}.template", what))
            continue
        problems += bind(mapping, table, template, columns)[1]
    return sorted(problems, key=lambda problem: (problem.line, problem.column))


def _others(templates: Collection[str]) -> str:
    return f"; it has {', '.join(sorted(templates)[:6])}" if templates else ""


def _check_template(binding: Binding) -> None:
    wanted, template = binding.table.template, binding.template
    if wanted is None:
        return
    if template.id != wanted.id:
        binding.refuse(wanted.at, "template", "the server answered with another template")
    elif not template.hash.startswith(wanted.hash):
        what = f"the server has another version of this template: its hash is {template.hash}"
        binding.refuse(wanted.hash_at, "template.hash", what)


# Paths → slots.


def _slots(binding: Binding, fields: tuple[Field, ...], part: str) -> tuple[Slot, ...]:
    found: dict[tuple[str, str], Slot] = {}
    for each in fields:
        _keep(binding, found, _slot(binding, each, each.path, part), part)
    return tuple(found.values())


def _group(binding: Binding, group: Group) -> GroupPlan:
    node = binding.template.node(group.path)
    if node is None or not node.repeats:
        what = f"no such path in the template{binding.template.nearest(group.path)}"
        once = "this occurs once in the template: it cannot be a group's path"
        binding.refuse(group.at, "groups", what if node is None else once)
        return GroupPlan(group, ())
    stem = without_end_index(group.path)
    for each in binding.table.fields:
        if f"{without_indices(each.path.partition('|')[0])}/".startswith(f"{node.path}/"):
            binding.refuse(
                each.at, "fields", f"this stands inside the group at {group.at.line}:{group.at.column}"
            )
    found: dict[tuple[str, str], Slot] = {}
    for each in group.fields:
        rest = each.path.removeprefix(".") if each.path.partition("|")[0] == "." else f"/{each.path}"
        _keep(binding, found, _slot(binding, each, f"{stem}:#{rest}", "groups"), "groups")
    return GroupPlan(group, tuple(found.values()))


def without_end_index(path: str) -> str:
    above, slash, last = path.rpartition("/")
    return above + slash + without_indices(last)


def _keep(binding: Binding, found: dict[tuple[str, str], Slot], slot: Slot | None, part: str) -> None:
    if slot is None:
        return
    earlier = found.setdefault((slot.path, slot.suffix + (slot.field.when or "")), slot)
    if earlier is not slot:
        first = earlier.field.at
        what = f"the same leaf is filled at {first.line}:{first.column}"
        binding.refuse(slot.field.at, part, what)


def _slot(binding: Binding, written: Field, path: str, part: str) -> Slot | None:
    """The leaf a field fills; None, and a problem, if it cannot."""
    template = binding.template
    plain, _, suffix = path.partition("|")
    node = template.node(plain)
    what = ""
    if any(segment.startswith("_") for segment in plain.split("/")):
        what = "names that begin with _ are written by the replicator, or not at all"
    elif node is None:
        what = f"no such path in the template{template.nearest(plain)}"
    elif not node.is_leaf:
        names = ", ".join(child.rpartition("/")[2] for child in node.children[:6])
        what = f"not a leaf of the template: below it stand {names}"
    elif (node.in_context and node.id in OURS) or node.path.removeprefix(template.root) in OURS_OF_CONTEXT:
        what = "this comes from ctx"
    if what or node is None:
        binding.refuse(written.at, part, what)
        return None
    indexed = _indexed(binding, written, plain, part)
    if indexed is None:
        return None
    slot = Slot(written, node, indexed, suffix, entry_of(template, indexed))
    for at, what in misfits(slot):
        binding.refuse(at, part, what)
    return slot


def _indexed(binding: Binding, written: Field, path: str, part: str) -> str | None:
    """The path with an index at each node that repeats, and at no other."""
    template, segments = binding.template, path.split("/")
    for number, segment in enumerate(segments):
        node = template.node("/".join(segments[: number + 1]))
        name, colon, index = segment.partition(":")
        if node is None:
            continue
        if colon and not node.repeats:
            what = f"{name} occurs once in the template: write it without :{index}"
            binding.refuse(written.at, part, what)
            return None
        if index.isdigit() and node.max is not None and int(index) >= node.max:
            binding.refuse(written.at, part, f"{name} occurs {node.max} times at most: {index} is too large")
            return None
        if node.repeats and not colon:
            segments[number] = f"{name}:0"
    return "/".join(segments)


def _check_demands(binding: Binding, plan: Plan) -> None:
    """Refuse what no row could satisfy: a path that the template demands, and nobody fills."""
    slots = [*plan.slots, *(slot for group in plan.groups for slot in group.slots)]
    filled = [slot.path.replace(":#", ":0") for slot in slots]
    table = binding.table
    for path in demands(plan.template, filled).missing:
        at = table.template.at if table.template else table.at
        binding.refuse(
            at, f"fields[{path}]", f"the template demands a value at {path}, and no field fills it"
        )
    if not any(slot.entry and not isinstance(slot.field.source, Constant) for slot in slots):
        what = "no column is written to any entry: every composition would be empty"
        binding.refuse(table.at, "fields", what)
