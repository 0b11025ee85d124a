"""Listed peers on a real edge: their calls end in grace, and shadow tells of the good ones."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from apiban.address import parse_address
from apiban.gate.board import SWEPT
from apiban.store import LOCAL, Store
from apiban.sync.good import good_path, read_good

from tests.support.calls import Phone, Registrar, status
from tests.support.node import NodeUnderTest, wait_for

pytestmark = pytest.mark.kamailio

PEER, OTHER = "127.0.2.5", "127.0.2.6"


@pytest.fixture
def edge(make_node: Callable[..., NodeUnderTest]) -> NodeUnderTest:
    """Give a node, not started, whose upstream challenges and answers calls."""
    node = make_node(("127.0.1.5",))
    node.upstream.stop()
    node.upstream = Registrar("127.0.4.1")
    node.write_settings(edge__upstreams=[node.upstream.uri], mode="enforce")
    return node


def ban(node: NodeUnderTest, source: str) -> None:
    """List a source, as the command line does, and wait until that is in force."""
    with Store(node.folder / "state" / "store.db") as store:
        now = time.time()
        store.ban((parse_address(source),), source=LOCAL, reason="", expires=now + 3600, now=now)
        position = store.position()
    wait_for(lambda: node.board.position >= position, "the ban")
    for _ in range(2):  # the front is emptied by the next tick
        swept = node.board.words[SWEPT]
        wait_for(lambda at=swept: node.board.words[SWEPT] > at, "a tick")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_listed_peer_ends_its_call(edge: NodeUnderTest, transport: str) -> None:
    """Its BYE reaches the callee and is answered; nothing else of it gets through."""
    edge.write_settings(calls__grace=60)
    edge.start()
    with Phone(PEER, edge.target, transport) as phone, Phone(PEER, edge.target) as other:
        call = phone.call()
        ban(edge, PEER)
        assert status(phone.ask(call.request("INFO"))) == 200
        assert other.ask(other.asks("INVITE"), timeout=0.5) == b""
        scan = other.asks("OPTIONS").replace(b"To: <sip:100@127.0.5.1>", b"To: <sip:a@b>;tag=x")
        assert other.ask(scan, timeout=0.5) == b""
        again = call.request("INVITE").replace(b";tag=up", b"")
        assert other.ask(again, timeout=0.5) == b""
        assert status(phone.ask(call.request("BYE"))) == 200


def test_callee_hangs_up_on_a_listed_peer(edge: NodeUnderTest) -> None:
    """The peer's 200 to the BYE comes back to the callee."""
    edge.write_settings(calls__grace=60)
    edge.start()
    with Phone(PEER, edge.target) as phone:
        call = phone.call()
        ban(edge, PEER)
        call.upstreams_bye(edge.upstream, edge.target)
        request = phone.receive(3)
        assert request.startswith(b"BYE ")
        phone.send(call.answers(request))
        wait_for(
            lambda: any(b"SIP/2.0 200" in one and b" BYE" in one for one in edge.upstream.received),
            "the answer to the BYE",
        )


def test_grace_ends(edge: NodeUnderTest) -> None:
    """After its time the call's messages are dropped like all others."""
    edge.write_settings(calls__grace=2)
    edge.start()
    with Phone(PEER, edge.target) as phone:
        call = phone.call()
        ban(edge, PEER)
        assert status(phone.ask(call.request("INFO"))) == 200
        wait_for(lambda: phone.ask(call.request("INFO"), timeout=0.3) == b"", "the end of grace")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_answered_reinvites_give_no_more_grace(edge: NodeUnderTest, transport: str) -> None:
    """Else who is listed would stay for as long as he likes."""
    edge.write_settings(calls__grace=2)
    edge.start()
    with Phone(PEER, edge.target, transport) as phone:
        call = phone.call()

        def is_answered() -> bool:
            answer = phone.ask(call.request("INVITE"), timeout=0.3)
            while answer and b"SIP/2.0 200" not in answer:
                answer = phone.receive(0.3)
            return bool(answer)

        ban(edge, PEER)
        assert is_answered()
        wait_for(lambda: not is_answered(), "the end of grace")


def test_no_grace_unless_it_is_set(edge: NodeUnderTest) -> None:
    """By default a listed peer is silent at once."""
    edge.start()
    with Phone(PEER, edge.target) as phone:
        call = phone.call()
        ban(edge, PEER)
        assert phone.ask(call.request("BYE"), timeout=0.5) == b""


def test_shadow_tells_of_good_sources(edge: NodeUnderTest) -> None:
    """Who registers or calls with success, though listed, is said once and kept for the CLI."""
    edge.write_settings(mode="shadow")
    edge.start()
    ban(edge, PEER)
    with Phone(PEER, edge.target) as phone, Phone(OTHER, edge.target) as other:
        assert phone.register()
        assert phone.register()
        assert other.register()
        phone.call()
        wait_for(lambda: len(edge.events("would-drop-good")) == 2, "two lines")
        assert phone.guess() == 401
    lines = edge.events("would-drop-good")
    assert [
        f"source={PEER} what={what}" in line
        for line, what in zip(lines, ("registered", "called"), strict=True)
    ] == [True, True]
    good = read_good(good_path(edge.folder / "runtime"))
    assert [(one.source, one.what) for one in good] == [(PEER, "called"), (PEER, "registered")]
