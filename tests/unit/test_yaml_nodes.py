"""YAML text → nodes: what is refused, where, and where each character of a value came from."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from replicator.errors import ConfigError
from replicator.text import nodes as yaml_nodes
from replicator.text.nodes import Document, Problem, Problems, nearest, parse
from replicator.text.offsets import origin, place
from replicator.text.words import boolean, whole


@pytest.fixture(scope="module", params=["CSafeLoader", "SafeLoader"], autouse=True)
def loader(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test with the parser in C and with the one in Python."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml_nodes, "LOADER", getattr(yaml, request.param))
        yield request.param


def problems(text: str) -> list[str]:
    """What is wrong with a text, without the file's name."""
    with pytest.raises(Problems) as raised:
        parse(text, "f").settle()
    return [str(problem).removeprefix("f:") for problem in raised.value.problems]


def scalars(node: Node) -> list[ScalarNode]:
    match node:
        case ScalarNode():
            return [node]
        case SequenceNode():
            return [found for item in node.value for found in scalars(item)]
        case MappingNode():
            return [found for pair in node.value for item in pair for found in scalars(item)]
    raise AssertionError(node)


ANCHOR = "anchors and aliases are not read; write it out, or quote text with & or *"
TAG = "tags are not read; quote text that begins with !"
WORD = "a boolean to YAML: write true or false, or quote it if it is text"
DIGITS = "not a decimal number to YAML: write plain digits, or quote it if it is text"
INDENTATION = "this does not line up with what stands above: check indentation and quotes"
NO_KEY = "no key can stand here: check the indentation, and quote text that holds a colon"

REFUSED = {
    "a duplicate key": ("a: 1\nb: 2\na: 3\n", ["3:1: a: given twice, first at 1:1"]),
    "a duplicate key further in": (
        "a:\n- {x: 1, 'x': 2}\n",
        ["2:10: a[0].x: given twice, first at 2:4"],
    ),
    "a key given three times": (
        "{a: 1, a: 2, a: 3}",
        ["1:8: a: given twice, first at 1:2", "1:14: a: given twice, first at 1:2"],
    ),
    "words that are booleans": (
        "a: no\nb: [Yes, ON]\n",
        [f"1:4: a: {WORD}", f"2:5: b[0]: {WORD}", f"2:10: b[1]: {WORD}"],
    ),
    "an octal number": ("a: 012", [f"1:4: a: {DIGITS}"]),
    "a hexadecimal number": ("a: -0x1F", [f"1:4: a: {DIGITS}"]),
    "a binary number": ("a: 0b101", [f"1:4: a: {DIGITS}"]),
    "a time of day": ("a: 12:30:45", ["1:4: a: a number to the base of 60 to YAML: quote it"]),
    "a time of day with a fraction": (
        "a: 12:30:45.5",
        ["1:4: a: a number to the base of 60 to YAML: quote it"],
    ),
    "an underscore in a number": (
        "a: 1_000",
        ["1:4: a: a number with _ in it: write plain digits, or quote it if it is text"],
    ),
    "an anchor": ("a: &x 1", [f"1:4: {ANCHOR}"]),
    "an alias": ("a: *x", [f"1:4: {ANCHOR}"]),
    "an anchor on a list, and an alias": ("a: &x [1]\nb: *x", [f"1:4: {ANCHOR}", f"2:4: {ANCHOR}"]),
    "a merge key": ("<<: {a: 1}", ["1:1: merge keys (<<) are not read; write the entries out"]),
    "a tag of ours": ("a: !env X", [f"1:4: {TAG}"]),
    "a tag of YAML": ("a: !!str 012", [f"1:4: {TAG}"]),
    "a tag that says nothing": ("a: ! x", [f"1:4: {TAG}"]),
    "a tag and an anchor, each in its place": ("a: !x 1\nb: &y 2", [f"1:4: {TAG}", f"2:4: {ANCHOR}"]),
    "a tab for indentation": ("a:\n\tb: 1", ["2:1: a tab cannot indent: use spaces"]),
    "a tab for indentation after a key": ("a: 1\n\tb: 2", ["2:1: a tab cannot indent: use spaces"]),
    "a NUL": ("a: x\0y", ['1:5: the character U+0000 cannot stand in YAML; inside "…" it can be an escape']),
    "a line break that editors do not count": (
        "a: 1\nb: x\u2028y",
        ['2:5: the character U+2028 cannot stand in YAML; inside "…" it can be an escape'],
    ),
    "a carriage return alone": (
        "a: 1\rb: 2",
        ['1:5: the character U+000D cannot stand in YAML; inside "…" it can be an escape'],
    ),
    "half a surrogate pair": (
        "a: \ud800",
        ['1:4: the character U+D800 cannot stand in YAML; inside "…" it can be an escape'],
    ),
    "a list at the top": ("- a", ["1:1: a mapping is expected here: lines of the form `key: value`"]),
    "text at the top": ("\n  hello", ["2:3: a mapping is expected here: lines of the form `key: value`"]),
    "a second document": (
        "a: 1\n---\nb: 2",
        ["2:1: a second document begins here: one file is one document"],
    ),
    "nesting without end": ("a: " + "[" * 100_000, ["1:35: nested deeper than 32 levels"]),
    "nesting without end, in blocks": ("- " * 50_000, ["1:65: nested deeper than 32 levels"]),
    "a key that is a mapping": (
        "a: {{ X }}",
        ["1:5: a: a key must be text; quote a value that begins with { or ["],
    ),
    "a key that is empty": ("'': x", ["1:1: a key is missing before the colon"]),
    "a key with a line break in it": (
        '"a\\nb": 1',
        ["1:1: a key cannot hold a line break or a control character"],
    ),
    "no space after the colon": (
        "{dsn:secret}",
        ["1:2: no value here; put a space after the colon, and quote text that holds a comma"],
    ),
    "a comma in unquoted text": (
        "a: {b: sec,ret}",
        ["1:12: a: no value here; put a space after the colon, and quote text that holds a comma"],
    ),
    "two colons": ("a: b: c", [f"1:5: {NO_KEY}"]),
    "indentation that fits nothing": ("a:\n  b: 1\n c: 2", [f"3:2: {INDENTATION}"]),
    "indentation under a value": ("a: 1\n  b: 2", [f"2:4: {NO_KEY}"]),
    "a brace that does not close": ("a: {b: 1\n\n", ["1:4: a comma or the closing } is missing"]),
    "a bracket that does not close": ("a: [b, c\n", ["1:4: a comma or the closing ] is missing"]),
    "a quote that does not close": ("a: 'b\nc: d\n", ["1:4: the quote that begins here does not end"]),
    "a list on its key's line": ("a: - b", ["1:4: a list cannot begin here: put its - on the next line"]),
    "text that begins with @": ("a: @b", ["1:4: text cannot begin with this character: quote it"]),
    "text after a quote": ("a: 'b' c", [f"1:8: {INDENTATION}"]),
    "a key in a list": (
        "- a\nb: 1",
        ["2:1: this does not line up with the list above: check the indentation"],
    ),
    "a value that is missing": (
        "a: [1,,2]",
        ["1:7: a value is missing here, or text begins with this character: quote it"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_place_and_the_remedy(name: str, loader: str) -> None:
    text, expected = REFUSED[name]
    if name in ("a key in a list",) and loader == "SafeLoader":
        expected = [f"2:1: {INDENTATION}"]
    assert problems(text) == expected


def test_too_long_a_text_is_refused_before_it_is_read() -> None:
    assert problems("#" * 1_048_577) == ["1:1: longer than 1048576 characters"]
    assert problems("a: 012\n" + "#" * 1_048_569) == [f"1:4: a: {DIGITS}"]


def test_aliases_that_multiply_are_refused_and_not_followed() -> None:
    levels = "".join(f"l{n}: &l{n} [{','.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 30))
    assert len(problems("l0: &l0 x\n" + levels)) == 30 + 29 * 9


def test_an_escape_that_is_no_character_is_a_problem() -> None:
    assert len(problems('a: "\\U00110000"')) == 1
    assert len(problems('a: "\\q"')) == 1


WORDS_TAKEN = """'no' "012" true False 10 -3 1.5 1e3 1.10 08 y 2024-01-01 null ~ 127.0.0.1:8080 a:b [] {}"""


@pytest.mark.parametrize("text", [*WORDS_TAKEN.split(), "|\n  012", "two words"])
def test_words_that_do_not_surprise_are_taken(text: str) -> None:
    parse(f"a: {text}", "f").settle()


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "--- {}\n"])
def test_an_empty_text_is_an_empty_mapping(text: str) -> None:
    document = parse(text, "f")
    document.settle()
    assert list(document.entries(document.root)) == []
    document.refuse(document.root, "", "something is missing")
    assert [problem.line for problem in document.problems] == [1]


def test_entries_leave_out_what_was_refused() -> None:
    document = parse("a: 1\n? [x]\n: 2\n<<: {b: 1}\na: 3\nc: {d, e: 1}\n", "f")
    entries = {entry.name: entry.value for entry in document.entries(document.root)}
    assert list(entries) == ["a", "c"]
    assert entries["a"].value == "1"
    inner = entries["c"]
    assert isinstance(inner, MappingNode)
    assert [entry.name for entry in document.entries(inner)] == ["e"]
    assert len(document.problems) == 4


def test_a_key_that_may_be_a_value_is_not_repeated() -> None:
    text = "a:\n  postgres://u:secret@h/db: 1\n  postgres://u:secret@h/db: 2\n"
    assert problems(text) == ["3:3: a.?: given twice, first at 2:3"]


def test_problems_are_sorted_and_one_for_each_place_and_key() -> None:
    raised = Problems(
        [
            Problem("f", 2, 1, "b", "second"),
            Problem("f", 1, 5, "a", "first"),
            Problem("f", 2, 1, "b", "the same place again"),
            Problem("f", 0, 0, "", "no place"),
        ],
        "do this",
    )
    assert raised.what == "f: no place\nf:1:5: a: first\nf:2:1: b: second"
    assert (raised.hint, raised.exit_code, len(raised.problems)) == ("do this", 2, 3)


def test_of_very_many_problems_a_hundred_are_told() -> None:
    raised = Problems(Problem("f", n, 1, "", "x") for n in range(1, 251))
    lines = raised.what.splitlines()
    assert (len(raised.problems), len(lines), lines[-1]) == (250, 101, "… and 150 more")


def test_settle_raises_only_what_was_noted() -> None:
    document = parse("a: 1", "f")
    document.settle()
    document.refuse(document.root.value[0][1], "a", "wrong")
    with pytest.raises(Problems, match=re.escape("f:1:4: a: wrong")):
        document.settle()


def test_nearest_name() -> None:
    known = ["publication", "slot", "dsn"]
    assert nearest("publicaton", known) == ", did you mean publication?"
    assert nearest("zzz", known) == "; what can stand here: dsn, publication, slot"
    assert nearest("zzz", []) == ""


@pytest.mark.parametrize("text", ["0", "7", "-12", "999999999999999999"])
def test_whole_numbers(text: str) -> None:
    assert whole(text) == int(text)


@pytest.mark.parametrize("text", ["", "+1", "01", "-0", "1.0", "1e3", "1_0", " 1", "1\n", "9" * 5000, "٣"])
def test_not_whole_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="whole number"):
        whole(text)


def test_booleans() -> None:
    assert [boolean(text) for text in ("true", "True", "false", "FALSE")] == [True, True, False, False]
    for text in ("yes", "on", "1", "", "tru"):
        with pytest.raises(ValueError, match="true or false"):
            boolean(text)


# Where a character came from. Each text holds one §; its value holds it at some offset.

MARKED = {
    "plain": "a: SELECT §x",
    "plain over lines": "a: SELECT\n    x,\n\n\n    §y\n\n  FROM z\nb: 1",
    "plain in flow": "a: {b: [one,\n  two §three   \n   four]}",
    "single quoted": "a: 'it''s  §x'",
    "single quoted over lines": "a: '  it''s \n\n   not\n   §x '\nb: 1",
    "double quoted": r'a: "\t\x41\u00e9\U0001F600\"\\ §x"',
    "double quoted over lines": 'a: " one \\\n   \\ two\\n  \n\n  three \\\n\n  four\n  §x\n "\nb: 1',
    "literal": "a: |\n  SELECT\n\n    x §y\n  FROM z\nb: 1",
    "literal, stripped": "a: |-  # why\n\n\n   one\n  \n   two §\n\n\nb: 1",
    "literal, kept": "a: |+\n one §\n\n\n",
    "literal, indented by number": "a:\n  b: |2-\n      one\n    §two\nc: 1",
    "literal, number last": "a: |-1\n   one\n  §two",
    "literal, tabs inside": "a: |\n  one\n  \tt\two\n  \t§three",
    "literal in a list": "a:\n- - |\n    one\n    §two\n  - 2",
    "folded": "a: >\n  one\n  two\n\n  three\n\n\n  §four\n",
    "folded, stripped": "a: >-\n\n  one\n\n  two §\n  three\n\n",
    "folded, kept": "a: >+\n  one\n  §two\n\n",
    "folded, with more indented lines": "a: >\n  one\n    two\n    three\n\n  four\n  five\n   §six\n",
    "folded, beginning more indented": "a: >1\n   one\n   two\n §three\n four §",
    "folded, a line of spaces": "a: >\n  one\n    \n  two\n  §three\n",
    "at the end of the file": "a: |\n  one\n  §",
    "after other scripts": "é: 'ж'\nb: é § x",
}


@pytest.mark.parametrize("line_break", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("name", MARKED)
def test_offset_leads_to_its_character_in_the_file(name: str, line_break: str) -> None:
    text = MARKED[name].replace("\n", line_break)
    document = parse(text, "f")
    [node] = [found for found in scalars(document.root) if "§" in found.value]
    for wanted, offset in zip(
        (found.start() for found in re.finditer("§", text)),
        (found.start() for found in re.finditer("§", node.value)),
        strict=True,
    ):
        assert origin(text, node, offset) == wanted
    line = text[: text.index("§")].count("\n") + 1
    document.refuse(node, "a", "here", node.value.index("§"))
    assert (document.problems[0].line, document.problems[0].column) == (
        line,
        len(text.splitlines()[line - 1].partition("§")[0]) + 1,
    )


@pytest.mark.parametrize("name", MARKED)
def test_every_offset_leads_to_a_place_of_its_own(name: str) -> None:
    text = MARKED[name]
    document = parse(text, "f")
    [node] = [found for found in scalars(document.root) if "§" in found.value]
    places = [origin(text, node, offset) for offset in range(len(node.value))]
    assert places == sorted(set(places))
    for offset, at in enumerate(places):
        assert text[at] == node.value[offset] or text[at] in "\\\n" or node.value[offset] in " \n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: one", 6),
        ("a: 'one'", 7),
        ('a: "on\\n" # x', 8),
        ("a: |-\n  one\nb: 1", 11),
        ("a: ''", 4),
        ("a: |\n\nb: 1", 3),
    ],
)
def test_offset_at_the_end_is_just_after_the_value(text: str, expected: int) -> None:
    [_, node, *_] = scalars(parse(text, "f").root)
    assert origin(text, node, len(node.value)) == expected
    assert origin(text, node, len(node.value) + 9) == expected


def test_offsets_in_a_block_of_nothing_but_line_breaks() -> None:
    text = "a: |+\n\n  \n"
    [_, node] = scalars(parse(text, "f").root)
    assert [origin(text, node, offset) for offset in range(3)] == [6, 9, 10]


def test_offset_before_the_value_is_its_start() -> None:
    [_, node] = scalars(parse("a: 'one'", "f").root)
    assert origin("a: 'one'", node, -1) == 3


def test_a_node_of_another_text_leads_to_its_start() -> None:
    [_, node] = scalars(parse("a: one two", "f").root)
    assert origin("a: another", node, 4) == 3


def test_place_counts_lines_and_columns_from_one() -> None:
    assert place("\n", 1) == (2, 1)
    text = "ab\n\ncd"
    assert [place(text, index) for index in (0, 1, 2, 3, 4, 6)] == [
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 1),
        (3, 1),
        (3, 3),
    ]


WORDS = st.lists(st.sampled_from(["a", "it's", '"b"', "§§", "  ", "\n", "\n\n", "\t", "é", "\\", ": ", "#"]))
STYLES = st.sampled_from(["", "'", '"', "|", ">"])


@pytest.mark.parametrize("text", ["%YAML 3.0\n---\na: b", "a: !secret!f 1", "a: >x\n  b"])
def test_what_the_parser_says_is_passed_on_only_where_it_quotes_nothing(text: str) -> None:
    [problem] = problems(text)
    assert "not valid YAML" in problem and "secret" not in problem and "'" not in problem


@given(words=WORDS, style=STYLES, width=st.integers(10, 40), in_list=st.booleans())
def test_offsets_are_exact_for_whatever_the_writer_writes(
    words: list[str], style: str, width: int, in_list: bool
) -> None:
    value = " ".join(words) + "§"
    data = {"key": {"inner": [value]} if in_list else value}
    text = yaml.dump(data, default_style=style, width=width, allow_unicode=True, default_flow_style=None)
    root = yaml.compose(text, yaml_nodes.LOADER)
    assert root is not None
    [node] = [found for found in scalars(root) if "§" in found.value]
    assert origin(text, node, len(node.value) - 1) == text.rindex("§")


BLOCK_LINES = st.lists(st.sampled_from(["", " ", "   ", "one", "  two", "\tthree", "    ", "four five"]))


@given(
    lines=BLOCK_LINES,
    header=st.sampled_from(
        [f"{style}{chomp}{n}" for style in "|>" for chomp in ("", "+", "-") for n in ("", "3")]
    ),
)
@example(lines=["   ", "one"], header="|3")
def test_offsets_are_exact_in_any_block(lines: list[str], header: str) -> None:
    text = f"a: {header}\n" + "".join(f"   {line}\n" for line in [*lines, "§"]) + "b: 1\n"
    try:
        document = parse(text, "f")
        document.settle()
    except Problems:
        return  # a first line of spaces longer than the text's indentation
    [node] = [found for found in scalars(document.root) if "§" in found.value]
    assert origin(text, node, node.value.index("§")) == text.index("§")


PIECES = (
    """a b:_ -_ :_ \n \n__ { } [ ] , ' " | > # &x_ *x !t_ ?_ << ---\n ...\n \t \\ 012 no \0 \u2028 \r\n @"""
)
YAMLISH = st.lists(
    st.sampled_from([piece.replace("_", " ") for piece in PIECES.split(" ")]), max_size=40
).map("".join)


@given(st.one_of(st.text(), YAMLISH))
def test_any_text_is_a_tree_or_problems(text: str) -> None:
    document: Document | None = None
    try:
        document = parse(text, "f")
        document.settle()
    except ConfigError as error:
        assert error.what
    for node in scalars(document.root) if document is not None else []:
        for offset in (0, 1, len(node.value)):
            assert 0 <= origin(text, node, offset) <= len(text)
