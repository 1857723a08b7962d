"""Text with `${NAME}` → text of the same width without them, and later each one's value. No I/O.

A reference is taken out before YAML reads the file and put back into the finished scalar. So a brace in it
cannot end a flow mapping, a value cannot add a key, and every position stays what the editor shows.

    ${NAME}            the variable; it must be set
    ${NAME:-default}   the default if it is unset or empty
    $${NAME}           the text ${NAME} itself
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

#: An escaped reference, or a reference; nested ones are matched so that they can be refused by name.
REFERENCE = re.compile(r"\$\$\{(?:[^{}\r\n]*\})?|\$\{(?:\$\{[^}\r\n$]*\}|[^}\r\n])*\}?")
WELL_FORMED = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
#: Characters no keyboard has and YAML allows.
PRIVATE_USE = tuple(map(chr, range(0xE000, 0xF900)))
FORMS = "the forms are ${NAME} and ${NAME:-default}"


class Revealed(NamedTuple):
    """A scalar with its references replaced."""

    text: str
    #: Variables without value and without default; `text` is of no use then.
    unset: tuple[str, ...]


class Variables:
    """The references of one file, each hidden behind a character the file does not use.

    ValueError if there are more references than such characters: thousands.
    """

    def __init__(self, text: str) -> None:
        taken = set(text)
        self._free = [char for char in PRIVATE_USE if char not in taken]
        self._written: dict[str, str] = {}
        #: The file's text with every reference hidden; same lines, same columns.
        self.text = REFERENCE.sub(self._hide, text)
        hidden = "".join(self._written)
        self._placeholder = re.compile(f"([{hidden}])\\1*" if hidden else r"(?!)()")

    def _hide(self, match: re.Match[str]) -> str:
        if not self._free:
            raise ValueError("too many ${…} in one file")
        char = self._free.pop()
        self._written[char] = match.group()
        return char * len(match.group())

    def inside(self, text: str) -> bool:
        """Whether a reference is hidden in this part of the file."""
        return self._placeholder.search(text) is not None

    def reveal(self, scalar: str, environ: Mapping[str, str]) -> Revealed:
        """Replace what is hidden in `scalar`; ValueError says what form is right."""
        unset: list[str] = []

        def value(match: re.Match[str]) -> str:
            written = self._written[match[1]]
            if written.startswith("$$"):
                return written[1:]
            name, default = _parts(written)
            found = environ.get(name)
            if default is not None:
                return found or default
            if found is None:
                unset.append(name)
            return found or ""

        return Revealed(self._placeholder.sub(value, scalar), tuple(unset))


def _parts(written: str) -> tuple[str, str | None]:
    if "${" in written[2:]:
        raise ValueError(f"one ${{…}} cannot stand inside another; {FORMS}")
    form = WELL_FORMED.fullmatch(written)
    if form is None:
        raise ValueError(f"not a reference to a variable; {FORMS}, and $${{ is a plain ${{")
    return form[1], form[2]
