"""Is the hook on? The sockets of Kamailio, and what its counters do when a message comes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from apiban.address import Family
from apiban.doctor.hook import (
    Listener,
    check_hook,
    check_workers,
    find_listeners,
    open_sockets,
    wake,
)
from apiban.gate.board import Counts, Slot

HERE = Listener("udp", 4, "192.0.2.1", 5060)


def never(_seconds: float) -> None:
    """Wait no time."""


class Counter:
    """Counts as Kamailio does: what is sent is counted after so many looks, or never."""

    def __init__(self, after: int | None, *, answers: bool = True) -> None:
        self.after = after
        self.answers = answers
        self.sent: list[Listener] = []
        self.looks = 0

    def send(self, listener: Listener) -> bool:
        """Take a message."""
        self.sent.append(listener)
        self.looks = 0
        return self.answers

    def counted(self) -> int:
        """Give the count."""
        self.looks += 1
        return int(bool(self.sent) and self.after is not None and self.looks > self.after)


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("after", [0, 12])
def test_counted_message(after: int, answers: bool) -> None:  # noqa: FBT001
    """The count moves, at once or at the next tick: the hook is on, answered or not."""
    node = Counter(after, answers=answers)
    finding = check_hook([HERE], counted=node.counted, send=node.send, sleep=never)
    assert finding.level == "ok"
    assert "udp:192.0.2.1:5060" in finding.what
    assert ("no answer came" in finding.what) == (not answers)


def test_message_that_nobody_judged() -> None:
    """The count does not move: the lines to add are said, and every socket was tried."""
    node = Counter(None)
    others = [HERE, Listener("tcp", 6, "2001:db8::1", 5060)]
    finding = check_hook(others, counted=node.counted, send=node.send, sleep=never)
    assert finding.level == "fail"
    assert node.sent == others
    assert "received_route_mode=1" in finding.mend
    assert "route(APIBAN_RECEIVED)" in finding.mend
    assert "tcp:[2001:db8::1]:5060" in finding.what


def test_no_socket() -> None:
    """Without a socket nothing is said for or against the hook."""
    node = Counter(0)
    assert check_hook([], counted=node.counted, send=node.send, sleep=never).level == "note"


def test_socket_that_cannot_be_reached() -> None:
    """What could not be sent proves nothing."""

    def send(_listener: Listener) -> bool:
        raise ConnectionRefusedError(111, "Connection refused")

    finding = check_hook([HERE], counted=lambda: 0, send=send, sleep=never)
    assert finding.level == "note"
    assert "Connection refused" in finding.what


@pytest.fixture(params=[("udp", 4), ("udp", 6), ("tcp", 4), ("tcp", 6)], ids=str)
def bound(
    request: pytest.FixtureRequest,
) -> Iterator[tuple[Literal["udp", "tcp"], Family, socket.socket]]:
    """Give a socket that receives at loopback."""
    transport, family = request.param
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, kind) as one:
        one.bind(("127.0.0.1" if family == 4 else "::1", 0))
        if transport == "tcp":
            one.listen()
        one.settimeout(5)
        yield transport, family, one


def test_listeners_of_real_sockets(
    bound: tuple[Literal["udp", "tcp"], Family, socket.socket],
) -> None:
    """A socket of this process is found in the kernel's table, with its address and port."""
    transport, family, one = bound
    table = Path(f"/proc/self/net/{transport}{'6' if family == 6 else ''}").read_text()
    (inodes,) = open_sockets([os.getpid()]) or [frozenset()]
    found = find_listeners(transport, family, table, inodes)
    host, port = one.getsockname()[:2]
    assert Listener(transport, family, host, port) in found


def test_message_arrives(bound: tuple[Literal["udp", "tcp"], Family, socket.socket]) -> None:
    """What is sent is an OPTIONS that goes no further, from a user agent that says who it is."""
    transport, family, one = bound
    host, port = one.getsockname()[:2]
    assert wake(Listener(transport, family, host, port)) is False
    if transport == "udp":
        data = one.recv(4096)
    else:
        connection, _ = one.accept()
        with connection:
            data = connection.recv(4096)
    head = data.decode("ascii").split("\r\n")
    assert head[0].startswith("OPTIONS sip:")
    assert "Max-Forwards: 0" in head
    assert "User-Agent: apiban-doctor" in head
    assert data.endswith(b"\r\n\r\n")
    assert len(data) >= 32  # what is shorter never comes to the hook


def test_socket_at_every_address() -> None:
    """A socket at 0.0.0.0 is reached over loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("0.0.0.0", 0))
        inode = os.fstat(one.fileno()).st_ino
        table = Path("/proc/self/net/udp").read_text()
        (found,) = find_listeners("udp", 4, table, frozenset({inode}))
        assert found == Listener("udp", 4, "127.0.0.1", one.getsockname()[1])


def test_open_sockets(tmp_path: Path) -> None:
    """Each process has its own, and files are none."""
    for pid, inodes in ((1, (10, 11)), (2, (10, 12))):
        folder = tmp_path / str(pid) / "fd"
        folder.mkdir(parents=True)
        for inode in inodes:
            (folder / str(inode)).symlink_to(f"socket:[{inode}]")
        (folder / "3").symlink_to("/dev/null")
    assert open_sockets([1, 2], tmp_path) == [{10, 11}, {10, 12}]


def test_sockets_that_are_not_ours_to_see(tmp_path: Path) -> None:
    """None is not the same as no socket."""
    assert open_sockets([1], tmp_path) is None


def slot(rank: int, generation: int, passed: int) -> Slot:
    """Give a worker's line."""
    return Slot(100 + rank, rank, generation, Counts(0, 0, passed, 0))


def test_worker_that_judges_by_an_old_list() -> None:
    """One that met a packet since, and is behind, fails; the others do not count."""
    # Native code counts in the first line, which is no worker's.
    before = [slot(0, 0, 0), slot(1, 7, 5), slot(2, 6, 5)]
    after = [slot(0, 0, 9), slot(1, 7, 6), slot(2, 6, 6)]
    finding = check_workers(before, after, generation=7)
    assert finding.level == "fail"
    assert finding.what.startswith("1 of 2 ")
    assert "worker 2 (process 102) by generation 6, not 7" in finding.what


def test_worker_that_met_no_packet() -> None:
    """It needs no new list before a packet comes."""
    before = [slot(1, 7, 5), slot(2, 6, 5)]
    after = [slot(1, 7, 6), slot(2, 6, 5)]
    finding = check_workers(before, after, generation=7)
    assert finding.level == "ok"
    assert "1 took no message" in finding.what
