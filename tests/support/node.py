"""A real Kamailio with the module, an API and an upstream, each on ports of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from apiban.gate import Board
from apiban.trial.kamailio import Kamailio

from tests.support.api import KEY, Api
from tests.support.ports import free_port
from tests.support.sip import Upstream, ask

HOST = "127.0.5.1"


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 10.0) -> float:
    """Wait until a condition holds; give the seconds it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"within {seconds} s there was not: {what}")
        time.sleep(0.005)
    return time.monotonic() - began


class NodeUnderTest:
    """Kamailio with settings that the test may rewrite at any time."""

    def __init__(self, folder: Path, listed: Iterable[str] = (), **kamailio: Any) -> None:
        self.folder = folder
        self.api = Api(listed)
        self.upstream = Upstream()
        self.settings: dict[str, Any] = {
            "feed.url": self.api.url,
            "feed.key": KEY,
            "feed.interval": 1,
            "feed.requests": 1000,
            "feed.accept_private": True,
            "edge.upstreams": [self.upstream.uri],
            "paths.state": str(folder / "state"),
            "paths.runtime": str(folder / "runtime"),
        }
        self.settings_file = folder / "apiban.toml"
        self.write_settings()
        self.target = (HOST, free_port())
        address = f"{HOST}:{self.target[1]}"
        options: dict[str, Any] = {
            "listen": [f"udp:{address}", f"tcp:{address}"],
            "environ": self.environ(),
            **kamailio,
        }
        self.kamailio = Kamailio(folder / "kamailio", **options)

    def environ(self) -> dict[str, str]:
        """Give the environment without settings from outside."""
        clean = {name: text for name, text in os.environ.items() if not name.startswith("APIBAN")}
        return {**clean, "APIBAN_SETTINGS": str(self.settings_file)}

    def write_settings(self, **changes: Any) -> None:
        """Write the file anew, with changes; names have ``__`` for the dot."""
        self.settings.update({name.replace("__", "."): value for name, value in changes.items()})
        sections: dict[str, list[str]] = {"": []}
        for name, value in self.settings.items():
            section, _, key = name.rpartition(".")
            sections.setdefault(section, []).append(f"{key} = {_toml(value)}")
        text = "\n".join(sections.pop("")) + "\n"
        for section, lines in sections.items():
            text += f"[{section}]\n" + "\n".join(lines) + "\n"
        self.write_raw_settings(text)

    def write_raw_settings(self, text: str) -> None:
        """Put a text in the settings' place, as an editor does: by rename."""
        scratch = self.settings_file.with_suffix(".new")
        scratch.write_text(text, encoding="utf-8")
        scratch.chmod(0o640)
        scratch.replace(self.settings_file)

    def start(self, *, wait: bool = True) -> NodeUnderTest:
        """Start, and wait for the first list if there is to be one."""
        self.kamailio.start()
        if wait:
            try:
                wait_for(lambda: self.events("pass-end"), "a first complete pass")
            except AssertionError as error:
                raise AssertionError(f"{error}: {self.kamailio.log_lines()[-8:]}") from None
        return self

    def restart(self) -> None:
        """End Kamailio and start it again."""
        self.kamailio.stop()
        self.kamailio.start()

    @property
    def board(self) -> Board:
        """Map the counters of the running node."""
        return Board.open(self.folder / "runtime" / "counters")

    def ask(self, source: str, transport: str = "udp", **more: Any) -> bytes:
        """Send one request from a source and give the answer."""
        return ask(source, self.target, transport, **more)

    def is_dropped(self, source: str, transport: str = "udp") -> bool:
        """Tell whether a source gets silence: its own message counted as dropped, no answer."""
        before = self.board.total().dropped
        if self.ask(source, transport, timeout=0.5):
            return False
        # What native code dropped is counted at the next tick of rtimer; a busy machine is late.
        give_up = time.monotonic() + 5
        while self.board.total().dropped == before and time.monotonic() < give_up:
            time.sleep(0.01)
        return self.board.total().dropped > before

    def passes(self, source: str, transport: str = "udp", timeout: float = 5.0) -> bool:
        """Tell whether a source's request comes back answered, within so many seconds."""
        return b" 200 OK" in self.ask(source, transport, timeout=timeout)

    def has_read_all(self) -> bool:
        """Tell whether no datagram waits in its IPv4 sockets, whose space is bounded."""
        port = f":{self.target[1]:04X}"
        table = Path("/proc/thread-self/net/udp").read_text(encoding="ascii")
        rows = [line.split() for line in table.splitlines()]
        return all(row[4].endswith(":00000000") for row in rows if row[1].endswith(port))

    def maps_from_memory(self) -> bool:
        """Tell whether the workers that saw a new list share the publisher's memory of it."""
        users = [slot for slot in self.board.slots() if slot.rank > 0 and slot.counts.dropped]
        maps = [Path(f"/proc/{slot.pid}/maps").read_text(encoding="utf-8") for slot in users]
        return bool(maps) and all("/memfd:apiban-list" in text for text in maps)

    def events(self, name: str) -> list[str]:
        """Give the log lines of an event."""
        return [line for line in self.kamailio.log_lines() if f"event={name} " in line + " "]

    def stop(self) -> None:
        """End everything."""
        self.kamailio.stop()
        self.upstream.stop()
        if not self.api.stopped.is_set():
            self.api.stop()


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return str(value)
