"""What a client is told → lines, JSON, or a table that fills, on a terminal.

What rows say is not shown unless somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import click
import orjson

from replicator.buckets.model import Op, OpId
from replicator.observe.tail import line as line_of_op
from replicator.observe.tail_mirror import Aimed, Came, Expires, Told, Unknown, Verdict

if TYPE_CHECKING:
    from rich.live import Live


class Begun(NamedTuple):
    """A connection."""

    url: str
    encoding: str


class Ended(NamedTuple):
    """And why it is none any more, or was not made."""

    why: str


Event: TypeAlias = Told | Begun | Ended
_NAMES: dict[type[Any], str] = {
    Begun: "connected",
    Ended: "disconnected",
    Aimed: "checkpoint",
    Came: "data",
    Verdict: "complete",
    Expires: "token",
    Unknown: "unknown",
}


class Shown(Protocol):
    """Where it goes."""

    def tell(self, event: Event, line: Any = None) -> None: ...

    def __enter__(self) -> Shown: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Lines:
    """A line for each event: text for people, or JSON for programs; and for each op, if rows are shown."""

    def __init__(self, say: Callable[[str], None], *, as_json: bool, with_rows: bool) -> None:
        self._say, self._as_json, self._with_rows = say, as_json, with_rows

    def tell(self, event: Event, line: Any = None) -> None:
        self._say(_json(event) if self._as_json else text(event))
        if isinstance(event, Came) and self._with_rows:
            for op in line["data"]["data"]:
                self._say(orjson.dumps({"event": "op", **op}).decode() if self._as_json else _op(event, op))

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Table:
    """A table of what the client holds, redrawn as it changes."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._rows: dict[str, int] = {}
        self._filling: dict[str, int] = {}
        self._said: dict[str, str] = {}

    def tell(self, event: Event, line: Any = None) -> None:
        self._said[_NAMES[type(event)]] = text(event)
        if isinstance(event, Came):
            for op in line["data"]["data"]:
                if op["op"] == "PUT":
                    self._filling[op["object_type"]] = self._filling.get(op["object_type"], 0) + 1
        elif isinstance(event, Verdict):
            self._rows = event.rows
            if event.priority is None:
                self._filling = {}
        elif isinstance(event, Begun):
            self._said.pop("disconnected", None)
        if self._live is not None:
            self._live.update(self._drawn())

    def _drawn(self) -> Any:
        from rich.console import Group
        from rich.table import Table as Drawn
        from rich.text import Text

        table = Drawn("table", "rows", "arriving")
        table.columns[1].justify = table.columns[2].justify = "right"
        for name in sorted(self._rows.keys() | self._filling.keys()):
            arriving = self._filling.get(name)
            table.add_row(Text(name), f"{self._rows.get(name, 0):,}", f"+{arriving:,}" if arriving else "")
        shown = ("connected", "disconnected", "checkpoint", "complete", "token")
        return Group(table, *(Text.from_ansi(self._said[name]) for name in shown if name in self._said))

    def __enter__(self) -> Table:
        from rich.live import Live

        self._live = Live(self._drawn(), refresh_per_second=8)
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)


def text(event: Event) -> str:
    """One line for a person."""
    match event:
        case Begun(url, encoding):
            return _line("connected", f"{url}{f', {encoding}' if encoding else ''}")
        case Ended(why):
            return _line("disconnected", why, "yellow")
        case Aimed(op_id, write, buckets, ops, is_difference):
            written = f", write checkpoint {write}" if write is not None else ""
            changed = " (what differs)" if is_difference else ""
            return _line("checkpoint", f"{op_id}{changed}: {_n(buckets, 'bucket')}, {_n(ops, 'op')}{written}")
        case Came(bucket, puts, removes, others, upto):
            rest = f", {others} that stand for others" if others else ""
            return _line("data", f"{bucket}: {_n(puts, 'put')}, {_n(removes, 'remove')}{rest}, up to {upto}")
        case Verdict():
            return _verdict(event)
        case Expires(seconds):
            return _line("token", f"good for {seconds} s", "yellow" if seconds <= 30 else "")
        case Unknown(kind):
            return _line("unknown", f"a line {kind!r:.40}, which clients pass over", "yellow")


def _verdict(verdict: Verdict) -> str:
    which = f"{verdict.op_id}" if verdict.priority is None else f"priority {verdict.priority}"
    name = "complete" if verdict.priority is None else "partial"
    if verdict.wrong:
        wrong = f"{_n(len(verdict.wrong), 'sum')} of {verdict.compared} wrong"
        return _line(name, f"{which}: {wrong}: {verdict.wrong[0].bucket}", "red")
    rows = ", ".join(f"{table} {count:,}" for table, count in verdict.rows.items()) or "no rows"
    holds = f"{_n(verdict.compared, 'sum')} right"
    return _line(name, f"{which}: {holds}; {rows}", "green")


def _line(name: str, said: str, colour: str = "") -> str:
    head = f"{name:<12}"
    return f"{click.style(head, fg=colour) if colour else head} {said}"


def _op(came: Came, op: dict[str, Any]) -> str:
    values = (op.get("object_type") or "", op.get("object_id") or "", op.get("subkey") or "")
    return line_of_op(
        Op(OpId(int(op["op_id"])), came.bucket, op["op"], *values, op["checksum"], op.get("data"))
    )


def _json(event: Event) -> str:
    name = _NAMES[type(event)]
    facts = event._asdict()
    if isinstance(event, Verdict):
        facts["wrong"] = [one._asdict() for one in event.wrong]
        facts["ok"] = not event.wrong
        name = name if event.priority is None else "partial"
    return orjson.dumps({"event": name, **facts}).decode()


def _n(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
