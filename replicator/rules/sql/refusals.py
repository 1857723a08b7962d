"""What of SQL is not part of the rules language → what to write instead. No I/O.

Each message names the thing and the nearest form that is understood. What is refused here would otherwise be
guessed at, or fail for every row.
"""

from __future__ import annotations

from typing import Final

from replicator.rules.compute.functions import FUNCTIONS
from replicator.text.nodes import nearest

#: Every function a rule may call by name: how many arguments it takes at least, and at most.
CALLED: Final[dict[str, tuple[int, int | None]]] = {
    **{name: (known.least, known.most) for name, known in FUNCTIONS.items() if known.is_called},
    "iif": (3, 3),
    "now": (0, 0),
    "substr": (2, 3),
}
#: What may stand in or after a function's parentheses, and means something only for aggregates.
CLAUSES: Final = {
    "agg_distinct": "DISTINCT",
    "agg_filter": "FILTER",
    "agg_order": "ORDER BY",
    "agg_within_group": "WITHIN GROUP",
    "func_variadic": "VARIADIC",
    "over": "OVER",
}
#: What many rows come to.
_AGGREGATES: Final = frozenset(
    {"count", "sum", "avg", "min", "max", "every", "bool_and", "bool_or", "array_agg", "string_agg"}
    | {"json_agg", "jsonb_agg", "json_object_agg", "jsonb_object_agg", "row_number", "rank"}
)
_COMPUTE_IT = "; let the source compute it, in a generated column"
_OPERATORS: Final = {
    "#>": "; write -> '$.a.b'",
    "#>>": "; write ->> '$.a.b'",
    "@>": "; write `value IN array`, or `array && array`",
    "<@": "; write `value IN array`, or `array && array`",
    "?": "; write `column -> 'key' IS NOT NULL`",
    "~": "; write LIKE",
    "~*": "; write ILIKE",
    "!~": "; write NOT LIKE",
    "!~*": "; write NOT ILIKE",
    "~~": "; write LIKE",
    "~~*": "; write ILIKE",
    "==": "; write =",
}
_KINDS: Final = {
    "SubLink": "a subquery has no place in an expression: it stands alone after IN, as in `x IN (SELECT …)`",
    "RowExpr": "a row of values stands only after IN; write one expression",
    "NamedArgExpr": "arguments have no names; write them in their order",
    "ParamRef": "there are no numbered parameters; values of the request are read by functions",
    "A_Indirection": "array[1] and (row).field are not understood; write json -> 0 or json ->> 'field'",
    "CollateClause": "COLLATE is not understood: text is compared by its characters",
    "MinMaxExpr": "greatest and least are not understood; write CASE WHEN a > b THEN a ELSE b END",
    "GroupingFunc": "GROUPING has no place here",
    "SetToDefault": "DEFAULT has no place here",
    "XmlExpr": "XML is not understood" + _COMPUTE_IT,
}
_EXPRESSIONS: Final = {
    "AEXPR_OP_ANY": "ANY is not understood; write `value IN array`",
    "AEXPR_OP_ALL": "ALL is not understood; write NOT (value IN array)",
    "AEXPR_SIMILAR": "SIMILAR TO is not understood; write LIKE",
    "AEXPR_BETWEEN_SYM": "BETWEEN SYMMETRIC is not understood; write BETWEEN with the lower bound first",
    "AEXPR_NOT_BETWEEN_SYM": "BETWEEN SYMMETRIC is not understood; write NOT BETWEEN",
}
_CASTS: Final = {
    **dict.fromkeys(("json", "jsonb"), "; -> and ->> read JSON from any text: leave the cast out"),
    "bool": "; compare instead: x = 1, x = 'yes'",
    "uuid": "; a uuid is text already",
    **dict.fromkeys(("timestamp", "timestamptz", "date"), "; write datetime(x), or unixepoch(x) for seconds"),
}
_INSTEAD: Final = {
    "user_id": "request.user_id(), or auth.user_id() in streams",
    "uid": "request.user_id(), or auth.user_id() in streams",
    "jwt": "request.jwt(), or auth.parameters() in streams",
    "parameter": "request.parameter('name'), or connection.parameter('name') in streams",
    "parameters": "request.parameters(), or connection.parameters() in streams",
    "char_length": "length",
    "character_length": "length",
    "strpos": "instr",
    "btrim": "trim",
    "left": "substring(x, 1, n)",
    "encode": "hex or base64",
    "jsonb_array_length": "json_array_length",
    "json_extract_path_text": "->> '$.a.b'",
    "jsonb_extract_path_text": "->> '$.a.b'",
    "to_timestamp": "datetime(x, 'unixepoch')",
    "date_part": "unixepoch",
    "extract": "unixepoch",
    "age": "`x > now() - interval '90 days'`",
}


def of_kind(kind: str) -> str:
    """Of a kind of node."""
    return _KINDS.get(kind, f"this is not understood{_COMPUTE_IT}")


def of_expression(kind: str) -> str:
    """Of a kind of operator expression."""
    return _EXPRESSIONS.get(kind, f"this is not understood{_COMPUTE_IT}")


def of_operator(name: str) -> str:
    return f"the operator {name} is not part of the rules language{_OPERATORS.get(name, _COMPUTE_IT)}"


def of_cast(name: str) -> str:
    what = "a cast is to text, numeric, integer, real or blob"
    return what + _CASTS.get(name, "")


def of_function(path: list[str]) -> str:
    """Of a function that nobody knows."""
    name = ".".join(path)
    if len(path) > 1:
        return f"the function {name} is not known here"
    if name in _AGGREGATES:
        return f"{name} is of many rows, and rows are sent one by one: let the client compute it"
    instead = f"; write {_INSTEAD[name]}" if name in _INSTEAD else nearest(name, CALLED)
    return f"the function {name} is not part of the rules language{instead}"


def of_arguments(name: str, count: int) -> str | None:
    """Of a known function with too few arguments, or too many."""
    least, most = CALLED[name]
    if least <= count and (most is None or count <= most):
        return None
    if most is None:
        wanted = f"at least {least}"
    else:
        wanted = str(least) if least == most else f"{least} to {most}"
    return f"{name} takes {wanted} argument{'' if wanted in ('1', 'at least 1') else 's'}, not {count}"
