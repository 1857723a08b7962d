"""What YAML makes of a word, or says about an error → what one does about it. No I/O."""

from __future__ import annotations

import re

from yaml import ScalarNode

BOOLEAN = {"true": True, "false": False}
#: What no message could show: control characters, line breaks, halves of a character.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")

#: Part of the parser's message → what the writer can do. The first that fits counts.
SYNTAX = (
    ("tab character", "a tab cannot indent: use spaces"),
    ("start any token", "text cannot begin with this character: quote it"),
    (
        "mapping values are not allowed",
        "no key can stand here: check the indentation, and quote text that holds a colon",
    ),
    ("sequence entries are not allowed", "a list cannot begin here: put its - on the next line"),
    ("',' or '}'", "a comma or the closing } is missing"),
    ("',' or ']'", "a comma or the closing ] is missing"),
    ("expected ':'", "a colon is missing after this key"),
    ("unexpected end of stream", "the quote that begins here does not end"),
    ("escape", "unknown escape: a \\ inside \"…\" begins one; use '…' for plain text"),
    ("expected key", "this does not line up with what stands above: check indentation and quotes"),
    ("<block end>", "this does not line up with what stands above: check indentation and quotes"),
    ("'-' indicator", "this does not line up with the list above: check the indentation"),
    ("node content", "a value is missing here, or text begins with this character: quote it"),
)


def syntax(text: str, error: Exception) -> tuple[int, str]:
    """Where a parser's error is, as an index of the text, and the plain words for it."""
    problem = getattr(error, "problem", None) or ""
    mark = getattr(error, "problem_mark", None)
    begun = getattr(error, "context_mark", None)
    if begun is not None and (mark is None or mark.index >= len(text.rstrip())):
        mark = begun  # what is open was opened here; the end of the file explains nothing
    index = 0 if mark is None else int(mark.index)
    if text[index : index + 1] == "\t":
        problem = "tab character"
    for part, words in SYNTAX:
        if part in problem:
            return index, words
    # The parser in C says fixed sentences; the one in Python quotes what it found.
    return index, "not valid YAML" + (f": {problem}" if problem and "'" not in problem else "")


def surprise(node: ScalarNode) -> str | None:
    """Why this unquoted word is refused: YAML 1.1 reads it as something it does not look like."""
    kind, text = node.tag.rpartition(":")[2], node.value
    if kind == "bool" and text.lower() not in BOOLEAN:
        return "a boolean to YAML: write true or false, or quote it if it is text"
    if kind not in ("int", "float"):
        return None
    if ":" in text:
        return "a number to the base of 60 to YAML: quote it"
    if "_" in text:
        return "a number with _ in it: write plain digits, or quote it if it is text"
    if kind == "int" and re.match(r"[-+]?0[bx0-9]", text):
        return "not a decimal number to YAML: write plain digits, or quote it if it is text"
    return None


def boolean(text: str) -> bool:
    """`true` or `false`; ValueError otherwise."""
    if text.lower() not in BOOLEAN:
        raise ValueError("must be true or false")
    return BOOLEAN[text.lower()]


def whole(text: str) -> int:
    """A whole number in plain digits; ValueError otherwise."""
    if not WHOLE.fullmatch(text):
        raise ValueError("must be a whole number in plain digits")
    return int(text)
