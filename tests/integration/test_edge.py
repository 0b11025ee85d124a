"""The edge as a proxy: SIPp's calls through it, under a flood, with exact counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from apiban.trial.sipp import SCENARIOS, Load, Server, expectation, serve, start

from tests.support.node import NodeUnderTest, wait_for
from tests.support.sip import Sender

pytestmark = pytest.mark.kamailio

LISTED, GOOD = "127.0.1.5", "127.0.2.1"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_calls_beside_a_flood(
    make_node: Callable[..., NodeUnderTest], tmp_path: Path, transport: str
) -> None:
    """Every good call succeeds while a listed source floods, and each of its packets is counted."""
    node = make_node((LISTED,))
    with serve(Server("upstream-uas", "127.0.6.1"), SCENARIOS, tmp_path) as upstream:
        node.write_settings(edge__upstreams=[f"sip:127.0.6.1:{upstream.port}"])
        node.start()
        target = f"{node.target[0]}:{node.target[1]}"
        dropped = node.board.total().dropped
        flood = Load("scanner-options-flood", target, LISTED, 200, 600, transport=transport)
        calls = Load("good-call", target, GOOD, 20, 40, transport=transport)
        with start(flood, SCENARIOS, tmp_path) as one, start(calls, SCENARIOS, tmp_path) as other:
            flooded, called = one.wait(), other.wait()
        assert expectation(SCENARIOS, "scanner-options-flood").check(flooded) == ""
        assert expectation(SCENARIOS, "good-call").check(called) == ""
        assert called.calls_succeeded == 40
        wait_for(
            lambda: node.board.total().dropped - dropped == flooded.messages_sent, "every drop"
        )


def test_second_upstream_takes_over(
    make_node: Callable[..., NodeUnderTest], tmp_path: Path
) -> None:
    """A request that one upstream does not answer goes to the next, whichever comes first."""
    node = make_node((LISTED,))
    dead = "sip:127.0.6.2:9"
    node.write_settings(edge__upstreams=[dead, node.upstream.uri])
    node.start()
    with ExitStack() as stack:
        senders = [stack.enter_context(Sender(GOOD, node.target)) for _ in range(16)]
        began = time.monotonic()
        for sender in senders:
            sender.send()
        assert all(b" 200 OK" in sender.receive(20) for sender in senders)
        # The Call-ID chooses: some of them tried the dead one first, for five seconds.
        assert time.monotonic() - began > 4


def test_edge_relays_for_nobody_else(node: NodeUnderTest) -> None:
    """A request with a route of its own to somewhere else is refused."""
    with Sender(GOOD, node.target) as sender:
        data = sender.request("BYE").replace(b"To: <sip:100@127.0.5.1>", b"To: <sip:x@y>;tag=1")
        host = f"{node.target[0]}:{node.target[1]}".encode()
        data = data.replace(b"BYE sip:100@127.0.5.1", b"BYE sip:victim@192.0.2.99").replace(
            b"Max-Forwards", b"Route: <sip:" + host + b";lr>\r\nMax-Forwards"
        )
        assert b"403 Relaying refused" in sender.ask(data)
    assert node.events("edge-refused")


def test_upstream_settings_change_without_restart(
    node: NodeUnderTest, make_node: Callable[..., NodeUnderTest]
) -> None:
    """New upstreams are used within 2 s."""
    other = make_node()
    before = len(other.upstream.received)
    node.write_settings(edge__upstreams=[other.upstream.uri])
    took = wait_for(
        lambda: node.passes(GOOD, timeout=0.2) and len(other.upstream.received) > before,
        "the new upstream",
    )
    assert took < 2.5
