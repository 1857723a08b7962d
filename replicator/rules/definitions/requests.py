"""`request.user_id()`, `token_parameters.k` and the like → what a Request expression says. No I/O.

In editions 1 and 2 these are the words for who asks. `token_parameters.user_id()`, as some files have it,
means `token_parameters.user_id`, and both mean the token's subject.
"""

from __future__ import annotations

from collections.abc import Mapping

from replicator.rules.expression import Call, Expression, Literal, Request
from replicator.rules.sql.reader import NotUnderstood
from replicator.text.nodes import nearest

#: Which of the names for a request's values the token vouches for; a client can choose the others freely.
VERIFIED = frozenset({"user_id", "jwt", "token_parameters"})
CLIENT = frozenset({"parameters", "subscription"})
FUNCTIONS = {"user_id": "user_id", "jwt": "jwt", "parameters": "parameters"}
LEGACY_TABLES = {"token_parameters": "token_parameters", "user_parameters": "parameters"}
#: What streams call the same.
STREAM_WORDS = {
    ("auth", "user_id"): "request.user_id()",
    ("auth", "uid"): "request.user_id()",
    ("auth", "jwt"): "request.jwt()",
    ("auth", "parameter"): "request.jwt() ->> 'name'",
    ("auth", "parameters"): "request.jwt()",
    ("connection", "parameter"): "request.parameter('name')",
    ("connection", "parameters"): "request.parameters()",
    ("subscription", "parameter"): "request.parameter('name')",
    ("subscription", "parameters"): "request.parameters()",
}


def request_column(path: list[str], named: Mapping[str, Expression], location: int) -> Expression | None:
    """`token_parameters.k`, `user_parameters.k` or `parameters.name`; None if it is none of them."""
    match path:
        case ["token_parameters", "user_id"]:
            return Request("user_id")
        case [("token_parameters" | "user_parameters") as table, name]:
            if "." in name or name.startswith("$"):
                # Such a name would be taken for a path.
                raise NotUnderstood("a name with . or $ is reached by request.jwt() -> '…' only", location)
            return Call("->>", (Request(LEGACY_TABLES[table]), Literal(name)))
        case ["parameters", name] if named:
            if name in named:
                return named[name]
            what = f"{name} does not stand under `parameters` at the top of the file{nearest(name, named)}"
            raise NotUnderstood(what, location)
        case [("request" | "auth" | "connection" | "subscription") as schema, name]:
            argument = "'name'" if name == "parameter" else ""
            what = f"a function is called with parentheses: {schema}.{name}({argument})"
            raise NotUnderstood(what, location)
    return None


def request_function(path: list[str], args: list[Expression], location: int) -> Expression | None:
    """`request.user_id()` and its like; None if it is none of them."""
    match path:
        case ["token_parameters", "user_id"]:
            _arguments(path, args, 0, location)
            return Request("user_id")
        case ["token_parameters" | "user_parameters", name]:
            what = f"this is no function; {path[0]}.{name} is the value of that name"
            raise NotUnderstood(what, location)
        case ["request", "parameter"]:
            _arguments(path, args, 1, location)
            return Call("->>", (Request("parameters"), args[0]))
        case ["request", name] if name in FUNCTIONS:
            _arguments(path, args, 0, location)
            return Request(FUNCTIONS[name])
        case ["request", name]:
            near = nearest(name, [*FUNCTIONS, "parameter"])
            raise NotUnderstood(f"there is no function request.{name}{near}", location)
        case [("auth" | "connection" | "subscription") as schema, name]:
            word = STREAM_WORDS.get((schema, name))
            instead = f"; here it is {word}" if word else ""
            raise NotUnderstood(f"{schema}.{name} is a word of streams{instead}", location)
    return None


def _arguments(path: list[str], args: list[Expression], count: int, location: int) -> None:
    if len(args) != count:
        name = ".".join(path)
        what = f"{name}('name') needs one name" if count else f"{name}() has nothing between its parentheses"
        raise NotUnderstood(what, location)
