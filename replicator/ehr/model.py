"""A mapping file, read: which row becomes what in the record. No I/O.

These are the values that `mapping` reads, `bind` checks against the server's template, and `compose` and
`job` follow. Each part knows its place in the file, so that whoever finds it wrong can say where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, NamedTuple, TypeAlias

from replicator.rules.expression import Expression as Tree

#: A row: the text of each column, as the source prints it, or None.
Row: TypeAlias = Mapping[str, str | None]
#: What the caller made of an expression; and of a filter.
Formula: TypeAlias = Callable[[Row], str | None]
Filter: TypeAlias = Callable[[Row], bool]


class Place(NamedTuple):
    """Line and column in the mapping file, counted from 1."""

    line: int
    column: int


class Column(NamedTuple):
    """The value of a column."""

    name: str
    at: Place


class Constant(NamedTuple):
    """The same text for every row."""

    text: str
    at: Place


class Expression(NamedTuple):
    """What is computed of a row, in the language of the rules."""

    text: str
    at: Place
    #: What it means.
    tree: Tree
    #: The columns it names, each where it does so first.
    columns: tuple[Column, ...] = ()

    @property
    def id(self) -> str:
        """Which of the file's expressions it is: two of the same text may be about columns of other types."""
        return f"{self.at.line}:{self.at.column}"


Source: TypeAlias = Column | Constant | Expression


class Code(NamedTuple):
    """What a value of a column means; `terminology` and `label` are the template's if it has them."""

    code: str
    at: Place
    label: str | None = None
    terminology: str | None = None


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of a quantity: one for all rows, or each row's own."""

    source: Column | Constant
    #: What the source calls it → its name in UCUM.
    values: Mapping[str, str] = field(default_factory=dict)
    #: If the row has none.
    default: str | None = None


class CodeColumn(NamedTuple):
    """The column that holds the code for a text."""

    column: Column
    terminology: str
    #: An array of codes: a text may refer to several.
    is_array: bool = False


class NullFlavour(Enum):
    """Why a value is not there: the openEHR terminology's group of that name."""

    NO_INFORMATION = "271"
    UNKNOWN = "253"
    MASKED = "272"
    NOT_APPLICABLE = "273"

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True)
class Field:
    """One value of a composition."""

    #: As it is written: `root/section:0/entry/element`, perhaps with `|suffix`.
    path: str
    at: Place
    source: Source
    unit: Unit | None = None
    #: Values of the column → codes; None if any value may stand there.
    values: Mapping[str, Code] | None = None
    terminology: str | None = None
    code: CodeColumn | None = None
    denominator: float | None = None
    null_flavour: NullFlavour | None = None
    required: bool = False
    #: Written only if the value is a number, or only if it is none.
    when: Literal["number", "text"] | None = None


@dataclass(frozen=True, slots=True)
class Children:
    """The rows of another table that belong to a row."""

    table: str
    at: Place
    #: Column of the child → column of the parent.
    parent: Mapping[str, str]
    order: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Values that repeat: once for each element of an array, or each row of another table."""

    path: str
    at: Place
    #: An array column, whose elements the fields call `element`; or rows of another table.
    each: Column | Children
    #: Their paths continue `path`.
    fields: tuple[Field, ...]


class Patient(NamedTuple):
    """Where the patient of a row is found."""

    #: The column that says it, or that leads to a row of `through` that does.
    column: Column
    through: str | None = None
    #: Of `through`: the column to compare with, and the one that says it.
    key: str = ""
    patient: str = ""


class Gone(NamedTuple):
    """The column that says a row counts as deleted."""

    column: Column
    #: The values that say so; None: any but NULL and false.
    values: tuple[str, ...] | None = None


class Style(Enum):
    """What one composition stands for."""

    EVENT = "event"  # a row
    EPISODIC = "episodic"  # an episode: each row of it is a new version
    LONGITUDINAL = "longitudinal"  # a patient: each row of theirs is a new version


class OnDelete(Enum):
    """What becomes of the composition of a row that is gone."""

    DELETE = "delete"
    MARK = "mark"
    KEEP = "keep"


class Template(NamedTuple):
    """The template of a table's compositions."""

    id: str
    at: Place
    #: How the hash of the server's web template must begin; empty if any will do.
    hash: str = ""
    hash_at: Place = Place(1, 1)


@dataclass(frozen=True, slots=True)
class Ctx:
    """What is said of a composition as a whole."""

    language: str
    territory: str
    #: The openEHR code of the setting.
    setting: str
    composer: Column | Constant
    composer_default: str | None
    #: The first of them that has a value.
    time: tuple[Column, ...]
    facility: Column | Constant | None = None


class Status(NamedTuple):
    """A row that is a patient: it becomes the EHR's status, with nothing in it but who that is."""

    modifiable: Column | None = None
    queryable: Column | None = None


@dataclass(frozen=True, slots=True)
class TableMapping:
    """What the rows of one table become, or those of them that the filter lets through."""

    #: What the file calls this; the table's name, unless it says which table it means. It is part of the ids.
    name: str
    #: With its schema: `public.vital_signs`.
    table: str
    at: Place
    key: tuple[Column, ...]
    patient: Patient
    #: Compositions; None for a table that has a status.
    template: Template | None = None
    ctx: Ctx | None = None
    status: Status | None = None
    style: Style = Style.EVENT
    episode: Column | None = None
    filter: Expression | None = None
    fields: tuple[Field, ...] = ()
    groups: tuple[Group, ...] = ()
    on_delete: OnDelete = OnDelete.DELETE
    #: Values that say, in a composition that stays, that its row is gone.
    marked: tuple[Field, ...] = ()
    gone: Gone | None = None
    ignore: tuple[Column, ...] = ()
    #: Smaller is sooner.
    priority: int = 100
    #: Whether a newer change may take the place of one that still waits.
    coalesce: bool = True
    #: Whether the rows that are there when it is mapped become jobs, too.
    deliver_existing: bool = True
    #: Whether what one transaction changed for one patient is to be in the record at once, or not at all.
    atomic: bool = False


@dataclass(frozen=True, slots=True)
class RecordMapping:
    """A whole mapping file."""

    file: str
    #: What the source calls itself in ids and audits: it never changes.
    system: str
    #: Of the subject ids of EHRs.
    namespace: str
    #: Minutes east of UTC, for times that say no zone themselves.
    zone: int
    #: By their names; a table may have several.
    tables: Mapping[str, TableMapping]
    #: Who commits contributions.
    committer: str = ""

    def of(self, table: str) -> list[TableMapping]:
        """Those of a table."""
        return [mapping for mapping in self.tables.values() if mapping.table == table]
