"""What the kernel tells."""

from __future__ import annotations

import os
import socket

import pytest
from apiban.bench.machine import BenchError, Machine, core_seconds, cpu_seconds, udp_socket


def test_cpu_time_grows_with_work() -> None:
    """By the scheduler's accounting, in seconds."""
    before = cpu_seconds([os.getpid()])
    while cpu_seconds([os.getpid()]) < before + 0.02:
        sum(range(10_000))
    assert cpu_seconds([os.getpid()]) - before < 5


def test_socket_that_overflows() -> None:
    """What waits in it and what found no room are told apart; all of it was sent."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.8.1", 0))
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        port = receiver.getsockname()[1]
        assert (udp_socket(port).waiting, udp_socket(port).lost) == (0, 0)
        for _ in range(500):
            sender.sendto(b"x" * 400, ("127.0.8.1", port))
        found = udp_socket(port)
        assert found.waiting > 0
        taken = 0
        while udp_socket(port).waiting:
            taken += len(receiver.recv(1000)) // 400
        assert taken + found.lost == 500
        assert udp_socket(port).waiting == 0


def test_stolen_time_is_part_of_all_time() -> None:
    """Both grow, and never the one beyond the other."""
    (before, stolen_before), (after, stolen) = core_seconds(), core_seconds()
    assert before > 0
    assert 0 <= stolen - stolen_before <= max(after - before, 0.0)


def test_no_such_socket() -> None:
    """A port that nobody has is named."""
    with pytest.raises(BenchError, match="port 1"):
        udp_socket(1)


def test_this_machine() -> None:
    """Everything that the figures depend on is named."""
    here = Machine.here()
    assert here.cores_used >= 1
    assert here.kernel == os.uname().release
    assert "kamailio" in here.kamailio
