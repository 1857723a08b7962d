"""`->` and `->>` belong to what stands right before them, and not to all that does."""

from __future__ import annotations

import pytest

from replicator.rules.sql.sqltext import SqlNode, parse_select


def shown(node: SqlNode) -> str:
    """The tree with every pair of parentheses that it stands for."""
    [(kind, parts)] = node.items()
    match kind:
        case "ColumnRef":
            return str(parts["fields"][0]["String"]["sval"])
        case "A_Const":
            return "'k'"
        case "FuncCall":
            return f"f({', '.join(map(shown, parts['args']))})"
    operator = parts["name"][-1]["String"]["sval"]
    left = f"{shown(parts['lexpr'])} " if "lexpr" in parts else ""
    return f"({left}{operator} {shown(parts['rexpr'])})"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("a && b -> 'k'", "(a && (b -> 'k'))"),
        ("a -> 'k' && b", "((a -> 'k') && b)"),
        ("(a && b) -> 'k'", "((a && b) -> 'k')"),
        ("((a && b)) -> 'k'", "((a && b) -> 'k')"),
        ("'é' || b ->> 'k' || c -> 'k' ->> 'k'", "(('k' || (b ->> 'k')) || ((c -> 'k') ->> 'k'))"),
        ("a || b * c -> 'k'", "(a || (b * (c -> 'k')))"),
        ("- a -> 'k'", "(- (a -> 'k'))"),
        ("c || f(a) -> 'k'", "(c || (f(a) -> 'k'))"),
        ("f(a || b) -> 'k'", "(f((a || b)) -> 'k')"),
        ("f(a || b -> 'k')", "f((a || (b -> 'k')))"),
        ("c || (a || b) -> 'k'", "(c || ((a || b) -> 'k'))"),
        ("a || (b) -> 'k'", "(a || (b -> 'k'))"),
        ("x IN a && b -> 'k'", "(x IN (a && (b -> 'k')))"),
        ("a = b || c ->> 'k'", "(a = (b || (c ->> 'k')))"),
        ("a /* ( */ || b -- )\n -> 'k'", "(a || (b -> 'k'))"),
    ],
)
def test_a_member_is_of_what_stands_before_it(written: str, meant: str) -> None:
    select = parse_select(f"SELECT {written}")
    assert shown(select["targetList"][0]["ResTarget"]["val"]) == meant
