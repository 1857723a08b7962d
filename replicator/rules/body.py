"""Terms, lookups and windows of a relation → one function's source, statement by statement. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count, product
from typing import Any

from replicator.rules import keys
from replicator.rules.columns.shapes import column_at, metadata
from replicator.rules.columns.types import UUID, Types
from replicator.rules.columns.values import in_f_string, kind_of, quote, scalar
from replicator.rules.compute import jsontext
from replicator.rules.compute.code import Code
from replicator.rules.compute.expressions import EvaluationError, test, type_of, value
from replicator.rules.compute.scalars import reason
from replicator.rules.expression import Column, Expression, Metadata, Now, Scalar
from replicator.rules.model import (
    Brought,
    Each,
    Join,
    Key,
    Lookup,
    Predicate,
    Rules,
    Term,
    Variant,
    Window,
)
from replicator.wal.messages import Relation, Row

#: Told of what could not be evaluated: what it was for, which row, and why.
Failed = Callable[[str, Row, str], None]


class Body:
    """The source of one function, statement by statement: it fills a list, `made`, and returns it."""

    def __init__(self, rules: Rules, relation: Relation, types: Types, failed: Failed) -> None:
        self._dialect, self._relation, self._types = rules.dialect, relation, types
        self._code = Code()
        self._failed = self._code.name(failed, "failed")
        # Whatever it is: one row must not end the process at the same place for ever.
        self._error = self._code.name(Exception, "Exception")
        self._quote = self._code.name(quote, "quote")
        self._word = self._code.name(keys.word, "word")
        self._as_text = self._code.name(keys.as_text, "as_text")
        self._members = self._code.name(_members, "members")
        self._short = self._code.name(keys.short, "short")
        self._columns: dict[int, str] = {}
        self._preamble: list[str] = []
        self._lines: list[str] = []
        self._fresh = count()
        #: Sources that are known to be text, or nothing.
        self._texts: set[str] = set()
        #: How words that need no escapes are printed in an f-string.
        self._within: dict[str, str] = {}
        self._level = 0
        #: What the wildcard of the query stands for that is being written.
        self.suffix = ""

    def function(self, parameters: str, *, may_repeat: bool) -> Callable[..., list[Any]]:
        last = f"return {self._code.name(_once, 'once')}(made)" if may_repeat else "return made"
        if not self._lines:
            return lambda *_: []
        return self._code.function(parameters, [*self._preamble, "made = []", *self._lines, last])

    # -- statements --------------------------------------------------------------------------------

    def _say(self, line: str) -> None:
        self._lines.append("    " * self._level + line)

    def _name(self) -> str:
        return f"x{next(self._fresh)}"

    def _open(self) -> None:
        self._say("try:")
        self._level += 1

    def _close(self, what: str) -> None:
        """End a part of its own: what could not be evaluated in it leaves the others as they are."""
        self._level = 0
        self._say(f"except {self._error} as error:")
        self._say(f"    {self._failed}({what!r}, row, {self._code.name(reason, 'reason')}(error))")

    def term(self, variant: Variant, term: Term) -> list[str]:
        """Open a term: what follows is inside its conditions and loops. Answers its values, as JSON."""
        self._open()
        self._conditions(term.filters, term.windows)
        brought = self._joins(term.joins)
        values = [self._value(part, brought) for part in term.values]
        as_text = variant.as_text or (False,) * len(values)
        words = [self._as_word(*one) for one in zip(values, as_text, strict=True)]
        for at, other in term.same:
            self._same(words[at], other, brought, as_text[at])
        return words

    def placed(self, variant: Variant, output: str, at: int, words: list[str]) -> None:
        """Close a term: the row is in the bucket of these values."""
        self._bucket(variant, words)
        self._say("else:")
        self._say(f"    made.append((bucket, {output!r}, {at}))")
        self._close(variant.name)

    def naming(self, variant: Variant, words: list[str]) -> tuple[Code, list[str]]:
        """Close the only term: statements that leave its bucket in `bucket`, or None; and what they name."""
        self._bucket(variant, words)
        self._say("    bucket = None")
        self._close(variant.name)
        return self._code, [*self._preamble, "bucket = None", *self._lines]

    def _bucket(self, variant: Variant, words: list[str]) -> None:
        """Name the bucket of these values, and open what is to be done where it cannot have that name."""
        values = ",".join(self._within.get(word, f"{{{word}}}") for word in words)
        self._say(f"bucket = f{in_f_string(variant.name) + '[' + values + ']'!r}")
        self._say(f"if {self._code.name(len, 'length')}(bucket) > {keys.MOST_IN_A_NAME}:")
        self._say(f"    {self._failed}({variant.name!r}, row, 'a value is too long to name a bucket')")

    def needed(self, name: str, term: Term, join: Join) -> None:
        self._open()
        self._conditions(term.filters, ())
        key = self._key(join.key)
        self._say(f"made.append({self._need(join, key)})")
        self._close(name)

    def entry(self, lookup: Lookup) -> None:
        self._open()
        self._conditions(lookup.filters, lookup.windows)
        words = [self._as_word(self._key(key)) for key in lookup.keys]
        pack = self._code.name(keys.pack, "pack")
        values = "".join(f"{self._source(expr)}, " for expr in lookup.values)
        key = " + ',' + ".join(words) or "''"
        self._say(f"made.append(({lookup.id!r}, {self._short}('[' + {key} + ']'), {pack}(({values}))))")
        self._close(lookup.table.name)

    def boundary(self, window: Window) -> None:
        self._open()
        at = self._name()
        self._say(f"{at} = {self._source(window.moment)}")
        self._say(f"if {at} is not None and {at} + {window.seconds!r} > now:")
        self._say(f"    made.append({at} + {window.seconds!r})")
        self._close(window.text)

    # -- their parts -------------------------------------------------------------------------------

    def _conditions(self, filters: Iterable[Predicate], windows: Iterable[Window]) -> None:
        # One statement, however many there are: Python nests no deeper than a hundred.
        tests = [test(self._code, predicate.test, self._leaf, self._dialect) for predicate in filters]
        if tests:
            self._say(f"if {' and '.join(f'({one})' for one in tests) if len(tests) > 1 else tests[0]}:")
            self._level += 1
        for window in windows:
            at = self._name()
            self._say(f"{at} = {self._source(window.moment)}")
            sign = ">" if window.is_until else "<="
            self._say(f"if {at} is not None and {at} + {window.seconds!r} {sign} now:")
            self._level += 1

    def _joins(self, joins: Sequence[Join]) -> list[str]:
        """Open a loop over what lookups bring; answers the names of the values that each has brought.

        It is one loop, however many there are: Python nests no more than twenty.
        """
        names = [self._name() for _ in joins]
        brings = [self._brings(join) for join in joins]
        if len(joins) == 1:
            self._say(f"for {names[0]} in {brings[0]}:")
        elif joins:
            self._say(
                f"for {', '.join(names)} in {self._code.name(product, 'product')}({', '.join(brings)}):"
            )
        self._level += bool(joins)
        return names

    def _brings(self, join: Join) -> str:
        """Source of all that a lookup brings."""
        if isinstance(join.key, Each):
            key, brought = self._name(), self._name()
            members = f"for {key} in {self._members}({self._source(join.key.of)})"
            return f"[{brought} {members} for {brought} in known({self._need(join, key)})]"
        key = self._name()
        self._say(f"{key} = {self._source(join.key)}")
        if self._is_text(join.key):
            self._texts.add(key)
        return f"(known({self._need(join, key)}) if {key} is not None else ())"

    def _need(self, join: Join, key: str) -> str:
        return f"({join.lookup!r}, {self._short}('[' + {self._as_word(key)} + ']'))"

    def _same(self, word: str, other: Key | Brought, brought: list[str], is_text: bool) -> None:
        """Go on only if the other is the same value, or has it among its members."""
        name = self._name()
        self._say(f"{name} = {self._written(other, brought)}")
        if isinstance(other, Each):
            member = self._name()
            words = f"[{self._as_word(member, is_text)} for {member} in {self._members}({name})]"
            self._say(f"if {word} in {words}:")
        else:
            self._say(f"if {name} is not None and {word} == {self._as_word(name, is_text)}:")
        self._level += 1

    def _key(self, part: Key) -> str:
        return self._value(part, [])

    def _value(self, part: Key | Brought, brought: list[str]) -> str:
        """Open what it takes for a value that is something; answers its source."""
        if isinstance(part, Each):
            name = self._name()
            self._say(f"for {name} in {self._members}({self._source(part.of)}):")
            self._level += 1
            return name
        source = self._written(part, brought)
        if isinstance(part, Brought) or not source.isidentifier():
            name = self._name()
            self._say(f"{name} = {source}")
            source = name
        elif not isinstance(part, Brought) and self._is_text(part):
            self._texts.add(source)
            if isinstance(part, Column) and self._relation.columns[self._at(part.name)].type_oid == UUID:
                self._within[self._as_word(source)] = f'"{{{source}}}"'
        self._say(f"if {source} is not None:")
        self._level += 1
        return source

    def _written(self, part: Key | Brought, brought: list[str]) -> str:
        if isinstance(part, Brought):
            return f"{brought[part.join]}[{part.at}]"
        return self._source(part.of if isinstance(part, Each) else part)

    def _as_word(self, source: str, is_text: bool = False) -> str:
        if source in self._texts:
            return f"{self._quote}({source})"
        return f"{self._word}({self._as_text}({source}))" if is_text else f"{self._word}({source})"

    def _source(self, expr: Expression) -> str:
        return value(self._code, expr, self._leaf, self._dialect)

    def _is_text(self, expr: Expression) -> bool:
        return type_of(expr, self._column_type) == "text"

    def _column_type(self, column: Expression) -> str | None:
        if not isinstance(column, Column):
            return None
        return kind_of(self._relation.columns[self._at(column.name)].type_oid, self._dialect, self._types)

    def _leaf(self, expr: Expression) -> str:
        match expr:
            case Column(name):
                return self._column(self._at(name))
            case Metadata(what):
                return repr(metadata(self._relation, what, self.suffix))
            case Now():
                return "now"
        raise AssertionError(f"{type(expr).__name__} in a row's expression")

    def _column(self, at: int) -> str:
        name = self._columns.get(at)
        if name is None:
            name = self._columns[at] = f"v{at}"
            self._preamble.append(f"v{at} = row[{at}]")
            decoded = scalar(
                self._code, self._relation.columns[at].type_oid, f"v{at}", self._dialect, self._types
            )
            if decoded != f"v{at}":
                self._preamble.append(f"if v{at} is not None:")
                self._preamble.append(f"    v{at} = {decoded}")
        return name

    def _at(self, name: str) -> int:
        return column_at(self._relation, name)


def _members(array: Scalar) -> list[Scalar]:
    """The members of a JSON array, each once; nothing is a member of nothing."""
    if array is None:
        return []
    try:
        found = jsontext.parsed(array) if isinstance(array, str) else None
    except EvaluationError:
        found = None
    if not isinstance(found, list):
        raise EvaluationError("not a JSON array")
    return list(dict.fromkeys(jsontext.scalar_of(member) for member in found if member is not None))


def _once(made: list[Any]) -> list[Any]:
    """Each thing once, where it stands last: of several that are one place, the last counts."""
    return made if len(made) < 2 else list(dict.fromkeys(made[::-1]))[::-1]
