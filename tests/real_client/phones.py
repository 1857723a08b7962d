"""A channel to databases of the published SDK → phones, which do and tell what tests want.

    phone = phones.open("ann", tables, credentials=…, upload=…)
    phone.connect("http")
    phone.until("SELECT count(*) FROM vital_signs", [[3]])

Each call returns when it is done. What the SDK asks of an app, which is a token and where changes of its own
go, is asked of the test, in another thread.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tests.real_client.channels import Channel

#: Long enough for whatever waits; no test's verdict rests on it.
PATIENCE_S = 120.0
#: How long one command may take that itself waits no longer than that.
_ANSWER_S = PATIENCE_S + 30

#: Where to connect and with what.
Credentials = Callable[[], Mapping[str, str]]
#: Takes changes that were made on a phone, each with op, table, id and data.
Upload = Callable[[Sequence[Mapping[str, Any]]], None]


class Phones:
    """What is at the other end of one channel."""

    def __init__(self, channel: Channel, folder: Path | None = None) -> None:
        self._channel = channel
        #: Where databases are files.
        self._folder = folder
        self._phones: dict[str, Phone] = {}
        self._waiting: dict[int, SimpleQueue[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._sent = 0
        self._ended = ""
        self._app = ThreadPoolExecutor(4)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def open(
        self,
        name: str,
        tables: Mapping[str, Mapping[str, str]],
        *,
        credentials: Credentials,
        upload: Upload | None = None,
    ) -> Phone:
        """A phone with the database of that name, as it was left if it was open before."""
        phone = self._phones[name] = Phone(self, name, tables, credentials, upload)
        file = f"{name}.db" if self._folder is None else str(self._folder / f"{name}.db")
        phone.do("open", file=file, tables=tables)
        return phone

    def close(self) -> None:
        self._channel.end()
        self._reader.join()
        self._app.shutdown()
        self._channel.close()

    @property
    def all(self) -> list[Phone]:
        return list(self._phones.values())

    def call(self, command: str, fields: Mapping[str, Any]) -> Any:
        """What a command gives; raises AssertionError with what the script says if it fails."""
        answer = SimpleQueue[dict[str, Any]]()
        with self._lock:
            self._sent += 1
            self._waiting[number := self._sent] = answer
        if self._ended:
            self._tell_all(self._ended)
        self._send({"id": number, "do": command, **fields})
        said = answer.get(timeout=_ANSWER_S)
        if "fails" in said:
            raise AssertionError(f"{command}: {said['fails']}")
        return said["gives"]

    def _send(self, line: Mapping[str, Any]) -> None:
        with self._lock:
            self._channel.send(json.dumps(line))

    def _read(self) -> None:
        for text in self._channel.lines():
            line = json.loads(text)
            if "ask" in line:
                self._app.submit(self._answer, line)
            elif "event" in line:
                self._phones[line["phone"]].hear(line)
            elif "id" in line:
                self._waiting.pop(line["id"]).put(line)
            else:
                self._tell_all(f"the page failed: {line}")
        self._ended = "the other side has ended"
        self._tell_all(self._ended)

    def _tell_all(self, what: str) -> None:
        """Let nobody wait for an answer that will not come."""
        for answer in list(self._waiting.values()):
            answer.put({"fails": f"{what}; it said:\n{self._channel.last_words()}"})

    def _answer(self, line: Mapping[str, Any]) -> None:
        try:
            gives = self._phones[line["phone"]].asked(line)
        except Exception as error:
            self._send({"answer": line["ask"], "fails": str(error) or type(error).__name__})
        else:
            self._send({"answer": line["ask"], "gives": gives})


class Phone:
    """One database, which belongs to whoever its credentials say."""

    def __init__(
        self,
        phones: Phones,
        name: str,
        tables: Mapping[str, Mapping[str, str]],
        credentials: Credentials,
        upload: Upload | None,
    ) -> None:
        self.name = name
        self.tables = tables
        self.credentials = credentials
        self.upload = upload
        #: What the SDK logged from `info` on: level, line and error.
        self.log: list[dict[str, Any]] = []
        #: What it was answered over HTTP: path, status and type.
        self.answers: list[dict[str, Any]] = []
        self.tokens_asked = 0
        self.expected_checksum_failures = 0
        self._phones = phones
        self._changed = threading.Condition()

    def do(self, command: str, **fields: Any) -> Any:
        return self._phones.call(command, {"phone": self.name, **fields})

    def hear(self, event: dict[str, Any]) -> None:
        (self.log if event["event"] == "log" else self.answers).append(event)

    def asked(self, line: Mapping[str, Any]) -> Any:
        if line["what"] == "credentials":
            with self._changed:
                self.tokens_asked += 1
                self._changed.notify_all()
            return self.credentials()
        assert self.upload is not None, f"{self.name} was not expected to upload anything"
        return self.upload(line["crud"])

    @property
    def checksum_failures(self) -> list[str]:
        return [said["line"] for said in self.log if "checksum" in said["line"].lower()]

    # -- connection --------------------------------------------------------------------------------

    def connect(self, transport: str, **options: Any) -> None:
        self.do("connect", transport=transport, **options)

    def disconnect(self) -> None:
        self.do("disconnect")

    def clear(self) -> None:
        """As when somebody signs out."""
        self.do("clear")

    def close(self) -> None:
        self.do("close")

    def status(self) -> dict[str, Any]:
        return dict(self.do("status"))

    def until_status(self, **wanted: Any) -> dict[str, Any]:
        return dict(self.do("untilStatus", wanted=wanted, seconds=PATIENCE_S))

    def until_synced(self, after: int | None = None) -> int:
        """The moment of its last full sync, once there is one that is later than this."""
        return int(self.do("untilSyncedAfter", moment=after, seconds=PATIENCE_S)["lastSyncedAt"])

    def until_asked_for_tokens(self, times: int) -> None:
        """Wait until its SDK has asked for a token so often."""
        with self._changed:
            told = self._changed.wait_for(lambda: self.tokens_asked >= times, PATIENCE_S)
        assert told, f"asked for {self.tokens_asked} tokens, not {times}; it logged {self.log}"

    # -- streams -----------------------------------------------------------------------------------

    def subscribe(self, stream: str, params: Any = None, *, priority: int | None = None) -> None:
        self.do("subscribe", stream=stream, params=params, priority=priority)

    def unsubscribe(self, stream: str, params: Any = None) -> None:
        self.do("unsubscribe", stream=stream, params=params)

    def until_subscription_synced(self, stream: str, params: Any = None) -> None:
        self.do("untilSubscriptionSynced", stream=stream, params=params, seconds=PATIENCE_S)

    # -- rows --------------------------------------------------------------------------------------

    def ask(self, sql: str, *params: Any) -> list[list[Any]]:
        return list(self.do("ask", sql=sql, params=params))

    def execute(self, sql: str, *params: Any) -> None:
        self.do("execute", sql=sql, params=params)

    def until(self, sql: str, wanted: Sequence[Sequence[Any]], *params: Any) -> None:
        """Wait until it holds this."""
        self.do("until", sql=sql, params=params, wanted=wanted, seconds=PATIENCE_S)

    def held(self) -> dict[str, dict[str, tuple[Any, ...]]]:
        """By table and id, the values of all columns."""
        columns = {table: ["id", *names] for table, names in self.tables.items()}
        found = self.do("dump", columns=columns)
        held = {table: {row[0]: tuple(row[1:]) for row in rows} for table, rows in found.items()}
        assert all(len(held[table]) == len(rows) for table, rows in found.items()), "an id twice"
        return held


def watched(phones: Phones) -> Iterator[Phones]:
    """Phones that are put away after a test, none of which may have seen a wrong checksum."""
    try:
        yield phones
        for phone in phones.all:
            assert len(phone.checksum_failures) == phone.expected_checksum_failures, phone.checksum_failures
    finally:
        phones.close()
