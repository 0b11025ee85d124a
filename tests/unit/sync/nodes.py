"""A sync process over a settings file and two folders, without a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apiban.address import Network
from apiban.gate import Board
from apiban.settings.model import FeedSettings
from apiban.snapshot import Snapshot, map_snapshot
from apiban.snapshot.publish import runtime_path
from apiban.sync.process import Process

from tests.support.clock import ManualClock
from tests.support.exchange import ManualExchange
from tests.support.feeds import ListFeed
from tests.support.log import MemoryLog


class SyncNode:
    """A settings file, two folders, and a sync process over them without a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.runtime = folder / "runtime"
        self.state.mkdir()
        self.runtime.mkdir()
        self.file = folder / "apiban.toml"
        self.clock = ManualClock()
        self.log = MemoryLog()
        self.board = Board.unnamed(now=0)
        self.feed = ListFeed(["192.0.2.1", "192.0.2.2", "192.0.2.3"])
        self.feeds: list[FeedSettings] = []  # the settings of each client that was made
        self.own: tuple[Network, ...] = ()
        self.process = self.make()

    def make(self) -> Process:
        """Make a process: one more, or the next one."""
        return Process(
            path=self.file,
            environ={},
            board=self.board,
            clock=self.clock,
            log=self.log,
            make_feed=self._make_feed,
            make_exchange=ManualExchange,
            own=lambda: self.own,
            jitter=lambda: 0.0,
        )

    def _make_feed(self, settings: FeedSettings) -> ListFeed:
        self.feeds.append(settings)
        return self.feed

    def write(self, **values: Any) -> None:
        """Write the settings file anew, by rename; names have ``__`` for the dot."""
        values = {
            "feed__key": "sesame",
            "paths__state": str(self.state),
            "paths__runtime": str(self.runtime),
            **values,
        }
        lines = [f"{name.replace('__', '.')} = {_toml(value)}\n" for name, value in values.items()]
        self.write_raw("".join(lines))

    def write_raw(self, text: str) -> None:
        """Write this text in the place of the settings file."""
        scratch = self.folder / "new.toml"
        scratch.write_text(text, encoding="utf-8")
        scratch.chmod(0o640)
        scratch.replace(self.file)

    def run(self, seconds: float) -> None:
        """Tick once a second for a while."""
        for _ in range(int(seconds)):
            self.process.tick()
            self.clock.tick(1)

    def snapshot(self) -> Snapshot:
        """Give what the workers use."""
        return map_snapshot(runtime_path(self.runtime, self.board.generation))

    def banned(self) -> set[str]:
        """Give which of the feed's first addresses the workers would drop."""
        snapshot = self.snapshot()
        return {last for last in "123" if snapshot.expires(f"192.0.2.{last}")}


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
