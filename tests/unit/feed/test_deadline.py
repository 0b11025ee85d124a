import socket
from collections.abc import Iterator

import pytest
from apiban.feed.deadline import Deadline

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Give two ends of a connection."""
    one, other = socket.socketpair()
    with one, other:
        other.settimeout(10)
        yield one, other


def test_time_up_ends_the_connection(pair: Pair) -> None:
    """Who waits for a byte gets the end instead."""
    ours, peer = pair
    with Deadline(0.01) as deadline:
        deadline.watch(ours)
        assert peer.recv(1) == b""
        assert ours.recv(1) == b""
        assert deadline.expired


def test_connection_made_too_late_is_ended_at_once(pair: Pair) -> None:
    """A name that took long to resolve gives no connection that nobody watches."""
    ours, peer = pair
    late, late_peer = socket.socketpair()
    with late, late_peer, Deadline(0.01) as deadline:
        deadline.watch(ours)
        peer.recv(1)  # time is up
        late_peer.settimeout(10)
        deadline.watch(late)
        assert late_peer.recv(1) == b""


def test_connection_that_is_none_is_no_trouble(pair: Pair) -> None:
    """A socket that the system no longer knows as connected does not stop the others' end."""
    ours, peer = pair
    with socket.socket() as gone, Deadline(0.01) as deadline:
        deadline.watch(gone)
        deadline.watch(ours)
        assert peer.recv(1) == b""


def test_in_time_nothing_is_ended(pair: Pair) -> None:
    """After the exchange the sockets are as they were, and the deadline has none."""
    ours, peer = pair
    with Deadline(60) as deadline:
        deadline.watch(ours)
    assert not deadline.expired
    ours.sendall(b"x")
    assert peer.recv(1) == b"x"
    ours.close()
    assert peer.recv(1) == b""  # no second handle keeps it open
