"""A host without Kamailio: ``apiban sync --forever`` and ``apiban firewall run`` before a UAS."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.contract.firewall.world import World, run
from tests.support.node import NodeUnderTest, wait_for
from tests.support.pbx import Pbx

pytestmark = [pytest.mark.kamailio, pytest.mark.timeout(120)]

LISTED, LISTED_TOO = "203.0.113.5", "203.0.113.6"
OTHER, STRANGER = "198.51.100.9", "198.51.100.10"
MANY = tuple(f"192.0.2.{number}" for number in range(1, 41))
AT_ONCE = 2.0


@pytest.fixture
def pbx(world: World, make_node: Callable[..., NodeUnderTest]) -> Iterator[Pbx]:
    """Give a host without Kamailio whose feed lists LISTED, LISTED_TOO and MANY."""
    made = Pbx(world, make_node((LISTED, LISTED_TOO, *MANY)))
    with made.answers():
        yield made
    made.apiban("firewall", "flush", "--force")


def _rules() -> str:
    """Give the kernel's rule set, which is that of these tests' network and no other's."""
    assert "outer@" in run("ip", "-o", "link")
    return run("nft", "list", "ruleset")


def test_sources_on_the_list_get_no_answer(pbx: Pbx) -> None:
    """Others do, and each change is in force at once: delisted, banned, unbanned."""
    assert pbx.hears(LISTED)
    with pbx.sync(), pbx.client():
        wait_for(lambda: not pbx.hears(LISTED), "silence for who is listed")
        assert not pbx.hears(LISTED_TOO)
        assert not pbx.hears(LISTED, "OPTIONS")
        assert pbx.hears(OTHER)
        assert pbx.hears(OTHER, "OPTIONS")
        assert pbx.calls(OTHER, 5) == 5
        pbx.node.api.feed.remove(LISTED)
        pbx.apiban("sync", "--full")
        wait_for(lambda: pbx.hears(LISTED), "an answer for who is listed no more", AT_ONCE)
        assert not pbx.hears(LISTED_TOO)
        pbx.apiban("ban", OTHER)
        wait_for(lambda: not pbx.hears(OTHER), "silence for who was banned", AT_ONCE)
        pbx.apiban("unban", OTHER, LISTED_TOO)
        wait_for(lambda: pbx.hears(OTHER), "an answer for who was unbanned", AT_ONCE)
        wait_for(lambda: pbx.hears(LISTED_TOO), "an answer for who was on the list", AT_ONCE)


def test_feed_that_fails_takes_no_protection(pbx: Pbx) -> None:
    """Whatever it answers, or when it is gone; and also with both services started anew."""
    with pbx.sync() as sync, pbx.client() as client:
        wait_for(lambda: not pbx.hears(LISTED), "silence for who is listed")
        for mode in ("failing", "garbage", "unauthorized"):
            pbx.node.api.mode = mode
            pbx.apiban("sync", "--now", status=1)
            assert not pbx.hears(LISTED), mode
        pbx.node.api.stop()
        sync.stop()
        assert not pbx.hears(LISTED)
        client.stop()
        assert not pbx.hears(LISTED)
        client.start()
        sync.start()
        wait_for(lambda: len(sync.events("feed-trouble")) > 2, "a line of the new sync")
        wait_for(lambda: len(client.events("firewall")) > 1, "the new client to be ready")
        assert not pbx.hears(LISTED)
        assert pbx.hears(OTHER)
        # A kernel that lost it all has it back from the list on the disk.
        client.kill()
        run("nft", "delete", "table", "inet", "apiban_firewall")
        client.start()
        wait_for(lambda: not pbx.hears(LISTED), "silence for who is listed")


def test_foreign_flush_is_healed(pbx: Pbx) -> None:
    """Within the interval, and once; what others put there stays, whatever we do."""
    with pbx.sync(), pbx.client() as client:
        wait_for(lambda: not pbx.hears(LISTED), "silence for who is listed")
        assert "apiban_firewall" in _rules()
        run("nft", "flush", "ruleset")
        began = time.monotonic()
        run("nft", "add", "table", "inet", "foreign")
        run(
            "nft",
            "add",
            "chain",
            "inet",
            "foreign",
            "input",
            "{ type filter hook input priority 0; }",
        )
        foreign = run("nft", "list", "table", "inet", "foreign")
        wait_for(lambda: "apiban_firewall" in _rules(), "our table again")
        took = time.monotonic() - began
        assert not pbx.hears(LISTED)
        assert pbx.hears(OTHER)
        assert took < 2.0  # the interval is one
        wait_for(lambda: client.events("firewall-healed"), "a line of it")
        run("nft", "flush", "chain", "inet", "apiban_firewall", _chain())
        wait_for(lambda: not pbx.hears(LISTED), "silence again", AT_ONCE)
        wait_for(lambda: len(client.events("firewall-healed")) == 2, "a line of it")
        client.stop()
    pbx.apiban("firewall", "flush")
    assert run("nft", "list", "table", "inet", "foreign") == foreign
    assert "apiban" not in _rules()
    assert pbx.hears(LISTED)
    run("nft", "delete", "table", "inet", "foreign")


def _chain() -> str:
    """Name a chain of ours that packets come through."""
    found = json.loads(run("nft", "-j", "list", "table", "inet", "apiban_firewall"))["nftables"]
    return next(one["chain"]["name"] for one in found if one.get("chain", {}).get("hook"))
