"""The detector's sightings, from its queue to a feed over HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from apiban.clock import SystemClock
from apiban.honeypot.records import Sighting
from apiban.settings import Secret, Settings, load_settings
from apiban.settings.model import PathSettings
from apiban.sync.sightings import QUEUE, Sightings

from tests.support.honeypot import ReportFeed
from tests.support.log import MemoryLog
from tests.support.node import wait_for

SEEN = Sighting(
    source="192.0.2.1",
    transport="udp",
    method="REGISTER",
    tool=None,
    user_agent=None,
    dialled=None,
    users=("100",),
    proof="nonce",
    at=1_800_000_000.0,
)


@pytest.fixture
def feed() -> Iterator[ReportFeed]:
    """Give a feed that takes reports."""
    made = ReportFeed()
    yield made
    made.stop()


def _settings(folder: Path, feed: ReportFeed) -> Settings:
    settings = load_settings(folder / "none.toml", {})
    return replace(
        settings,
        detect=replace(settings.detect, enabled=True),
        report=replace(settings.report, url=feed.url, key=Secret("the-key"), interval=0.1),
        paths=PathSettings(folder, folder),
    )


@contextlib.contextmanager
def _running(settings: Settings, log: MemoryLog) -> Iterator[Sightings]:
    made = Sightings.wanted(settings, clock=SystemClock(), log=log)
    assert made is not None
    try:
        yield made
    finally:
        made.close()
        made._thread.join(10)
        assert not made._thread.is_alive()


def test_sightings_arrive(tmp_path: Path, feed: ReportFeed) -> None:
    """With the key; messages of one source become one."""
    log = MemoryLog()
    with _running(_settings(tmp_path, feed), log) as sightings:
        sightings.add(SEEN)
        sightings.add(replace(SEEN, source="192.0.2.2"))
        wait_for(lambda: len(feed.sightings) == 2, "both")
    assert feed.authorizations == {"Bearer the-key"}
    assert feed.sightings[0]["users"] == ["100"]
    assert log.names() == []


def test_what_waits_arrives_later(tmp_path: Path, feed: ReportFeed) -> None:
    """While the feed is down nobody waits for it, and nothing is lost."""
    settings, log = _settings(tmp_path, feed), MemoryLog()
    feed.stop()
    with _running(settings, log) as sightings:
        sightings.add(SEEN)
        wait_for(lambda: log.names() == ["report-trouble"], "the trouble")
    feed.start()
    with _running(settings, log):
        wait_for(lambda: len(feed.sightings) == 1, "the sighting")


def test_none_where_nothing_is_to_be_reported(tmp_path: Path, feed: ReportFeed) -> None:
    """No feed, or no detector: no queue, and no thread."""
    settings = _settings(tmp_path, feed)
    for other in (
        replace(settings, report=replace(settings.report, url="")),
        replace(settings, detect=replace(settings.detect, enabled=False)),
    ):
        assert Sightings.wanted(other, clock=SystemClock(), log=MemoryLog()) is None
    assert not (tmp_path / QUEUE).exists()


def test_queue_that_cannot_be_opened_is_said(tmp_path: Path, feed: ReportFeed) -> None:
    """The bans go on without it."""
    (tmp_path / QUEUE).mkdir()
    log = MemoryLog()
    assert Sightings.wanted(_settings(tmp_path, feed), clock=SystemClock(), log=log) is None
    assert log.names() == ["queue-failed"]


def test_queue_that_is_full_is_said_once(
    tmp_path: Path, feed: ReportFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in it still arrives."""
    monkeypatch.setattr("apiban.sync.sightings._MOST_ROWS", 1)
    feed.stop()
    log = MemoryLog()
    with _running(_settings(tmp_path, feed), log) as sightings:
        for number in range(3):
            sightings.add(replace(SEEN, source=f"192.0.2.{number}"))
        assert log.names().count("queue-full") == 1
