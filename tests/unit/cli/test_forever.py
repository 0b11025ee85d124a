import fcntl
import os
from collections.abc import Iterator

import pytest
from apiban.cli.forever import Forever
from apiban.cli.host import Host
from apiban.cli.syncer import somebody_syncs
from apiban.snapshot import load_snapshot
from apiban.snapshot.publish import durable_path
from apiban.sync.report import read_report, report_path

from tests.support.api import KEY, Api
from tests.support.node import wait_for
from tests.unit.cli.node import NodeOnHost

LISTED = "198.51.100.7"


@pytest.fixture
def api(node: NodeOnHost) -> Iterator[Api]:
    """Give an API over HTTP that the settings name."""
    made = Api([LISTED])
    node.write_settings(key=KEY, feed=f'url = "{made.url}"\nrequests = 1000\ninterval = 1')
    yield made
    made.stop()


@pytest.fixture
def forever(node: NodeOnHost) -> Iterator[Forever]:
    """Give what the service runs."""
    made = Forever(Host(clock=node.clock), node.log)
    yield made
    made.close()


def _ticks_until_listed(node: NodeOnHost, forever: Forever) -> None:
    def listed() -> bool:
        node.clock.tick(0.2)
        forever.tick()
        path = durable_path(node.state)
        return path.exists() and load_snapshot(path).expires(LISTED) is not None

    wait_for(listed, "the feed's list in the snapshot")


def test_is_the_sync_process(node: NodeOnHost, api: Api, forever: Forever) -> None:
    """It has the lock and reports while it works, and leaves neither."""
    forever.begin()
    _ticks_until_listed(node, forever)
    assert somebody_syncs(node.state)
    node.clock.tick(1)
    forever.tick()
    report = read_report(report_path(node.runtime))
    assert report is not None
    assert (report.feed, report.entries) == ("ok", 1)
    forever.close()
    assert not somebody_syncs(node.state)
    assert not report_path(node.runtime).exists()


def test_gives_way_to_that_of_a_kamailio(node: NodeOnHost, api: Api, forever: Forever) -> None:
    """One that ticks has workers to tell, though it waits for the lock; it is said once."""
    forever.begin()
    _ticks_until_listed(node, forever)
    board = node.kamailio_starts()
    for _ in range(20):
        board.beat(node.clock.uptime())
        node.clock.tick(1)
        forever.tick()
    assert not somebody_syncs(node.state)
    assert not report_path(node.runtime).exists()
    assert len(node.log.fields("sync-busy")) == 1
    node.clock.tick(10)  # it has been silent for long enough
    forever.tick()
    assert somebody_syncs(node.state)


def test_waits_for_the_lock(node: NodeOnHost, api: Api, forever: Forever) -> None:
    """Another process has it: one line, and it goes on when that one ends."""
    with (node.state / "sync.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        forever.begin()
        for _ in range(50):
            node.clock.tick(0.2)
            forever.tick()
        assert api.requests == []
    assert len(node.log.fields("sync-busy")) == 1
    _ticks_until_listed(node, forever)


def test_board_of_before_a_reboot_is_no_kamailio(
    node: NodeOnHost, api: Api, forever: Forever
) -> None:
    """Its last beat lies in the future of the uptime that is now."""
    node.kamailio_starts().beat(node.clock.uptime())
    node.clock.reboot()
    forever.begin()
    _ticks_until_listed(node, forever)


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [("", "", "feed.key"), ("k", 'mode = "nonsense"', "mode"), ("k", "nonsense", "apiban.toml")],
)
def test_does_not_begin_with_mistakes(node: NodeOnHost, key: str, text: str, said: str) -> None:
    """One line and status 1, so that systemd tells of it and starts it again."""
    node.write_settings(text, key=key)
    done = node.run("sync", "--forever")
    assert done.status == 1
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not (node.state / "sync.lock").exists()


def test_does_not_begin_without_a_runtime_folder(node: NodeOnHost) -> None:
    """Who looks for its report would find none."""
    node.write_settings()
    node.file.write_text(node.file.read_text().replace(str(node.runtime), "/proc/apiban"))
    done = node.run("sync", "--forever")
    assert done.status == 1
    assert "/proc/apiban: not a folder that this process may write" in done.err


def test_cannot_begin_later(
    node: NodeOnHost, api: Api, forever: Forever, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own line, once, while it lasts; then it goes on."""
    board = node.kamailio_starts()
    board.beat(node.clock.uptime())
    forever.begin()
    node.clock.tick(20)  # that Kamailio ended
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda *_: False)
        for _ in range(20):
            node.clock.tick(0.5)
            forever.tick()
    (told,) = node.log.fields("sync-idle")
    assert str(told["reason"]).startswith(f"{node.runtime}: not a folder that this process may")
    assert node.log.fields("fault") == []
    _ticks_until_listed(node, forever)


@pytest.mark.parametrize("other", ["--full", "--now", "--json", "--no-wait"])
def test_goes_alone(node: NodeOnHost, other: str) -> None:
    """It is another thing than to ask once."""
    done = node.run("sync", "--forever", other)
    assert done.status == 2
    assert "--forever" in done.err
