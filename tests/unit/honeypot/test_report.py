"""Reports go out until the feed has settled them, and nothing is lost on the way."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apiban.errors import FeedOutage
from apiban.feed.client import HttpRequest, HttpResponse
from apiban.gate import Board
from apiban.honeypot.counts import NOT_KEPT, last_report
from apiban.honeypot.queue import Queue
from apiban.honeypot.report import Reporter
from apiban.settings import Secret
from apiban.settings.model import ReportSettings

from tests.support.clock import ManualClock
from tests.support.log import MemoryLog
from tests.unit.honeypot.parts import sighting, unproven

Answer = Callable[[dict[str, Any]], HttpResponse]


def settled(_body: dict[str, Any]) -> HttpResponse:
    """Answer as a feed that took it all."""
    return HttpResponse(200, b'{"accepted": 1, "repeated": 0, "refused": []}')


def status(number: int, retry_after: str | None = None) -> Answer:
    """Answer with a status."""
    return lambda _body: HttpResponse(number, b"{}", retry_after)


class World:
    """A reporter with a queue, a clock, and a feed that the test answers for."""

    def __init__(self, folder: Path, batch: int = 10) -> None:
        self.queue = Queue(folder / "q.db")
        self.board = Board.unnamed(now=0)
        self.board.take_slot(1, 77)
        self.clock = ManualClock()
        self.log = MemoryLog()
        self.bodies: list[dict[str, Any]] = []
        self.requests: list[HttpRequest] = []
        self.answer: Answer = settled
        self.reporter = self.new_reporter(batch)

    def new_reporter(self, batch: int = 10) -> Reporter:
        """Start anew, as after a crash."""
        return Reporter(
            settings=ReportSettings(
                url="https://f/api/",
                key=Secret("the-key"),
                key_file=None,
                interval=10.0,
                batch=batch,
                timeout=30.0,
                allow_http=False,
                ca_file=None,
            ),
            queue=self.queue,
            board=self.board,
            clock=self.clock,
            log=self.log,
            transport=self.send,
            jitter=lambda: 0.0,
        )

    def send(self, request: HttpRequest) -> HttpResponse:
        """Take a request."""
        self.requests.append(request)
        body = json.loads(json.dumps(request.json))
        self.bodies.append(body)
        return self.answer(body)

    def add(self, number: int = 1) -> None:
        """Queue sightings of so many sources."""
        for n in range(number):
            self.queue.add(sighting(f"10.0.{n >> 8}.{n & 255}"), max_rows=10**6)

    def tick(self, seconds: float = 0.0) -> int:
        """Let time pass, and tick; give how many requests that made."""
        self.clock.tick(seconds)
        before = len(self.requests)
        self.reporter.tick()
        return len(self.requests) - before


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Give a world."""
    made = World(tmp_path)
    yield made
    made.queue.close()


def test_report_is_what_the_feed_takes(world: World) -> None:
    """Its address, its key, and each field."""
    world.queue.add(sighting(dialled="900"), max_rows=9)
    world.queue.note(unproven("10.9.9.9", tool="nmap"), keep=9)
    assert world.tick() == 1
    (request,), (body,) = world.requests, world.bodies
    assert (request.method, request.url) == ("POST", "https://f/api/report")
    assert request.headers == {"Authorization": "Bearer the-key"}
    assert "the-key" not in repr(request)
    assert body == {
        "queue": world.queue.identity,
        "sightings": [
            {
                "sequence": 1,
                "at": 1_800_000_000.0,
                "source": "192.0.2.1",
                "transport": "udp",
                "method": "REGISTER",
                "tool": "sipvicious",
                "user_agent": "friendly-scanner",
                "dialled": "900",
                "users": ["100"],
                "count": 1,
                "proof": "nonce",
            }
        ],
        "unproven": [
            {
                "source": "10.9.9.9",
                "transport": "udp",
                "method": "OPTIONS",
                "tool": "nmap",
                "user_agent": None,
                "first": 1_800_000_000.0,
                "last": 1_800_000_000.0,
                "count": 1,
            }
        ],
        "unproven_not_kept": 0,
    }
    assert world.queue.rows() == 0
    assert world.queue.unproven(9) == []


def test_nothing_to_say_is_not_said(world: World) -> None:
    """No request goes out."""
    assert world.tick() == 0
    assert world.tick(100) == 0


def test_batches_follow_at_once_while_they_are_full(world: World) -> None:
    """Then one an interval."""
    world.add(25)
    assert [world.tick() for _ in range(4)] == [1, 1, 1, 0]
    assert [len(body["sightings"]) for body in world.bodies] == [10, 10, 5]
    world.add(1)
    assert world.tick(9) == 0
    assert world.tick(1) == 1


def test_not_kept_is_told_once(world: World) -> None:
    """As the difference to the last report that was settled."""
    world.board.words[Board.slot_at(1) + NOT_KEPT] += 7
    world.answer = status(503)
    world.tick()
    world.answer = settled
    world.tick(2)
    world.board.words[Board.slot_at(1) + NOT_KEPT] += 2
    world.reporter = world.new_reporter()
    world.tick(10)
    assert [body["unproven_not_kept"] for body in world.bodies] == [7, 7, 2]


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (status(503), "outage"),
        (status(400), "invalid"),
        (status(404), "invalid"),
        (status(302), "invalid"),
        (lambda _: HttpResponse(200, b"<html>hello</html>"), "invalid"),
        (lambda _: HttpResponse(200, b'{"ok": true}'), "invalid"),
        (lambda _: HttpResponse(200, b"[" * 100_000), "invalid"),
        (status(429, "30"), "rate-limited"),
        (status(413), "invalid"),
    ],
)
def test_batch_stays_until_it_is_settled(world: World, answer: Answer, state: str) -> None:
    """It goes out again, the same, and the trouble is said once, and its end."""
    world.add(1)
    world.answer = answer
    for _ in range(8):
        world.tick(400)
    world.add(2)  # one of them is of the source whose row is handed out
    world.answer = settled
    assert world.tick(400) == 1
    sent = [body["sightings"] for body in world.bodies]
    assert all(one == sent[0] for one in sent)
    assert [said["state"] for said in world.log.fields("report-trouble")] == [state]
    assert world.log.names()[-1] == "report"
    world.tick(10)
    assert [one["sequence"] for one in world.bodies[-1]["sightings"]] == [2, 3]


def test_pauses_grow(world: World) -> None:
    """From a second to five minutes."""
    world.add(1)

    def no_answer(_body: dict[str, Any]) -> HttpResponse:
        raise FeedOutage("f: no connection")

    world.answer = no_answer
    world.tick()
    waited = []
    for _ in range(11):
        seconds = 0
        while not world.tick(1):
            seconds += 1
        waited.append(seconds + 1)
    assert waited == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_retry_after_is_honoured(world: World) -> None:
    """The feed says when."""
    world.add(1)
    world.answer = status(429, "77")
    world.tick()
    assert world.tick(76) == 0
    assert world.tick(1) == 1


def test_refused_key_is_said_loudly(world: World) -> None:
    """And tried again in five minutes; the key is not in the line."""
    world.add(1)
    world.answer = status(403)
    world.tick()
    assert world.tick(299) == 0
    assert world.tick(1) == 1
    (said,) = world.log.fields("report-denied")
    assert (said["state"], said["queued"]) == ("unauthorized", 1)
    assert "the-key" not in str(said)


def test_too_large_a_batch_is_halved(world: World) -> None:
    """Until it fits; all of it arrives, in order."""
    world.add(10)

    def small(body: dict[str, Any]) -> HttpResponse:
        return status(413)(body) if len(body["sightings"]) > 3 else settled(body)

    world.answer = small
    for _ in range(12):
        world.tick()
        world.tick(10)
    arrived = [
        one["sequence"]
        for body in world.bodies
        if len(body["sightings"]) <= 3
        for one in body["sightings"]
    ]
    assert arrived == list(range(1, 11))
    assert world.queue.rows() == 0


def test_body_is_bounded_before_it_is_sent(tmp_path: Path) -> None:
    """However much the texts of packets grow when they are escaped."""
    world = World(tmp_path, batch=1000)
    for n in range(500):
        one = sighting(
            f"10.0.{n >> 8}.{n & 255}",
            user_agent="\U0001f4de" * 200,
            users=tuple(chr(0x1F000 + user) * 64 for user in range(20)),
        )
        world.queue.add(one, max_rows=1000)
    while world.queue.rows():
        world.tick(10)
    assert max(len(json.dumps(body)) for body in world.bodies) <= 1 << 20
    sequences = [one["sequence"] for body in world.bodies for one in body["sightings"]]
    assert sequences == list(range(1, 501))
    world.queue.close()


def test_refused_sightings_are_said_and_gone(world: World) -> None:
    """For good: the feed will not have them another time."""
    world.add(1)
    world.answer = lambda _: HttpResponse(
        200, b'{"accepted": 0, "repeated": 0, "refused": [{"sequence": 1, "reason": "private"}]}'
    )
    world.tick()
    assert world.log.fields("report-refused") == [{"count": 1, "first": "private"}]
    assert world.queue.rows() == 0


class Feed:
    """Takes what is new by the sequences of each queue, as the feed does."""

    def __init__(self) -> None:
        self.highest: dict[str, int] = {}
        self.taken: list[str] = []
        self.lose_answers = 0

    def __call__(self, body: dict[str, Any]) -> HttpResponse:
        """Settle a report; now and then the answer is lost."""
        highest = self.highest.get(body["queue"], 0)
        new = [one for one in body["sightings"] if one["sequence"] > highest]
        self.taken += [one["source"] for one in new]
        self.highest[body["queue"]] = max([highest, *(one["sequence"] for one in new)])
        if self.lose_answers:
            self.lose_answers -= 1
            raise FeedOutage("the answer was lost")
        answer = {
            "accepted": len(new),
            "repeated": len(body["sightings"]) - len(new),
            "refused": [],
        }
        return HttpResponse(200, json.dumps(answer).encode())


def set_back(world: World, folder: Path, before: int) -> None:
    """Let sightings be reported, and then bring back the file of before."""
    copy = folder / "copy.db"
    with sqlite3.connect(folder / "q.db") as db:
        db.execute("VACUUM INTO ?", (str(copy),))
    db.close()
    for n in range(before):
        world.queue.add(sighting(f"10.1.0.{n}"), max_rows=10**6)
    world.tick(10)
    world.queue.close()
    for name in ("q.db-wal", "q.db-shm"):
        (folder / name).unlink(missing_ok=True)
    copy.replace(folder / "q.db")
    world.queue = Queue(folder / "q.db")
    world.reporter = world.new_reporter()


@pytest.mark.parametrize(("before", "after"), [(5, 3), (5, 5), (3, 8), (1, 25)])
def test_queue_that_was_set_back_loses_nothing(
    tmp_path: Path, world: World, before: int, after: int
) -> None:
    """A restored copy gives numbers anew that the feed knows: it takes another identity."""
    feed = Feed()
    world.answer = feed
    set_back(world, tmp_path, before)
    identity = world.queue.identity
    later = [f"10.2.0.{n}" for n in range(after)]
    for source in later:
        world.queue.add(sighting(source), max_rows=10**6)
    for _ in range(5):
        world.tick(10)
    assert sorted(feed.taken[before:]) == sorted(later)
    assert world.queue.rows() == 0
    assert world.queue.identity != identity
    assert [one["state"] for one in world.log.fields("report-trouble")] == ["restored"]


def test_lost_answer_is_no_sign_of_a_restored_copy(world: World) -> None:
    """The feed then knows the batch because it was sent, by this process or by the last one."""
    feed = Feed()
    world.answer = feed
    identity = world.queue.identity
    for again in (False, True):
        feed.lose_answers = 1
        world.queue.add(sighting(f"10.3.0.{int(again)}"), max_rows=9)
        world.tick(10)
        if again:
            world.reporter = world.new_reporter()
        world.tick(10)
    assert feed.taken == ["10.3.0.0", "10.3.0.1"]
    assert world.queue.identity == identity
    assert world.queue.rows() == 0


def test_last_report_is_noted(world: World) -> None:
    """The time of the last one that the feed settled; one that failed is none."""
    world.add()
    world.answer = status(500)
    world.tick()
    assert last_report(world.board) == 0
    world.answer = settled
    world.tick(400)
    assert last_report(world.board) == 1_800_000_400
