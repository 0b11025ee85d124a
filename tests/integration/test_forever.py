"""``apiban sync --forever`` as a process of its own, alone and beside a Kamailio."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from apiban.cli.syncer import somebody_syncs
from apiban.settings import Mode
from apiban.snapshot import load_snapshot
from apiban.snapshot.publish import durable_path

from tests.support.node import NodeUnderTest, wait_for
from tests.support.service import Service

pytestmark = [pytest.mark.kamailio, pytest.mark.timeout(90)]

LISTED = "127.0.1.5"


def _forever(node: NodeUnderTest) -> Service:
    return Service(node.folder / "forever.log", "sync", "--forever", environ=node.environ())


def _expires(state: Path, source: str) -> int | None:
    path = durable_path(state)
    return load_snapshot(path).expires(source) if path.exists() else None


def test_alone(make_node: Callable[..., NodeUnderTest]) -> None:
    """It loads, takes what others write and new settings, and ends while a slow feed is asked."""
    node = make_node((LISTED,))
    state = node.folder / "state"
    state.mkdir()
    with _forever(node) as service:
        wait_for(lambda: _expires(state, LISTED), "the feed's list")
        node.api.feed.add("127.0.1.6")
        wait_for(lambda: _expires(state, "127.0.1.6"), "what the feed lists next")
        node.write_settings(mode="shadow")
        wait_for(lambda: load_snapshot(durable_path(state)).mode is Mode.SHADOW, "the new mode")
        node.write_settings(mode="nonsense")
        wait_for(lambda: service.events("settings-refused"), "a line about the mistake")
        assert service.runs
        asked = len(node.api.requests)
        node.api.delay = 30
        wait_for(lambda: len(node.api.requests) > asked, "a question that takes long")
        assert service.stop() < 1
    assert not somebody_syncs(state)
    assert not (node.folder / "runtime" / "sync.json").exists()
    assert [path for path in state.iterdir() if path.name.endswith(".new")] == []
    assert service.lines()[0].startswith("apiban: event=sync-start pid=")


def test_beside_a_kamailio(make_node: Callable[..., NodeUnderTest]) -> None:
    """It gives the lock to a Kamailio that starts, whose workers are told; after it, it goes on."""
    node = make_node((LISTED,))
    state = node.folder / "state"
    state.mkdir()
    with _forever(node) as service:
        wait_for(lambda: _expires(state, LISTED), "the feed's list")
        node.start(wait=False)
        wait_for(lambda: node.is_dropped(LISTED), "a drop by Kamailio")
        node.api.feed.add("127.0.1.6")
        wait_for(lambda: node.is_dropped("127.0.1.6"), "what the feed lists next")
        node.kamailio.stop()
        node.api.feed.add("127.0.1.7")
        wait_for(lambda: _expires(state, "127.0.1.7"), "what the feed lists then", 30)
        assert service.runs
        assert len(service.events("sync-busy")) == 1
        assert service.stop() < 1
