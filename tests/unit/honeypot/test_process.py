"""The reporter's process keeps settings and queue together, and survives their troubles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from apiban.feed.client import HttpRequest, HttpResponse
from apiban.gate import Board
from apiban.honeypot.process import QUEUE, ReportProcess
from apiban.honeypot.queue import Queue

from tests.support.clock import ManualClock
from tests.support.log import MemoryLog
from tests.unit.honeypot.parts import sighting


class World:
    """A process with a settings file, and a feed that takes everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "honeypot.toml"
        self.clock = ManualClock()
        self.log = MemoryLog()
        self.sent: list[HttpRequest] = []
        self.write('report.url = "https://f/"\nreport.key = "one"')
        self.process = ReportProcess(
            path=self.file,
            environ={"APIBAN_HONEYPOT_SETTINGS": str(self.file)},
            board=Board.unnamed(now=0),
            clock=self.clock,
            log=self.log,
            make_transport=lambda _settings: self.send,
        )

    def write(self, text: str) -> None:
        """Put other settings in place."""
        scratch = self.file.with_suffix(".new")
        scratch.write_text(f'{text}\npaths.state = "{self.folder}"\n')
        scratch.chmod(0o600)
        scratch.replace(self.file)

    def send(self, request: HttpRequest) -> HttpResponse:
        """Take a request."""
        self.sent.append(request)
        return HttpResponse(200, b'{"accepted": 1, "repeated": 0, "refused": []}')

    def add(self) -> None:
        """Queue a sighting, as a worker does."""
        with Queue(self.folder / QUEUE) as queue:
            queue.add(sighting(), max_rows=9)

    def tick(self, seconds: float = 20.0) -> list[str]:
        """Tick after a time; give the keys of the requests so far."""
        self.clock.tick(seconds)
        self.process.tick()
        return [request.headers["Authorization"] for request in self.sent]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Give a world."""
    made = World(tmp_path)
    yield made
    made.process.close()


def test_reports_what_workers_queued(world: World) -> None:
    """Through its own connection."""
    world.add()
    assert world.tick() == ["Bearer one"]
    assert world.tick() == ["Bearer one"]


def test_new_key_is_used_at_the_next_report(world: World) -> None:
    """Without a restart."""
    world.tick()
    world.write('report.url = "https://f/"\nreport.key = "two"')
    world.add()
    assert world.tick() == ["Bearer two"]


def test_bad_settings_leave_the_last_good_in_force(world: World) -> None:
    """And are said once; so is that they are good again."""
    world.tick()
    world.write("report.interval = -1")
    world.add()
    assert world.tick() == ["Bearer one"]
    world.tick()
    assert world.log.names() == ["settings-refused"]
    world.write('report.url = "https://f/"\nreport.key = "two"')
    world.tick()
    assert world.log.names() == ["settings-refused", "honeypot"]


def test_without_a_feed_nothing_is_sent(world: World) -> None:
    """It is said, and the queue stays."""
    world.write("")
    world.add()
    assert world.tick() == []
    assert world.log.names() == ["report-idle"]
    with Queue(world.folder / QUEUE) as queue:
        assert queue.rows() == 1


def test_queue_that_cannot_be_read_is_tried_again(world: World) -> None:
    """Said once while it lasts."""
    (world.folder / QUEUE).mkdir()
    for _ in range(3):
        assert world.tick() == []
    (world.folder / QUEUE).rmdir()
    world.add()
    assert world.tick() == ["Bearer one"]
    assert world.log.names() == ["queue-failed", "honeypot"]
