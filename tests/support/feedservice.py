"""The feed service as its users have it: a process with a settings file, asked over HTTP.

Nothing here knows the service's code: only its command line, its settings and its API.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.node import wait_for
from tests.support.ports import free_port

HOST = "127.0.0.1"
PROGRAM = str(Path(sys.executable).parent / "apiban")
QUEUE = "0123456789abcdef" * 2
END = (400, {"ipaddress": ["no new bans"], "ID": "none"})
NOT_LISTED = (400, {"ipaddress": ["not blocked"], "ID": "none"})
REFUSED = (403, {"ipaddress": "none", "ID": "unauthorized"})
LIMITED = (429, {"ipaddress": "rate limit exceeded", "ID": "unauthorized"})
MALFORMED = (400, {})


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """Give the JSON that the body is."""
        assert self.headers["content-type"].startswith("application/json"), self
        return json.loads(self.body)

    @property
    def shown(self) -> tuple[int, Any]:
        """Give the status and the document."""
        return self.status, self.document


def host(number: int) -> str:
    """Give the public IPv4 address of a number below 2**20; nothing is ever sent to it."""
    return f"45.{80 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def hosts(count: int, first: int = 0) -> list[str]:
    """Give so many of them."""
    return [host(number) for number in range(first, first + count)]


def sighting(source: str, sequence: int, **changes: Any) -> dict[str, Any]:
    """Give a proven sighting of just now, as a honeypot reports it."""
    return {
        "sequence": sequence,
        "at": time.time(),
        "source": source,
        "transport": "udp",
        "method": "REGISTER",
        "proof": "nonce",
        "count": 1,
        "tool": "sipvicious",
        "user_agent": "friendly-scanner",
        "dialled": None,
        "users": ["100"],
        **changes,
    }


class FeedService:
    """A feed in a folder of its own, with a port and a database of its own.

    ``database`` is a URL; without one it is SQLite in the folder. Settings have ``__`` for the
    dot: ``curation__active_for=3``. All output of the process goes to one file: ``output``.
    """

    def __init__(self, folder: Path, database: str | None = None, **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.tls: ssl.SSLContext | None = None
        self.keys: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.settings_file = folder / "feed.toml"
        self._output = folder / "output"
        self._output.touch()
        self.settings: dict[str, Any] = {
            "database.url": database or f"sqlite:///{folder}/feed.db",
            "serve.port": self.port,
            "mirror.state": str(folder / "mirror"),
        }
        self.write_settings(**settings)

    @property
    def url(self) -> str:
        """Give the API's base URL, as clients take it."""
        return f"{'https' if self.tls else 'http'}://{HOST}:{self.port}/api/"

    @property
    def pid(self) -> int:
        """Give the process's ID."""
        assert self.process is not None
        return self.process.pid

    def write_settings(self, **changes: Any) -> None:
        """Write the file anew, with changes; a started service keeps what it has."""
        self.settings.update({name.replace("__", "."): value for name, value in changes.items()})
        # A dotted name with a JSON value is TOML.
        lines = [f"{name} = {json.dumps(value)}" for name, value in self.settings.items()]
        self.settings_file.touch(mode=0o600)
        self.settings_file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    # the command line

    def run(
        self, *arguments: str, stdin: str | bytes = "", timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run ``apiban feed`` to its end, whatever its status."""
        ended = subprocess.run(
            self.command(*arguments),
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            env=environ(),
            check=False,
            timeout=timeout,
        )
        out, err = (text.decode("utf-8", "replace") for text in (ended.stdout, ended.stderr))
        return subprocess.CompletedProcess(ended.args, ended.returncode, out, err)

    def cli(self, *arguments: str, stdin: str | bytes = "", timeout: float = 60) -> str:
        """Run ``apiban feed``, which must do it, and give its standard output."""
        ended = self.run(*arguments, stdin=stdin, timeout=timeout)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def command(self, *arguments: str) -> list[str]:
        """Give the command line of a subcommand."""
        return [PROGRAM, "feed", "--settings", str(self.settings_file), *arguments]

    def key(self, name: str, *options: str) -> str:
        """Make a key without a quota, unless an option gives one."""
        quota = () if "--requests" in options or "default" in options else ("--requests", "0")
        given = tuple(option for option in options if option != "default")
        self.keys[name] = self.cli("key", "create", name, *quota, *given).strip()
        return self.keys[name]

    # the process

    def start(self, *options: str, wait: bool = True) -> FeedService:
        """Start ``serve``, and wait until it is ready."""
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                self.command("serve", "--log", "info", *options),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environ(),
            )
        if wait:
            wait_for(self.is_ready, f"a ready service: {self.output()}", 20)
        return self

    def is_ready(self) -> bool:
        """Tell whether ``/ready`` says so; a process that ended never will."""
        assert self.process is not None
        assert self.process.poll() is None, self.output()
        try:
            return self.ask("GET", "/ready").status == 200
        except OSError:
            return False

    def stop(self, seconds: float = 15) -> None:
        """End it by SIGTERM; it must end by itself within the time, and well."""
        if self.process is None:
            return
        process, self.process = self.process, None
        process.terminate()
        try:
            assert process.wait(seconds) in {0, -signal.SIGTERM}, self.output()
        finally:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End it by SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def output(self) -> str:
        """Give all that the process has printed so far."""
        return self._output.read_text(encoding="utf-8", errors="backslashreplace")

    # the API

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 20,
    ) -> Answer:
        """Send one request on a connection of its own; a redirect is an answer like another."""
        connection = (
            http.client.HTTPSConnection(HOST, self.port, timeout=timeout, context=self.tls)
            if self.tls
            else http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        )
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            lowered = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, lowered, response.read())
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        """Ask in v1: ``KEY/banned`` and the like."""
        return self.ask("GET", f"/api/{path}")

    def post(self, verb: str, key: str | None, body: object) -> Answer:
        """Ask in v2; a body that is not bytes is sent as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        bearer = {} if key is None else {"Authorization": f"Bearer {key}"}
        return self.ask("POST", f"/api/{verb}", raw, {"Content-Type": "application/json", **bearer})

    def banned(self, version: int, key: str, cursor: str = "100") -> Answer:
        """Ask for a page in either version."""
        if version == 1:
            return self.get(f"{key}/banned/{cursor}")
        return self.post("get", key, {"set": "sip", "id": cursor})

    def check(self, version: int, key: str, address: str) -> Answer:
        """Ask for an address in either version."""
        if version == 1:
            return self.get(f"{key}/check/{address}")
        return self.post("check", key, {"set": "sip", "ipaddress": address})

    def pages(
        self, key: str, cursor: str = "100", version: int = 1
    ) -> Iterator[tuple[int, list[str]]]:
        """Page to the end of the list, as a client does; each page is held against the contract."""
        while (answer := self.banned(version, key, cursor)).shown != END:
            assert answer.status == 200, answer
            document = answer.document
            assert set(document) == {"ipaddress", "ID"}
            assert 1 <= len(document["ipaddress"]) <= 250
            assert document["ID"].isdecimal()
            assert int(document["ID"]) > int(cursor)
            cursor = document["ID"]
            yield int(cursor), document["ipaddress"]

    def listed(self, key: str, cursor: str = "100", version: int = 1) -> list[str]:
        """Give all addresses after an ID, in the order of the pages."""
        return [one for _, page in self.pages(key, cursor, version) for one in page]

    def report(self, key: str, sightings: list[Any], queue: str = QUEUE, **more: Any) -> Answer:
        """Report as a honeypot does."""
        return self.post("report", key, {"queue": queue, "sightings": sightings, **more})

    def exchange(self, data: bytes, seconds: float = 20, *, close: bool = False) -> bytes:
        """Send raw bytes and give all that comes back until the service closes, or the time ends.

        ``close`` says that no more will be sent.
        """
        ends = time.monotonic() + seconds
        got = b""
        with socket.create_connection((HOST, self.port), timeout=seconds) as connection:
            try:
                connection.sendall(data)
                if close:
                    connection.shutdown(socket.SHUT_WR)
                while (left := ends - time.monotonic()) > 0:
                    connection.settimeout(left)
                    chunk = connection.recv(65536)
                    if not chunk:
                        break
                    got += chunk
            except OSError:  # it may close at once, with much of ours unread
                pass
        return got


def environ() -> dict[str, str]:
    """Give this environment without settings and proxies from outside."""
    return {
        name: text
        for name, text in os.environ.items()
        if not name.startswith("APIBAN") and not name.lower().endswith("_proxy")
    }
