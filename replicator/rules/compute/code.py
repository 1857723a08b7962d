"""Pieces of Python source → one function, made once and called for every row. No I/O.

Calling a tree of closures costs several times what the same work costs in one generated function. Nothing
from outside enters the source: values and functions go in by names that are made here, and text through
its repr.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Code:
    """The names that a function's source may use, and what they stand for."""

    def __init__(self) -> None:
        self._scope: dict[str, Any] = {"__builtins__": {}}
        self._names: dict[int, str] = {}

    def name(self, thing: object, hint: str = "v") -> str:
        """A name for this object in the source; the same one each time."""
        known = self._names.get(id(thing))
        if known is None:
            known = f"{hint}_{len(self._names)}"
            self._names[id(thing)] = known
            self._scope[known] = thing
        return known

    def constant(self, value: object) -> str:
        """Source for a value that is written in the rules."""
        if value is None or type(value) in (int, str, bytes, bool):
            return repr(value)
        return self.name(value, "c")

    def function(self, parameters: str, lines: list[str]) -> Callable[..., Any]:
        """The function with these parameters and this body, whose lines carry their own indentation."""
        source = f"def made({parameters}):\n" + "".join(f"    {line}\n" for line in lines)
        exec(compile(source, "<rules>", "exec"), self._scope)
        made: Callable[..., Any] = self._scope.pop("made")
        return made
