"""A listed source gets silence from a real Kamailio; everybody else is served."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

import pytest

from tests.support.node import NodeUnderTest, wait_for
from tests.support.sip import Sender, reply

pytestmark = pytest.mark.kamailio

LISTED, GOOD = "127.0.1.5", "127.0.2.1"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_listed_is_dropped_and_unlisted_answered(node: NodeUnderTest, transport: str) -> None:
    """A listed source gets nothing, another one its answer, and the upstream only the latter."""
    assert node.is_dropped(LISTED, transport)
    assert node.passes(GOOD, transport)
    assert node.upstream.saw(GOOD)
    assert not node.upstream.saw(LISTED)


def test_replies_and_junk_are_dropped_too(node: NodeUnderTest) -> None:
    """Whatever a listed source sends, it gets no byte back and is counted."""
    before = node.board.total().dropped
    with Sender(LISTED, node.target) as sender:
        for data in (
            reply(LISTED, sender.port, "udp"),
            b"\x00" * 40,
            b"\xff\xfe junk that is not UTF-8 and no SIP " * 3,
            b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n    ",
            sender.request("KDMQ"),
            sender.request("INVITE"),
        ):
            assert sender.ask(data, timeout=0.2) == b""
    wait_for(lambda: node.board.total().dropped - before == 6, "every drop")
    assert node.upstream.received == []


def test_tcp_connection_of_a_listed_source_is_closed(node: NodeUnderTest) -> None:
    """Its first message, SIP or junk, ends the connection without a byte."""
    with Sender(LISTED, node.target, "tcp") as sender:
        for data in (sender.request(), b"junk that is no SIP\r\n\r\n"):
            with Sender(LISTED, node.target, "tcp") as fresh:
                fresh.send(data)
                assert fresh.is_closed()


def test_first_packet_that_is_not_utf8_is_dropped(node: NodeUnderTest) -> None:
    """The very first message of a source may hold any bytes."""
    before = node.board.total()
    with Sender("127.0.1.6", node.target) as sender:
        data = sender.request().replace(b"telephone", b"\xff\xfe\xfa")
        assert sender.ask(data, timeout=0.3) == b""
    wait_for(lambda: node.board.total().dropped == before.dropped + 1, "the drop")
    after = node.board.total()
    assert after.faults == before.faults


def test_every_worker_drops(make_node: Callable[..., NodeUnderTest]) -> None:
    """Each UDP worker's own counter grows within 2 s of the page's arrival."""
    # A source that was met twice is dropped in front of Python: so there are many.
    listed = (LISTED, *(f"127.0.9.{number}" for number in range(1, 251)))
    node = make_node(listed, workers=4).start()
    workers = {slot.rank for slot in node.board.slots() if slot.rank > 0}
    assert len(workers) >= 8  # four for UDP, four for TCP

    def udp_workers_that_dropped() -> int:
        return sum(slot.counts.dropped > 0 for slot in node.board.slots() if 1 <= slot.rank <= 4)

    deadline = time.monotonic() + 2
    with contextlib.ExitStack() as stack:
        senders = [stack.enter_context(Sender(source, node.target)) for source in listed]
        while udp_workers_that_dropped() < 4 and time.monotonic() < deadline:
            for sender in senders:
                sender.send()
            time.sleep(0.01)
    assert udp_workers_that_dropped() == 4
    assert node.maps_from_memory()


def test_newly_listed_is_dropped_within_two_seconds(node: NodeUnderTest) -> None:
    """An address that the feed lists later is dropped soon after the page's arrival."""
    assert node.passes("127.0.1.77")
    pages = len(node.events("page"))
    node.api.feed.add("127.0.1.77")
    wait_for(lambda: len(node.events("page")) > pages, "the page with it", 5)
    took = wait_for(lambda: node.is_dropped("127.0.1.77"), "a drop", 5)
    assert took < 2


def test_delisted_passes_after_a_reconcile(make_node: Callable[..., NodeUnderTest]) -> None:
    """An address that a full pass does not list any more passes again within 2 s."""
    node = make_node(("127.0.1.5", "127.0.1.6", "127.0.1.7"))
    node.write_settings(feed__reconcile_every=1)
    node.start()
    assert node.is_dropped(LISTED)
    node.api.feed.remove(LISTED)
    passes = len(node.events("pass-end"))
    wait_for(lambda: len(node.events("pass-end")) > passes + 1, "another pass", 10)
    assert wait_for(lambda: node.passes(LISTED, timeout=0.2), "an answer", 5) < 2
    assert node.is_dropped("127.0.1.6")


def test_settings_apply_without_restart(node: NodeUnderTest) -> None:
    """An allow entry and a mode saved in the settings take effect within 2 s, back and forth."""
    node.write_settings(allow__networks=["127.0.1.5"])
    assert wait_for(lambda: node.passes(LISTED, timeout=0.2), "the allowed source's answer") < 2.5
    assert node.is_dropped("127.0.1.6")
    node.write_settings(allow__networks=[], mode="off")
    assert wait_for(lambda: node.passes("127.0.1.6", timeout=0.2), "an answer in mode off") < 2.5
    node.write_settings(mode="shadow")
    wait_for(lambda: "mode=shadow" in " ".join(node.events("published")[-1:]), "shadow published")
    before = node.board.total()
    assert node.passes(LISTED)
    assert node.board.total().would_drop == before.would_drop + 1
    node.write_settings(mode="enforce")
    wait_for(lambda: node.is_dropped(LISTED), "a drop in mode enforce", 2.5)


def test_bad_settings_keep_the_last_good(node: NodeUnderTest) -> None:
    """Settings that became bad are said once, and change nothing."""
    node.write_raw_settings('mode = "perhaps"\n[feed]\ninterval = -5\n')
    wait_for(lambda: node.events("settings-refused"), "the refusal in the log", 3)
    assert "perhaps" in node.events("settings-refused")[0]
    assert "feed.interval" in node.events("settings-refused")[0]
    assert node.is_dropped(LISTED)
    assert node.passes(GOOD)
    node.write_settings(mode="off")
    wait_for(lambda: node.passes(LISTED, timeout=0.2), "an answer once they are good", 3)
    assert len(node.events("settings-refused")) == 1


def test_upstream_and_own_address_are_never_dropped(
    make_node: Callable[..., NodeUnderTest],
) -> None:
    """A feed that lists the upstream, a peer or this host's own address changes nothing."""
    node = make_node(("127.0.4.1", "127.0.0.1", "127.0.1.9", "127.0.1.5"))
    node.write_settings(node__peers=["127.0.1.9"])
    node.start()
    assert node.is_dropped(LISTED)
    assert node.passes("127.0.1.9")
    assert node.passes("127.0.0.1")
    assert node.passes(GOOD)  # its answer came from the listed upstream


def test_private_and_broad_ranges_are_refused(make_node: Callable[..., NodeUnderTest]) -> None:
    """Without the setting a feed cannot ban loopback or a /8, and the rest of its page counts."""
    node = make_node(("127.0.1.5", "198.0.0.0/8", "198.51.100.7"))
    node.write_settings(feed__accept_private=False)
    node.start()
    assert node.passes(LISTED)
    assert "refused=2" in node.events("page")[0]
    assert node.events("published")[-1].find("ipv4=1 ") > 0


def test_restart_with_api_down_drops_the_first_packet(node: NodeUnderTest) -> None:
    """The last list is in force before the first packet, with no API to ask."""
    node.api.stop()
    node.kamailio.stop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as early:
        early.bind((LISTED, 0))
        node.kamailio.start()
        early.settimeout(0.5)
        early.sendto(b"OPTIONS sip:x@y SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n\r\n", node.target)
        wait_for(lambda: node.board.total().dropped == 1, "the drop of the first packet", 3)
        with pytest.raises(TimeoutError):
            early.recv(1)
    assert node.passes(GOOD)
