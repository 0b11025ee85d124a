"""The node of a host as the command line meets it: folders, settings, store, board, report."""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from apiban.address import Network, pack, parse_network
from apiban.cli.host import Host
from apiban.cli.main import main
from apiban.firewall.report import FirewallReport
from apiban.firewall.report import report_path as firewall_path
from apiban.firewall.report import write_report as write_firewall
from apiban.gate import Board
from apiban.gate.board import DROPPED, FAULTS, PASSED, WOULD_DROP
from apiban.gate.hits import DROPPED as DROPPED_HITS
from apiban.gate.hits import WOULD_DROP as WOULD_DROP_HITS
from apiban.gate.hits import Details, Hits
from apiban.settings import Settings, load_settings
from apiban.snapshot.origin import Origin
from apiban.snapshot.publish import Publisher
from apiban.store import FEED_SOURCE, FeedState, Store
from apiban.sync.process import Process
from apiban.sync.report import SyncReport, report_path, write_report
from click.testing import CliRunner

from tests.support.clock import ManualClock
from tests.support.exchange import ManualExchange
from tests.support.feeds import ListFeed
from tests.support.log import MemoryLog
from tests.support.reports import firewall_report

KEY = "a-key-that-nobody-may-see"
OWN = "192.0.2.10"
DAY = 86400.0


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on the standard output."""
        return json.loads(self.out)


class NodeOnHost:
    """Everything of one node that is on the disk, with time in the test's hands.

    ``own`` are the host's own addresses. What a test writes through ``store`` is another process's
    doing for the command.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.state, self.runtime = folder / "state", folder / "runtime"
        self.clock = ManualClock()
        self.own: tuple[Network, ...] = (parse_network(OWN),)
        self.feed = ListFeed()  # what a syncing process (see ``syncing``) asks
        self.log = MemoryLog()
        self.board: Board | None = None
        self._publisher: Publisher | None = None
        self._hits: Hits | None = None
        self._monkeypatch = monkeypatch
        for path in (self.state, self.runtime):
            path.mkdir()
        for name in list(os.environ):
            if name.startswith("APIBAN"):
                monkeypatch.delenv(name)
        self.file = folder / "apiban.toml"
        monkeypatch.setenv("APIBAN_SETTINGS", str(self.file))
        monkeypatch.setenv("COLUMNS", "100")
        # By its name apiban.cli.main is the function.
        commands = importlib.import_module("apiban.cli.main")
        monkeypatch.setattr(commands, "Host", functools.partial(Host, clock=self.clock))
        monkeypatch.setattr("apiban.cli.host.own_addresses", lambda: self.own)
        self.write_settings()
        self.store = Store(self.state / "store.db")

    # What the operator has ---------------------------------------------------------------------

    def write_settings(self, text: str = "", *, key: str = KEY, feed: str = "") -> None:
        """Write the settings anew: ``feed`` goes into that section, ``text`` before all."""
        self.file.write_text(
            f'{text}\n[feed]\nkey = "{key}"\n{feed}\n'
            f'[paths]\nstate = "{self.state}"\nruntime = "{self.runtime}"\n',
            encoding="utf-8",
        )
        self.file.chmod(0o640)

    @property
    def settings(self) -> Settings:
        """The settings as they are read now."""
        return load_settings(self.file, {})

    def run(self, *arguments: str, given: str | bytes = "") -> Done:
        """Run ``apiban`` with these arguments; ``given`` is its standard input."""
        self._monkeypatch.setattr(sys, "argv", ["apiban", *arguments])
        with CliRunner().isolation(input=given) as (out, err, _):
            try:
                main()
            except SystemExit as end:
                status = end.code
            for stream in (sys.stdout, sys.stderr):
                if not stream.closed:
                    stream.flush()
            done = Done(int(status or 0), out.getvalue().decode(), err.getvalue().decode())
        assert "Traceback" not in done.err
        assert KEY not in done.out + done.err
        return done

    # What is in the store ------------------------------------------------------------------------

    def feed_lists(self, *texts: str, ban_for: float = 7 * DAY) -> None:
        """Let the feed list these, in a complete pass that ends now."""
        now = self.clock.now()
        old = self.store.feed(FEED_SOURCE, self.settings.feed.identity)
        state = replace(
            old, cursor="900", complete_at=now, pass_number=old.pass_number or 1, pass_ended=now
        )
        networks = [parse_network(text) for text in texts]
        self.store.record_page(
            FEED_SOURCE, networks, listed=now, expires=now + ban_for, state=state
        )

    def save_feed(self, **changes: Any) -> FeedState:
        """Change where the sync of the feed stands."""
        state = replace(self.store.feed(FEED_SOURCE, self.settings.feed.identity), **changes)
        self.store.save_feed(FEED_SOURCE, state)
        return state

    # What runs -----------------------------------------------------------------------------------

    def kamailio_starts(self, workers: int = 4) -> Board:
        """Make the board of a running Kamailio, whose processes are all this one."""
        board = Board.create(self.runtime / "counters", now=self.clock.now())
        for rank in range(workers + 1):
            board.take_slot(rank, os.getpid())
        self.board = board
        self._publisher = Publisher(board, self.log)
        return board

    def publish(self) -> int:
        """Publish the store's list, as the sync process does; give the generation."""
        board, publisher = self.board, self._publisher
        assert board is not None
        assert publisher is not None
        now = self.clock.now()
        override = self.store.mode(now)
        settings = self.settings
        if override is not None:
            settings = replace(settings, mode=override.mode)
        assert publisher.publish(self.store, settings, self.own, now=now)
        return board.generation

    def worker(self, rank: int, *, generation: int | None = None, **counts: int) -> None:
        """Let a worker use a generation (the newest), and have counted (``dropped=7``)."""
        board = self.board
        assert board is not None
        slot = board.slot_at(rank)
        board.use(slot, board.generation if generation is None else generation)
        places = {
            "dropped": DROPPED,
            "would_drop": WOULD_DROP,
            "passed": PASSED,
            "faults": FAULTS,
        }
        for name, count in counts.items():
            board.words[slot + places[name]] = count

    def meets(
        self,
        source: str,
        *,
        dropped: int = 0,
        would_drop: int = 0,
        transport: str = "udp",
        line: str = "OPTIONS sip:100@192.0.2.1 SIP/2.0",
        origin: Origin = Origin.FEED,
        exact: bool = True,
    ) -> None:
        """Let so many packets more come from a source that is listed."""
        if self._hits is None:
            self._hits = Hits.create(self.runtime / "hits", now=self.clock.now())
        now, details = self.clock.now(), Details(transport, 5071, line)
        place = self._hits.place(pack(source), origin, lambda: details, now=now)
        assert place is not None
        for word, number in ((DROPPED_HITS, dropped), (WOULD_DROP_HITS, would_drop)):
            if number:
                assert self._hits.add(place, word, number, now=now)
        if not exact:
            self._hits.estimate(place)

    def sync_reports(self, **changes: Any) -> SyncReport:
        """Write the report of a sync process for which all is well, but for these changes."""
        now = self.clock.now()
        state = self.store.feed(FEED_SOURCE, self.settings.feed.identity)
        values: dict[str, Any] = {
            "pid": os.getpid(),
            "at": now,
            "feed": "ok",
            "error": "",
            "next_request_at": now + 60,
            "budget_left": 4,
            "budget": 5,
            "window": 120.0,
            "entries": self.store.count(FEED_SOURCE),
            "complete_at": state.complete_at,
            "pass_number": state.pass_number,
            "pass_started": state.pass_started,
            "pass_seen": 0,
            "pass_ended": state.pass_ended,
            "held": state.held,
            "held_since": state.held_since,
            "held_back": "",
            "waiting": 0,
            "store_error": "",
            "settings_error": "",
            "position": 0 if self.board is None else self.board.position,
            **changes,
        }
        report = SyncReport(**values)
        assert write_report(report_path(self.runtime), report)
        return report

    def firewall_reports(self, **changes: Any) -> FirewallReport:
        """Write the report of a firewall client that holds the published list, but for these."""
        now = self.clock.now()
        values = {
            "at": now,
            "started": now - 3600,
            "generation": 0 if self.board is None else self.board.generation,
            "position": self.store.position(),
            "checked_at": now,
            "changed_at": now - 60,
            **changes,
        }
        report = firewall_report(**values)
        write_firewall(firewall_path(self.runtime), report)
        return report

    @contextmanager
    def syncing(self) -> Iterator[None]:
        """Let a real sync process run beside the commands, in a thread; its feed is ``feed``.

        It publishes, takes tasks and writes its report; time still stands but for the test.
        """
        board = self.board or self.kamailio_starts()
        end = threading.Event()
        ready = threading.Event()

        def run() -> None:
            process = Process(
                path=self.file,
                environ={},
                board=board,
                clock=self.clock,
                log=self.log,
                make_feed=lambda _: self.feed,
                make_exchange=ManualExchange,
                own=lambda: self.own,
                jitter=lambda: 0.0,
            )
            try:
                while not end.is_set():
                    process.tick()
                    if board.generation and report_path(self.runtime).exists():
                        ready.set()
                    time.sleep(0.005)
            finally:
                process.close()

        thread = threading.Thread(target=run, name="sync")
        thread.start()
        try:
            assert ready.wait(20), "the sync published nothing"
            yield
        finally:
            end.set()
            thread.join()

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()


def networks(texts: Sequence[str]) -> list[Network]:
    """Read addresses and networks."""
    return [parse_network(text) for text in texts]
