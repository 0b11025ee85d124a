"""The whole circle: a scanner, the honeypot, the feed, and a node that drops it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apiban.feed.server.database import Database
from apiban.feed.server.database.schema import evidence, unproven
from apiban.settings import Secret
from sqlalchemy import func, select

from tests.integration.test_honeypot_reports import load
from tests.integration.test_honeypot_tools import sipvicious
from tests.support.feedservice import FeedService
from tests.support.honeypot import Honeypot, running
from tests.support.node import NodeUnderTest, wait_for
from tests.support.postgres import Postgres

pytestmark = pytest.mark.kamailio

# SIPVicious chooses no source address, and 127.0.0.1 is the node's own, which nothing bans: a route
# tells the kernel which one to send from.
POT = "127.0.7.1"
SCANNER = "127.0.7.9"
LAB = {"curation__accept_private": True, "serve__allow_http": True}


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[FeedService]:
    """Give a started feed with a key of each kind."""
    service = FeedService(tmp_path / "feed", **LAB)
    service.key("reader")
    service.key("pot", "--may", "report")
    yield service.start()
    service.stop()


@pytest.fixture
def scanner() -> Iterator[str]:
    """Let what is sent to the honeypot's address come from the scanner's."""
    route = ("local", POT, "dev", "lo", "src", SCANNER, "table", "local")
    subprocess.run(["ip", "route", "add", *route], check=True)
    yield SCANNER
    subprocess.run(["ip", "route", "del", *route], check=True)


def reports_to(feed: FeedService, key: str) -> dict[str, Any]:
    """Give a honeypot's settings."""
    return {"report.url": feed.url, "report.key": key}


def seen(service: FeedService, table: Any) -> dict[str, int]:
    """Give how many messages of each source the feed's database tells of."""
    with Database(Secret(service.settings["database.url"])) as database:
        query = select(table.c.address, func.sum(table.c.count)).group_by(table.c.address)
        with database.read() as connection:
            return {row[0]: int(row[1]) for row in connection.execute(query)}


@pytest.mark.parametrize("version", [1, 2])
def test_scanner_ends_dropped(
    tmp_path: Path,
    feed: FeedService,
    make_node: Callable[..., NodeUnderTest],
    scanner: str,
    version: int,
) -> None:
    """Svmap alone lists nobody; svcrack is listed, and dropped by a node that syncs from here."""
    node = make_node()
    node.write_settings(
        feed__url=feed.url, feed__key=feed.keys["reader"], feed__interval=1, feed__version=version
    )
    node.start()
    assert node.passes(scanner)
    (tmp_path / "pot").mkdir()
    settings = reports_to(feed, feed.keys["pot"])
    with running(tmp_path / "pot", host=POT, settings=settings) as pot:
        assert "Asterisk PBX" in sipvicious(pot, "svmap")
        wait_for(lambda: scanner in seen(feed, unproven), "the unproven source at the feed")
        assert feed.listed(feed.keys["reader"]) == []
        assert node.passes(scanner)
        (pot.folder / "words.txt").write_text("alpha\nbeta\n1234\n")
        sipvicious(pot, "svcrack", "-u", "100", "-d", "words.txt")
        wait_for(lambda: feed.listed(feed.keys["reader"]) == [scanner], "its address in banned")
    assert feed.check(2, feed.keys["reader"], scanner).status == 200
    wait_for(lambda: node.is_dropped(scanner), "silence for the scanner", 30)
    assert node.passes("127.0.2.9")


def kill_feed(feed: FeedService, _pot: Honeypot, _postgres: Postgres) -> None:
    """Kill the feed, and start it again."""
    feed.kill()
    feed.start()


def kill_honeypot(_feed: FeedService, pot: Honeypot, _postgres: Postgres) -> None:
    """Kill all of Kamailio, and start it again."""
    for pid in pot.processes("kamailio") + pot.processes("reporter"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    pot.kamailio.stop()
    pot.kamailio.start()


def kill_database(_feed: FeedService, _pot: Honeypot, postgres: Postgres) -> None:
    """Kill the database's processes, and start it again: it recovers from its log."""
    postgres.kill()
    postgres.start()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_kills_lose_no_acknowledged_sighting(tmp_path: Path, kind: str) -> None:
    """``kill -9`` of feed, honeypot and database in turn, under load.

    Acknowledged is what the honeypot answered: all of it must come to be evidence at the feed.
    """
    with contextlib.ExitStack() as stack:
        postgres = Postgres(durable=True)
        stack.callback(postgres.close)
        url = postgres.fresh() if kind == "postgresql" else None
        feed = FeedService(tmp_path / "feed", url, **LAB)
        feed.key("pot", "--may", "report")
        feed.start()
        stack.callback(feed.stop)
        (tmp_path / "pot").mkdir()
        settings = reports_to(feed, feed.keys["pot"])
        pot = stack.enter_context(running(tmp_path / "pot", settings=settings))
        kills = [kill_feed, kill_honeypot, kill_database]
        with load(pot) as guesses:
            for kill in kills * 2:
                before = guesses.least
                wait_for(lambda n=before: guesses.least > n + 30, "guesses", 20)
                kill(feed, pot, postgres)
        answered = dict(guesses.answered)
        wait_for(
            lambda: all(seen(feed, evidence).get(source, 0) >= n for source, n in answered.items()),
            "all that was answered at the feed",
            30,
        )
        assert min(answered.values()) > 150
