"""The firewall client beside a Kamailio: who floods goes into the kernel, and nobody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from apiban.firewall.report import FirewallReport

from tests.contract.firewall.world import World, run
from tests.support.node import NodeUnderTest, wait_for
from tests.support.pbx import Pbx
from tests.support.sip import Sender

pytestmark = [pytest.mark.kamailio, pytest.mark.timeout(120)]

FLOODS, QUIET = "127.0.1.5", "127.0.1.6"
OTHER = "127.0.2.1"
RATE = 50  # firewall.flood_rate


@pytest.fixture
def pbx(world: World, make_node: Callable[..., NodeUnderTest]) -> Iterator[Pbx]:
    """Give a Kamailio that is protected, with settings for who floods."""
    node = make_node((FLOODS, QUIET))
    made = Pbx(world, node, firewall__sources="flooding", firewall__flood_rate=RATE)
    node.start()
    yield made
    made.apiban("firewall", "flush", "--force")


@contextmanager
def _flood(pbx: Pbx) -> Iterator[None]:
    """Send four times as much as the kernel's share begins at; it costs a part of one core."""
    end = threading.Event()

    def send() -> None:
        with Sender(FLOODS, pbx.node.target) as sender:
            request = sender.request()
            while not end.wait(0.05):
                for _ in range(4 * RATE // 20):
                    sender.send(request)

    thread = threading.Thread(target=send)  # in the network of this one
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _report(pbx: Pbx) -> FirewallReport:
    report = pbx.report()
    assert report is not None
    return report


def _in_kernel(pbx: Pbx) -> list[str]:
    """Name those that the client says are in the kernel since they flood."""
    report = pbx.report()
    return [] if report is None else [one.source for one in report.flooding]


def _dropped(pbx: Pbx) -> int:
    """Give what Kamailio has dropped, once its native code's counts are in."""
    time.sleep(1.1)  # they are added up once a second
    return pbx.node.board.total().dropped


def test_who_floods_is_dropped_by_the_kernel(pbx: Pbx) -> None:
    """Within seconds, and Kamailio sees no more of it; who is quiet stays Kamailio's."""
    node = pbx.node
    with pbx.client() as client, _flood(pbx):
        took = wait_for(lambda: _in_kernel(pbx) == [FLOODS], "the flooding source in the kernel")
        assert took < 5  # the client's own start is in it
        before, counted = _dropped(pbx), _report(pbx).dropped_ipv4
        wait_for(lambda: _report(pbx).dropped_ipv4 > counted + 2 * RATE, "drops by the kernel")
        assert _dropped(pbx) == before
        assert node.is_dropped(QUIET)
        assert _in_kernel(pbx) == [FLOODS]
        assert node.passes(OTHER)
        # Killed, it leaves what protects; and where that is gone as well, Kamailio does it all.
        client.kill()
        before = _dropped(pbx)
        assert not node.ask(FLOODS, timeout=0.3)
        assert _dropped(pbx) == before
        run("nft", "delete", "table", "inet", "apiban_firewall")
        assert node.is_dropped(FLOODS)
        assert node.is_dropped(QUIET)
        wait_for(lambda: node.board.total().dropped > before + RATE, "drops by Kamailio")


def test_unban_clears_kernel_and_kamailio(pbx: Pbx) -> None:
    """At once, while the source floods on; the new count of its flood is no reason to come back."""
    node = pbx.node
    with pbx.client(), _flood(pbx):
        wait_for(lambda: _in_kernel(pbx) == [FLOODS], "the flooding source in the kernel")
        pbx.apiban("unban", FLOODS)
        took = wait_for(lambda: node.passes(FLOODS, timeout=0.3), "an answer", 5)
        assert took < 2
        wait_for(lambda: not _in_kernel(pbx), "nobody in the kernel")
        assert node.is_dropped(QUIET)
        wait_for(lambda: node.passes(FLOODS, timeout=0.3), "an answer still")
