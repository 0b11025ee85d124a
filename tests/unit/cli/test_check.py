"""``apiban check``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from apiban.errors import FeedOutage, FeedRateLimited
from apiban.feed.client import HttpRequest, HttpResponse
from apiban.store import FEED_SOURCE

from tests.unit.cli.node import KEY, OWN, NodeOnHost, networks

LISTED = "198.51.100.7"
UNLISTED = "198.51.100.8"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def listing(node: NodeOnHost) -> NodeOnHost:
    """Give a node whose feed lists one address."""
    node.feed_lists(LISTED)
    return node


class Api:
    """The feed's API: what it was asked, and what it answers."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []
        self.answer = HttpResponse(200, b'{"ipaddress":["198.51.100.7"],"ID":"987"}')
        self.error: Exception | None = None

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer."""
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        return self.answer


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    """Put an API in the network's place."""
    made = Api()
    monkeypatch.setattr("apiban.feed.client.RequestsTransport", lambda _: made)
    return made


# By what is known here -----------------------------------------------------------------------


def test_the_status_tells(listing: NodeOnHost) -> None:
    """3 is banned, 0 is not; one short line says it too."""
    done = listing.run("check", LISTED)
    assert (done.status, done.out) == (3, f"{LISTED} banned by apiban, expires in 7 d\n")
    done = listing.run("check", UNLISTED)
    assert (done.status, done.out) == (0, f"{UNLISTED} not banned\n")


def test_quiet_says_nothing(listing: NodeOnHost) -> None:
    """The status is all."""
    for address, status in ((LISTED, 3), (UNLISTED, 0)):
        done = listing.run("check", "-q", "--json", address)
        assert (done.status, done.out, done.err) == (status, "", "")


def test_who_is_saved_is_not_banned(listing: NodeOnHost) -> None:
    """By the allow list, or as an address of this host."""
    now = listing.clock.now()
    listing.store.allow(networks([LISTED]), reason="our SBC", now=now)
    listing.feed_lists(OWN)
    done = listing.run("check", LISTED)
    assert done.status == 0
    assert done.out == f"{LISTED} not banned: saved by the allow list (operator: our SBC)\n"
    assert listing.run("check", OWN).status == 0


def test_in_shadow_mode_a_banned_address_is_told_not_to_be_dropped(listing: NodeOnHost) -> None:
    """It is banned all the same."""
    listing.write_settings('mode = "shadow"')
    done = listing.run("check", LISTED)
    assert done.status == 3
    assert done.out.endswith("; not dropped: mode shadow\n")


def test_json_for_scripts(listing: NodeOnHost) -> None:
    """Under stable names."""
    done = listing.run("check", "--json", LISTED)
    assert done.status == 3
    expires = listing.clock.now() + 7 * 86400
    assert done.json == {
        "address": LISTED,
        "banned": True,
        "dropped": True,
        "mode": "enforce",
        "sources": ["apiban"],
        "expires": expires,
        "enforced_until": expires + 7 * 86400,
        "saved_by": [],
        "remote_listed": None,
    }


@pytest.mark.parametrize("text", ["198.51.100", "example.com", "", "198.51.100.0/24"])
def test_what_is_no_address_is_a_misuse(listing: NodeOnHost, text: str) -> None:
    """Said in one line; a network is none either."""
    done = listing.run("check", text)
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith("apiban: not an IP address")
    assert done.err.count("\n") == 1


# By the feed's API -----------------------------------------------------------------------------


def test_remote_asks_the_feed(node: NodeOnHost, api: Api) -> None:
    """Its answer is what counts, and the request is one of the node's."""
    done = node.run("check", "--remote", LISTED)
    assert done.status == 3
    assert done.out == f"{LISTED} listed by apiban.org; here: not banned\n"
    assert len(api.requests) == 1
    assert len(node.store.requests(FEED_SOURCE)) == 1
    api.answer = HttpResponse(200, b'{"ipaddress":"not blocked","ID":"none"}')
    done = node.run("check", "--remote", "--json", LISTED)
    assert (done.status, done.json["remote_listed"]) == (0, False)


def test_remote_keeps_the_rate_limit(node: NodeOnHost, api: Api) -> None:
    """Whoever spent the requests; the next free one is told, and none is sent."""
    node.write_settings(feed="requests = 2\nwindow = 60")
    assert [node.run("check", "--remote", LISTED).status for _ in range(2)] == [3, 3]
    node.clock.tick(20)
    done = node.run("check", "--remote", LISTED)
    assert done.status == 1
    assert done.err == "apiban: all 2 requests of 60 s are spent; the next one is free in 40 s\n"
    assert len(api.requests) == 2
    node.clock.tick(41)
    assert node.run("check", "--remote", LISTED).status == 3


def test_remote_needs_a_key(node: NodeOnHost, api: Api) -> None:
    """And costs no request without."""
    node.write_settings(key="")
    done = node.run("check", "--remote", LISTED)
    assert done.status == 1
    assert "no key is set" in done.err
    assert api.requests == []
    assert node.store.requests(FEED_SOURCE) == []


def test_a_feed_that_fails_is_no_answer(node: NodeOnHost, api: Api) -> None:
    """Neither banned nor not; the key is in no text (``run`` looks)."""
    api.error = FeedOutage("apiban.org: no connection")
    done = node.run("check", "--remote", LISTED)
    assert (done.status, done.out) == (1, "")
    assert done.err == "apiban: apiban.org: no connection\n"
    assert KEY in api.requests[0].url


def test_a_feed_that_asks_for_rest_gets_it(node: NodeOnHost, api: Api) -> None:
    """From every process of the node."""
    api.error = FeedRateLimited("asked too often", 300.0)
    assert node.run("check", "--remote", LISTED).status == 1
    api.error = None
    node.clock.tick(200)
    assert "free in 100 s" in node.run("check", "--remote", LISTED).err
    node.clock.tick(101)
    assert node.run("check", "--remote", LISTED).status == 3


def test_check_starts_without_what_it_does_not_need() -> None:
    """A script calls it a thousand times: neither rich nor an HTTP library is loaded for it."""
    code = (
        "import sys, apiban.cli.main, apiban.cli.check;"
        "print([name for name in ('rich', 'requests', 'sqlalchemy') if name in sys.modules])"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "kemi")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, timeout=30, check=True
    )
    assert done.stdout == b"[]\n"
