"""The local detector on a real edge, before an upstream that challenges."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from apiban.address import parse_address
from apiban.store import DETECTOR, Store

from tests.support.calls import PASSWORD, Phone, Registrar, nonce_of, status
from tests.support.feedservice import FeedService
from tests.support.node import NodeUnderTest, wait_for

pytestmark = pytest.mark.kamailio

BAD, GOOD, VICTIM = "127.0.2.5", "127.0.2.6", "127.0.2.7"


@pytest.fixture
def edge(make_node: Callable[..., NodeUnderTest]) -> NodeUnderTest:
    """Give a node, not started, that bans after five failures or four users."""
    node = make_node(("127.0.1.5",))
    node.upstream.stop()
    node.upstream = Registrar("127.0.4.1")
    node.write_settings(
        edge__upstreams=[node.upstream.uri],
        detect__enabled=True,
        detect__failures=5,
        detect__users=4,
    )
    return node


def is_banned(node: NodeUnderTest, source: str) -> bool:
    """Tell whether the detector lists a source."""
    with Store(node.folder / "state" / "store.db") as store:
        return any(one.source == DETECTOR for one in store.find(parse_address(source)))


def all_is_taken(node: NodeUnderTest) -> None:
    """Wait until what a fresh source does wrong is banned: what came before was looked at."""
    with Phone("127.0.2.99", node.target, "tcp") as phone:
        phone.ask(phone.asks("OPTIONS", agent="friendly-scanner"), timeout=1)
    wait_for(lambda: is_banned(node, "127.0.2.99"), "the last ban")


def final(phone: Phone, request: bytes) -> bytes:
    """Send a request, and give its final answer."""
    answer = phone.ask(request)
    while 0 < status(answer) < 200:
        answer = phone.receive(3.0)
    return answer


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_brute_force_is_banned_within_a_second(edge: NodeUnderTest, transport: str) -> None:
    """The fifth refused password is the last, over TCP, and over UDP with the nonces sent back."""
    edge.start()
    with Phone(BAD, edge.target, transport) as tool:
        assert [tool.guess("100") for _ in range(5)] == [401] * 5
        began = time.monotonic()
        for worker in range(8):  # each in all workers, by other ports
            with Phone(BAD, edge.target) as probe:
                wait_for(
                    lambda one=probe: one.ask(one.asks("OPTIONS"), timeout=0.2) == b"",
                    f"the ban for {worker}",
                )
        assert time.monotonic() - began < 8 * 0.2 + 1.0
    (line,) = edge.events("detected")
    assert f"source={BAD} rule=failures count=5 window=300.0 ban_for=3600.0" in line
    assert edge.passes(GOOD)


def test_forged_source_is_never_banned(edge: NodeUnderTest) -> None:
    """Whatever comes in its name: nonces of another, invented ones, a scanner's name."""
    edge.start()
    with Phone(VICTIM, edge.target) as victim, Phone(GOOD, edge.target) as forger:
        for number in range(12):
            nonce = nonce_of(forger.ask(forger.asks("REGISTER")))
            for told in (nonce, f"invented-{number}"):
                forged = victim.asks("REGISTER", f"10{number}", nonce=told, agent="sipvicious")
                assert status(victim.ask(forged)) == 401
            # A Via that would have the challenge elsewhere.
            via = f"{VICTIM}:{victim.port};".encode()
            there = b"%s:%d;maddr=%s;" % (GOOD.encode(), forger.port, GOOD.encode())
            asked = victim.asks("REGISTER")
            assert via in asked
            assert status(victim.ask(asked.replace(via, there))) == 401
        assert forger.receive(0.2) == b""
        all_is_taken(edge)
        assert not is_banned(edge, VICTIM)
        assert victim.register()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_nonce_that_everybody_gets_proves_nothing(edge: NodeUnderTest, transport: str) -> None:
    """Where a server gives one nonce to all who ask, a forger has the victim's."""
    edge.upstream.make_nonce = lambda: "of-this-second"
    edge.start()
    with Phone(VICTIM, edge.target) as victim, Phone(GOOD, edge.target, transport) as forger:
        for asker in (forger, victim):
            assert status(asker.ask(asker.asks("REGISTER"))) == 401
        for _ in range(10):
            forged = victim.asks("REGISTER", nonce="of-this-second", agent="sipvicious")
            assert status(victim.ask(forged)) == 401
        all_is_taken(edge)
        assert not is_banned(edge, VICTIM)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_office_is_not_cut_off_by_one_bad_handset(edge: NodeUnderTest, transport: str) -> None:
    """Five phones that register, behind one address with one that never will."""
    edge.start()
    with ExitStack() as stack:
        phones = [stack.enter_context(Phone(GOOD, edge.target, transport)) for _ in range(5)]
        assert all(phone.register(f"20{n}") for n, phone in enumerate(phones))
        bad = stack.enter_context(Phone(GOOD, edge.target, transport))
        assert [bad.guess("299") for _ in range(15)] == [401] * 15
        assert status(bad.ask(bad.asks("OPTIONS", agent="friendly-scanner"))) == 200
        all_is_taken(edge)
        assert not is_banned(edge, GOOD)
        # Who tries many users is another matter.
        for number in range(4):
            bad.guess(f"30{number}")
        wait_for(lambda: is_banned(edge, GOOD), "the ban")
    wait_for(
        lambda: f"source={GOOD} rule=users count=4" in " ".join(edge.events("detected")), "its line"
    )


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_handset_that_tries_unknown_users_cuts_an_office_off(
    edge: NodeUnderTest, transport: str
) -> None:
    """Where the server says 404 of them; the wrong numbers of its phones are nothing."""
    edge.start()
    with Phone(GOOD, edge.target, transport) as phone, Phone(GOOD, edge.target, "tcp") as dialling:
        assert phone.register("200")
        phone.call()
        for number in range(12):
            assert status(final(dialling, dialling.asks("INVITE", f"95{number}"))) == 404
        all_is_taken(edge)
        assert not is_banned(edge, GOOD)
        with Phone(GOOD, edge.target, transport) as bad:
            for number in range(4):
                assert bad.guess(f"90{number}", PASSWORD) == 404
        wait_for(lambda: is_banned(edge, GOOD), "the ban")
    wait_for(
        lambda: f"source={GOOD} rule=users count=4" in " ".join(edge.events("detected")), "its line"
    )


def test_scan_of_users_is_banned(edge: NodeUnderTest) -> None:
    """Users that do not exist, over TCP; over UDP nobody knows who asks."""
    edge.start()
    with Phone(VICTIM, edge.target) as udp, Phone(BAD, edge.target, "tcp") as tcp:
        for phone in (udp, tcp):
            for number in range(4):
                assert status(phone.ask(phone.asks("OPTIONS", f"90{number}"))) == 404
    wait_for(lambda: is_banned(edge, BAD), "the ban")
    assert not is_banned(edge, VICTIM)


def test_exempt_source_is_not_banned(edge: NodeUnderTest) -> None:
    """By the settings nothing is even said; by the store's allow list it is said why not."""
    edge.write_settings(allow__networks=[BAD])
    edge.start()
    with Store(edge.folder / "state" / "store.db") as store:
        store.allow((parse_address(GOOD),), reason="ours", now=time.time())
    for source in (BAD, GOOD):
        with Phone(source, edge.target, "tcp") as phone:
            for _ in range(3):
                assert phone.ask(phone.asks("OPTIONS", agent="Friendly-Scanner 1.8"))
    all_is_taken(edge)
    wait_for(lambda: len(edge.events("detected")) == 2, "both lines")
    assert not is_banned(edge, BAD)
    assert not is_banned(edge, GOOD)
    lines = edge.events("detected")
    assert f"source={GOOD}" in lines[0]
    assert "not banned: the allow list" in lines[0]


def test_settings_apply_while_it_runs(edge: NodeUnderTest) -> None:
    """Off, it looks at nothing; turned on, the next request counts."""
    edge.write_settings(detect__enabled=False)
    edge.start()
    with Phone(BAD, edge.target, "tcp") as tool:
        assert [tool.guess() for _ in range(8)] == [401] * 8
        edge.write_settings(detect__enabled=True)
        wait_for(
            lambda: edge.events("settings")[-1].count("state=changed"), "the settings", seconds=5
        )
        assert [tool.guess() for _ in range(4)] == [401] * 4
        all_is_taken(edge)
        assert not is_banned(edge, BAD)
        assert tool.guess() == 401
        wait_for(lambda: is_banned(edge, BAD), "the ban")


def test_reload_goes_on_counting(edge: NodeUnderTest) -> None:
    """What was counted before ``app_python.reload`` counts after."""
    edge.start()
    with Phone(BAD, edge.target, "tcp") as tool:
        assert [tool.guess() for _ in range(3)] == [401] * 3
        edge.kamailio.rpc("app_python.reload")
        assert [tool.guess() for _ in range(2)] == [401] * 2
        wait_for(lambda: is_banned(edge, BAD), "the ban")


def test_ban_is_reported_to_a_feed_of_our_own(edge: NodeUnderTest, tmp_path: Path) -> None:
    """The real feed takes it, and lists the source for all who ask."""
    feed = FeedService(
        tmp_path / "feed",
        curation__accept_private=True,
        curation__sightings=1,
        serve__allow_http=True,
    )
    feed.key("edge", "--may", "report")
    feed.key("reader")
    feed.start()
    try:
        edge.write_settings(
            report__url=feed.url, report__key=feed.keys["edge"], report__interval=0.2
        )
        edge.start()
        with Phone(BAD, edge.target) as tool:
            assert [tool.guess() for _ in range(5)] == [401] * 5
        wait_for(
            lambda: feed.check(1, feed.keys["reader"], BAD).status == 200, "the feed's listing"
        )
    finally:
        feed.stop()
