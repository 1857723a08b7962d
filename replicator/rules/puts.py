"""What names a row's bucket × how it is shown → what prints new rows, one after another. No I/O.

A row of most tables can be in one bucket only, and most of what passes are rows that are new. What is done of
such a row is little; to call functions for its bucket, its id, its text and its op, and to hand on what
each of them says, took more than half of the time. So for a run of them all of it is written out as one.

Rows with long names are left to others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TypeAlias

from replicator.binary_copy import LENGTHS, length
from replicator.rules import keys
from replicator.rules.columns.shapes import Shape
from replicator.rules.columns.types import INTEGERS, UUID
from replicator.rules.columns.values import Printing
from replicator.rules.compute.code import Code
from replicator.rules.printed import Intended, put_head
from replicator.wal.messages import Relation, Row
from replicator.wal.transactions import Change, Kind

#: (a change, those after it, the time, where to add) → the first of them that is no new row of the same
#: relation, or one that is left to others; None if there is none. It takes those before it from the others.
Puts: TypeAlias = Callable[[Change, Iterator[Change], float, Intended], Change | None]
#: What is short, and is itself as a part of a name.
_SHORT = INTEGERS | {UUID}


def puts(
    code: Code,
    naming: Sequence[str],
    relation: Relation,
    output: str,
    shape: Shape,
    key_at: Sequence[int],
    subkey: Callable[[Row], str],
) -> Puts:
    """`naming`: statements that leave the name of a `row`'s bucket in `bucket`, or None."""
    use = code.name
    body = [
        "kind, relation, _, row, _, _ = change",
        f"if kind is not {use(Kind.INSERT)} or relation is not of:",
        "    return change",
        *naming,
        "if bucket is None:",
        "    continue",
        *_printed(code, relation, output, shape, key_at, subkey),
        "add_op(made)",
        "add_bucket(bucket)",
    ]
    made: Puts = code.function(
        "change, after, now, intended",
        [
            "of = change.relation",
            "add_bucket, add_op = intended.buckets.append, intended.ops.append",
            f"for change in {use(chain)}((change,), after):",
            *(f"    {line}" for line in body),
            "return None",
        ],
    )
    return made


def _printed(
    code: Code,
    relation: Relation,
    output: str,
    shape: Shape,
    key_at: Sequence[int],
    subkey: Callable[[Row], str],
) -> list[str]:
    """Statements that make `made` of `row`, or go on with the next, or leave the change to others."""
    use = code.name
    size, sizes = use(len, "len"), use(LENGTHS, "sizes")
    lines, odd, missing = list[str](), list[str](), list[str]()
    prefix = b""
    if len(key_at) == 1:
        lines.append(f"key = row[{key_at[0]}] or ''")
        prefix = f"{relation.oid}/".encode()
        if relation.columns[key_at[0]].type_oid not in _SHORT:
            odd += [f"{size}(key) > {keys.MOST_IN_A_KEY}", "key[:1] == '#'"]
    else:
        lines.append(f"key = {use(subkey)}(row)")
    row_id = "key" if (shape.id_at,) == tuple(key_at) else "row_id"
    if row_id == "row_id":
        is_column = shape.id_at is not None
        lines.append(f"row_id = row[{shape.id_at}] or ''" if is_column else f"row_id = {use(shape.id)}(row)")
        odd += [f"{size}(row_id) > {keys.MOST_IN_A_KEY}"]
        missing += [] if is_column else ["row_id is None"]
    if shape.printing is None:
        lines.append(f"data = {use(shape.encode)}(row)")
        missing.append("data is None")
        text = []
    else:
        text = _text(shape.printing(code))
    lines += [f"if {' or '.join(missing)}:", "    continue"] if missing else []
    lines += [f"if {' or '.join(odd)}:", "    return change"] if odd else []
    lines += [*text, "key = key.encode()", "data = data.encode()"]
    lines += ["row_id = row_id.encode()"] if row_id == "row_id" else []
    head = f"{put_head(output)!r}, {sizes}[{size}({row_id})], {row_id}"
    place = f"{sizes}[{size}(key) + {len(prefix)}], {prefix!r}, key"
    data = f"{sizes}[size] if size < {len(LENGTHS)} else {use(length, 'length')}(size), data"
    return [*lines, f"size = {size}(data)", f"made = {use(b''.join, 'join')}(({head}, {place}, {data}))"]


def _text(how: Printing) -> list[str]:
    """Statements that make `data`."""
    short = f"data = f{how.short!r}"
    if not how.holds:
        return [*how.lines, short]
    return [*how.lines, f"if {' and '.join(how.holds)}:", f"    {short}", "else:", f"    data = {how.always}"]
