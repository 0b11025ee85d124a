"""A guard, and what it needs, with everything around it under the test's control."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from apiban.errors import SnapshotError
from apiban.gate import Board, Front, Gate, Hits, Tally
from apiban.kemi import Guard
from apiban.settings import Mode
from apiban.settings.model import LogSettings
from apiban.snapshot import Origin, Snapshot
from kamailio_kemi_stubs.fake import FakeKsr

from tests.support.clock import ManualClock
from tests.support.log import MemoryLog
from tests.unit.snapshot.parts import only

LISTED = "192.0.2.1"
UNLISTED = "192.0.2.2"
SIP = b"OPTIONS sip:100@192.0.2.9 SIP/2.0\r\nVia: x\r\n\r\n"


def packet(source: str | None, data: bytes | None = SIP, **more: Any) -> dict[str, Any]:
    """Give what Kamailio knows of a message in the pre-parse hook, and at request_route's top."""
    return {
        "$rcv(srcip)": source,
        "$rcv(srcport)": 5062,
        "$rcv(proto)": 1,
        "$rcv(buf)": data,
        **more,
    }


class Worker:
    """One SIP worker's guard over a list that the test publishes."""

    def __init__(self, *listed: str, mode: Mode = Mode.ENFORCE, first_drops: int = 10) -> None:
        self.ksr = FakeKsr("5.6")
        self.clock = ManualClock()
        self.log = MemoryLog()
        self.board = Board.unnamed(now=0)
        self.hits = Hits.unnamed(now=0)
        self.files: dict[int, Snapshot] = {}
        self.loads: list[int] = []
        self.settings_read = 0
        self.read_settings: Callable[[], None] = lambda: None
        self.gate = Gate(now=self.clock.now, timer=self.clock.uptime)
        self.publish(*listed, mode=mode)
        self.gate.use(self.files[1])
        self.guard = Guard(
            self.ksr,
            board=self.board,
            gate=self.gate,
            front=Front(self.ksr, self.board, uptime=self.clock.uptime),
            tally=Tally(self.hits, now=self.clock.now),
            clock=self.clock,
            log=self.log,
            log_settings=LogSettings(interval=60.0, first_drops=first_drops),
            load=self._load,
            settings_changed=self._settings_changed,
        )
        self.guard.sign_in(1)

    def publish(
        self,
        *listed: str,
        mode: Mode = Mode.ENFORCE,
        whole: bool = True,
        origin: Origin = Origin.FEED,
    ) -> None:
        """Announce a new list; with ``whole`` unset its file cannot be mapped."""
        generation = self.board.generation + 1
        content = only(*listed, generation=generation, mode=mode, origin=origin)
        if whole:
            self.files[generation] = Snapshot(memoryview(content))
        self.board.announce(generation)

    def _load(self, generation: int) -> Snapshot:
        self.loads.append(generation)
        try:
            return self.files[generation]
        except KeyError:
            raise SnapshotError(f"snapshot-{generation}: missing") from None

    def _settings_changed(self) -> None:
        self.settings_read += 1
        self.read_settings()

    def drops(self, source: str | None, data: bytes | None = SIP, **more: Any) -> bool:
        """Let a message come; tell whether Kamailio was told to drop it."""
        self.ksr.variables = packet(source, data, **more)
        before = self.ksr.dropped
        assert self.guard.pre_parse(object()) == 1
        return self.ksr.dropped > before

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Give what this worker dropped, would have dropped, passed, and its faults."""
        (slot,) = [slot for slot in self.board.slots() if slot.rank == 1]
        counts = slot.counts
        return counts.dropped, counts.would_drop, counts.passed, counts.faults

    @property
    def generation(self) -> int:
        """Give the generation that this worker says it uses."""
        (slot,) = [slot for slot in self.board.slots() if slot.rank == 1]
        return slot.generation


def eventually(true: Callable[[], bool], drive: Callable[[], object], within: float = 20.0) -> None:
    """Drive until something is true; fail when it takes too long."""
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        drive()
        time.sleep(0.002)
