"""The upstream's answers to a relayed flood and to good calls."""

from __future__ import annotations

import pytest
from apiban.bench.flood import MESSAGES
from apiban.bench.upstream import Upstream

RELAYED = (
    b"Via: SIP/2.0/UDP 127.0.8.1;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP 127.0.2.1;branch=z9hG4bK2\r\n"
    b"Record-Route: <sip:127.0.8.1;lr>\r\nFrom: <sip:a@b>;tag=1\r\nCall-ID: one@b\r\n"
    b"CSeq: 1 %b\r\nTo: <sip:service@b>\r\nSubject: To: nobody\r\n\r\n"
)
INVITE = b"INVITE sip:service@b SIP/2.0\r\n" + RELAYED % b"INVITE"
ACK = b"ACK sip:service@127.0.4.1 SIP/2.0\r\n" + RELAYED % b"ACK"


@pytest.fixture
def upstream() -> Upstream:
    """Return an upstream that has seen nothing."""
    return Upstream("127.0.4.1:5080")


def test_the_floods_invite_is_refused_at_once(upstream: Upstream) -> None:
    """One 404 for each, nothing is kept, and its ACK is taken."""
    text = MESSAGES["invite"].format(host="127.0.8.1", source="127.0.9.1", port=5060)
    (answer,) = upstream.receive(text.encode(), 0.0)
    assert answer.startswith(b"SIP/2.0 404 Not Found\r\n")
    assert b"To: <sip:0049301234567@127.0.8.1>;tag=404\r\n" in answer
    assert upstream.receive(text.replace("INVITE", "ACK").encode(), 0.0) == []
    assert (upstream.flood, upstream.good, upstream.again(99.0)) == (1, 0, [])


def test_a_good_call_is_answered_180_and_200(upstream: Upstream) -> None:
    """What a dialog needs is copied in its order, and nothing else."""
    ringing, answer = upstream.receive(INVITE, 0.0)
    assert ringing.startswith(b"SIP/2.0 180 ")
    assert answer.decode().split("\r\n") == [
        "SIP/2.0 200 OK",
        "Via: SIP/2.0/UDP 127.0.8.1;branch=z9hG4bK1",
        "Via: SIP/2.0/UDP 127.0.2.1;branch=z9hG4bK2",
        "Record-Route: <sip:127.0.8.1;lr>",
        "From: <sip:a@b>;tag=1",
        "Call-ID: one@b",
        "CSeq: 1 INVITE",
        "To: <sip:service@b>;tag=uas",
        "Contact: <sip:service@127.0.4.1:5080>",
        "Content-Length: 0",
        "",
        "",
    ]


def test_the_200_is_sent_until_its_ack_comes(upstream: Upstream) -> None:
    """After T1 first; the pauses double up to T2."""
    answer = upstream.receive(INVITE, 0.0)[1]
    times = []
    for tick in range(1200):
        if found := upstream.again(tick / 100):
            assert found == [answer]
            times.append(tick / 100)
    assert times == [0.5, 1.5, 3.5, 7.5, 11.5]
    upstream.receive(ACK, 12.0)
    assert upstream.again(99.0) == []


def test_an_invite_that_comes_again_starts_no_second_clock(upstream: Upstream) -> None:
    """It is answered, and the 200 is still sent once at each time."""
    upstream.receive(INVITE, 0.0)
    assert len(upstream.receive(INVITE, 0.1)) == 2
    assert len(upstream.again(0.7)) == 1


def test_a_bye_is_answered_in_its_dialog(upstream: Upstream) -> None:
    """The To has its tag already."""
    bye = (b"BYE sip:x SIP/2.0\r\n" + RELAYED % b"BYE").replace(b"e@b>", b"e@b>;tag=uas")
    (answer,) = upstream.receive(bye, 0.0)
    assert answer.startswith(b"SIP/2.0 200 OK\r\n")
    assert answer.count(b"tag=uas") == 1


def test_it_says_how_long_nothing_is_due(upstream: Upstream) -> None:
    """So that its process can sleep."""
    assert upstream.wait(0.0) > 1.0
    upstream.receive(INVITE, 0.0)
    assert upstream.wait(0.2) == pytest.approx(0.3)
    assert upstream.wait(9.0) == 0.0
