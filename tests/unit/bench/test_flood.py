"""The flood's messages: bursts that the kernel can cut apart, and calls that are new."""

from __future__ import annotations

import socket
from itertools import islice

import pytest
from apiban.bench.flood import BURST, MESSAGES, Source, flood, messages, sources


def test_sources_are_read() -> None:
    """A range of last bytes, a single address, or several of them."""
    assert sources("127.0.9.1-3") == ["127.0.9.1", "127.0.9.2", "127.0.9.3"]
    assert sources("127.0.9.7") == ["127.0.9.7"]
    assert sources("127.0.9.7,127.0.8.1-2") == ["127.0.9.7", "127.0.8.1", "127.0.8.2"]


def split(burst: bytes) -> list[bytes]:
    """Cut a burst into messages of one length."""
    length, rest = divmod(len(burst), BURST)
    assert rest == 0
    return [burst[at : at + length] for at in range(0, len(burst), length)]


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_each_message_of_a_burst_is_whole(kind: str) -> None:
    """All are of one length, begin with the method and end with an empty line."""
    for burst in islice(messages(kind, "127.0.9.1", 5099, "127.0.8.1"), 3):
        for message in split(burst):
            assert message.startswith(kind.upper().encode() + b" sip:")
            assert message.endswith(b"\r\nContent-Length: 0\r\n\r\n")
            assert b"@@" not in message
        assert len(burst) < 65_507


def test_each_invite_is_a_new_call() -> None:
    """No two have a branch or a Call-ID in common, from one source or from two."""
    seen = set()
    for source in ("127.0.9.1", "127.0.9.2"):
        for burst in islice(messages("invite", source, 5099, "127.0.8.1"), 5):
            for message in split(burst):
                lines = message.split(b"\r\n")
                seen.add(next(line for line in lines if line.startswith(b"Via:")))
                seen.add(next(line for line in lines if line.startswith(b"Call-ID:")))
    assert len(seen) == 2 * 2 * 5 * BURST


@pytest.mark.parametrize("burst", [1, 7, BURST])
def test_kernel_cuts_a_burst_into_messages(burst: int) -> None:
    """As many messages arrive as were sent, each one whole, from each source in turn."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.8.1", 0))
        receiver.settimeout(2)
        target = receiver.getsockname()
        senders = [Source(f"127.0.9.{number}", target, "options") for number in (1, 2)]
        assert flood(senders, packets=100, rate=0.0, burst=burst) == 100
        for sender in senders:
            sender.close()
        came = [receiver.recvfrom(65536) for _ in range(100)]
    assert all(data.startswith(b"OPTIONS ") and data.endswith(b"\r\n\r\n") for data, _ in came)
    assert {peer[0] for _, peer in came} == {"127.0.9.1", "127.0.9.2"}
