"""A real Kamailio with the honeypot, a feed that takes reports, and a tool that guesses."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from apiban.gate import Board
from apiban.honeypot.counts import Counts, total
from apiban.trial.kamailio import SCRIPT, Kamailio

from tests.support.node import HOST
from tests.support.ports import free_port
from tests.support.sip import Sender

ROOT = Path(__file__).resolve().parents[2]
KEY = "the-report-key"
REALM = "asterisk"


class ReportFeed:
    """An HTTP server that settles reports as the feed does, and remembers them."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.highest: dict[str, int] = {}
        self.sightings: list[dict[str, Any]] = []
        self.unproven: list[dict[str, Any]] = []
        self.authorizations: set[str] = set()
        self.answer: Callable[[dict[str, Any]], tuple[int, dict[str, Any]]] = self.settle
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        """Listen, on the port that it had before."""
        feed = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                feed.authorizations.add(self.headers["Authorization"])
                status, answer = feed.answer(body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Be down."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def url(self) -> str:
        """The base of its API."""
        return f"http://127.0.0.1:{self.port}/api/"

    def settle(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Take what is new, by the sequences."""
        self.bodies.append(body)
        highest = self.highest.get(body["queue"], 0)
        sequences = [one["sequence"] for one in body["sightings"]]
        assert sequences == sorted(set(sequences))
        new = [one for one in body["sightings"] if one["sequence"] > highest]
        self.sightings += new
        self.unproven += body["unproven"]
        if sequences:
            self.highest[body["queue"]] = max(highest, sequences[-1])
        repeated = len(sequences) - len(new)
        return 200, {"accepted": len(new), "repeated": repeated, "refused": []}

    def messages(self, source: str | None = None) -> int:
        """Count the messages that the sightings of a source, or of all, stand for."""
        return sum(
            one["count"] for one in self.sightings if source is None or one["source"] == source
        )

    def of(self, source: str) -> list[dict[str, Any]]:
        """Give the sightings of a source."""
        return [one for one in self.sightings if one["source"] == source]


@contextlib.contextmanager
def running(folder: Path, **options: Any) -> Iterator[Honeypot]:
    """Give a started honeypot, and end it."""
    pot = Honeypot(folder, **options)
    try:
        yield pot.start()
    finally:
        pot.stop()


class Honeypot:
    """Kamailio with the honeypot's configuration and settings of the test's."""

    def __init__(self, folder: Path, host: str = HOST, **options: Any) -> None:
        self.folder = folder
        self.feed = ReportFeed()
        self.settings: dict[str, Any] = {
            "report.url": self.feed.url,
            "report.key": KEY,
            "report.interval": 0.2,
            "log.interval": 1,
            "paths.state": str(folder / "state"),
            "paths.runtime": str(folder / "runtime"),
            **options.pop("settings", {}),
        }
        self.settings_file = folder / "honeypot.toml"
        self.write_settings()
        self.target = (host, free_port())
        at = f"[{host}]" if ":" in host else host
        listen = options.pop("listen", ["udp", "tcp"])
        clean = {name: text for name, text in os.environ.items() if not name.startswith("APIBAN")}
        self.kamailio = Kamailio(
            folder / "kamailio",
            listen=[f"{transport}:{at}:{self.target[1]}" for transport in listen],
            environ={**clean, "APIBAN_HONEYPOT_SETTINGS": str(self.settings_file)},
            configuration=ROOT / "kamailio" / "honeypot.cfg",
            script=SCRIPT.with_name("apiban_honeypot.py"),
            **options,
        )

    def write_settings(self, **changes: Any) -> None:
        """Write the file anew, with changes; names have ``__`` for the dot."""
        self.settings.update({name.replace("__", "."): value for name, value in changes.items()})
        lines = [f"{name} = {json.dumps(value)}" for name, value in self.settings.items()]
        scratch = self.settings_file.with_suffix(".new")
        scratch.write_text("\n".join(lines) + "\n", encoding="utf-8")
        scratch.chmod(0o640)
        scratch.replace(self.settings_file)

    def start(self) -> Honeypot:
        """Start it."""
        self.kamailio.start()
        return self

    def stop(self) -> None:
        """End everything."""
        self.kamailio.stop()
        self.feed.stop()

    @property
    def board(self) -> Board:
        """Map the counters of the running honeypot."""
        return Board.open(self.folder / "runtime" / "counters")

    @property
    def counts(self) -> Counts:
        """Give what it counted so far."""
        return total(self.board)

    def events(self, name: str) -> list[str]:
        """Give the log lines of an event."""
        return [line for line in self.kamailio.log_lines() if f"event={name} " in line + " "]

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """Read a table of the queue's file."""
        with contextlib.closing(sqlite3.connect(self.folder / "state" / "honeypot.db")) as db:
            return db.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - the test's own

    def processes(self, name: str) -> list[int]:
        """Give the ids of the processes of this Kamailio's, or of its reporter."""
        mark = str(self.settings_file).encode() if name == "reporter" else str(self.folder).encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes()
                    if name == "reporter":
                        ours = (
                            b"apiban.honeypot" in words and mark in (entry / "environ").read_bytes()
                        )
                    else:
                        ours = words.startswith(b"kamailio\0") and mark in words
                    if ours:
                        found.append(int(entry.name))
        return found


def digest(nonce: str, user: str, secret: str, method: str, uri: str) -> str:
    """Give the header that answers a challenge."""

    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    response = md5(f"{md5(f'{user}:{REALM}:{secret}')}:{nonce}:{md5(f'{method}:{uri}')}")
    return (
        f'Authorization: Digest username="{user}", realm="{REALM}", nonce="{nonce}", '
        f'uri="{uri}", response="{response}", algorithm=MD5\r\n'
    )


def nonce_in(answer: bytes) -> str:
    """Give the nonce of a challenge."""
    match = re.search(rb'nonce="([^"]+)"', answer)
    assert match is not None, answer
    return match[1].decode()


class Tool(Sender):
    """A scanner that can answer challenges."""

    def request(self, method: str = "OPTIONS") -> bytes:
        """Build a request of a tool's size: a smaller one gets no answer."""
        more = b"\r\nAccept: application/sdp, application/dtmf-relay, text/plain, */*"
        more += b"\r\nAllow: INVITE, ACK, CANCEL, BYE, OPTIONS, NOTIFY, INFO\r\nUser-Agent"
        return super().request(method).replace(b"\r\nUser-Agent", more)

    def with_header(self, method: str, header: str) -> bytes:
        """Build a request with one more header."""
        return self.request(method).replace(
            b"\r\nUser-Agent", b"\r\n" + header.encode() + b"User-Agent"
        )

    def answer_to(
        self, nonce: str, guess: str = "wrong", method: str = "REGISTER", user: str = "100"
    ) -> bytes:
        """Build a request that answers a challenge."""
        at = f"[{self.target[0]}]" if ":" in self.target[0] else self.target[0]
        return self.with_header(method, digest(nonce, user, guess, method, f"sip:100@{at}"))

    def prove(self, guess: str = "wrong", method: str = "REGISTER", user: str = "100") -> bytes:
        """Take a challenge and answer it; give what came back."""
        nonce = nonce_in(self.ask(self.request(method)))
        return self.ask(self.answer_to(nonce, guess, method, user))
