"""A Node, or a page in a browser → lines of text, both ways.

Both end when the test process does: Node with its standard input, a browser with the pipe over which it is
debugged.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

_END_S = 10.0
#: How long a page's question for orders is left open.
_POLL_S = 20.0
#: Runs a command with two files as its third and fourth, which is where a browser looks for these pipes.
_OVER_PIPES = """
import os, sys
files = [os.dup2(int(file), 100 + at) for at, file in enumerate(sys.argv[1:3])]
os.dup2(files[0], 3), os.dup2(files[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_TYPES = {".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm"}


class Channel(Protocol):
    """Where phones are."""

    def send(self, line: str) -> None:
        """Nothing happens if nobody is there any more."""

    def lines(self) -> Iterator[str]:
        """Every line that comes, until the other side has ended."""

    def last_words(self) -> str:
        """What it said elsewhere."""

    def end(self) -> None:
        """End the other side; what it said can still be read."""

    def close(self) -> None:
        """Forget all of it."""


class NodeProcess:
    """A script that reads and writes lines."""

    def __init__(self, node: Path, script: Path) -> None:
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [node, "--no-warnings", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )

    def send(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def lines(self) -> Iterator[str]:
        assert self._process.stdout is not None
        yield from self._process.stdout

    def last_words(self) -> str:
        return _all_of(self._stderr.fileno())

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._stderr.close()


class Browser:
    """A browser without a window, at a page that asks for orders and posts what it has to say."""

    def __init__(self, browser: Path, pages: dict[str, Path], folder: Path) -> None:
        self._orders = queue.SimpleQueue[str]()
        self._said = queue.SimpleQueue[str | None]()
        self._http = _PageServer(pages, self._orders, self._said)
        threading.Thread(target=self._http.serve_forever, args=[0.05], daemon=True).start()
        self._log = tempfile.TemporaryFile()
        orders_out, self._pipe = os.pipe()
        self._answers, answers_in = os.pipe()
        address = f"http://127.0.0.1:{self._http.server_port}/"
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _OVER_PIPES,
                str(orders_out),
                str(answers_in),
                browser,
                *_options(folder),
                address,
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[orders_out, answers_in],
            start_new_session=True,
        )
        os.close(orders_out)
        os.close(answers_in)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        self._process.wait()
        self._said.put(None)

    def send(self, line: str) -> None:
        self._orders.put(line)

    def lines(self) -> Iterator[str]:
        while (line := self._said.get()) is not None:
            yield line

    def last_words(self) -> str:
        return _all_of(self._log.fileno())

    def end(self) -> None:
        self._orders.put("")
        os.close(self._pipe)
        os.close(self._answers)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._http.shutdown()

    def close(self) -> None:
        self._http.server_close()
        self._log.close()


def _options(folder: Path) -> list[str]:
    options = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={folder}", "--disable-gpu"]
    options += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    options += ["--disable-sync", "--disable-dev-shm-usage", "--password-store=basic"]
    return [*options, "--no-sandbox"] if os.geteuid() == 0 else options


class _PageServer(ThreadingHTTPServer):
    """Files by their path, and the two ends of a conversation."""

    daemon_threads = True

    def __init__(
        self, pages: dict[str, Path], orders: queue.SimpleQueue[str], said: queue.SimpleQueue[str | None]
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.pages, self.orders, self.said = pages, orders, said


class _Request(BaseHTTPRequestHandler):
    server: _PageServer

    def do_GET(self) -> None:
        if self.path == "/orders":
            self._answer(200, "text/plain", self._order().encode())
            return
        folder, _, name = self.path.rpartition("/")
        path = self.server.pages.get(folder, Path(os.devnull)) / (name or "page.html")
        if path.is_file():
            self._answer(200, _TYPES.get(path.suffix, "application/octet-stream"), path.read_bytes())
        else:
            self._answer(404, "text/plain", b"")

    def _order(self) -> str:
        try:
            return self.server.orders.get(timeout=_POLL_S)
        except queue.Empty:
            return ""

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["content-length"])).decode()
        for line in text.splitlines():
            self.server.said.put(line)
        self._answer(200, "text/plain", b"")

    def _answer(self, status: int, media_type: str, body: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _all_of(file: int) -> str:
    return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")
