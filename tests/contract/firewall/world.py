"""Three network namespaces in a row, and real packets from any address: outside -> host -> inside.

The tests' own thread is in the middle one, the host that is protected, and so is each process that
it starts. Nothing has a name outside of the namespaces, and all goes with their last user.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from tests.support.network import enter_own_network

__all__ = ["PORT", "World", "readable", "run"]

PORT: Final = 5060
_BEACON: Final = 9  # a port that no rule of a test names
_PATIENCE: Final = 5.0
_GRACE: Final = 0.05  # a packet is there before the one that was sent after it, but for this
_IP_FREEBIND: Final = 15
_IPV6_FREEBIND: Final = 78

Protocol = Literal["udp", "tcp"]
_Result = TypeVar("_Result")

# The interface that leads from the host to a neighbour, the neighbour's own, and the third number
# of their addresses: 10.77.1.1 and fd77:1::1 are the host's, .2 and ::2 the neighbour's.
_OUTSIDE: Final = ("outer", "toHost", 1)
_INSIDE: Final = ("inner", "toHost", 2)
_TABLES: Final = ("iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy")


def run(*words: str) -> str:
    """Run a command where the calling thread is; give what it says."""
    if words[0] in _TABLES:  # their lock is the whole machine's, of all tests beside each other
        words = (words[0], "-w", *words[1:])
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


def _switch(name: str, value: int) -> None:
    Path("/proc/sys/net", name).write_text(str(value), encoding="ascii")


class _Neighbour:
    """A thread in a network of its own; sockets that it makes belong there, whoever uses them."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, initializer=enter_own_network)
        self.id = self.do(threading.get_native_id)

    def do(self, what: Callable[..., _Result], *words: Any) -> _Result:
        return self._thread.submit(what, *words).result(_PATIENCE * 6)

    def close(self) -> None:
        self._thread.shutdown()


def _link(near: str, far: str, number: int, neighbour: _Neighbour) -> None:
    """Join the host and a neighbour, who need not ask for each other's hardware address."""
    run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", str(neighbour.id))
    ours = _address(near, number, 1)
    theirs = neighbour.do(_address, far, number, 2)
    for address, mac in ((f"10.77.{number}.2", theirs), (f"fd77:{number}::2", theirs)):
        run("ip", "neigh", "replace", address, "lladdr", mac, "dev", near, "nud", "permanent")
    for address in (f"10.77.{number}.1", f"fd77:{number}::1"):
        neighbour.do(
            run, "ip", "neigh", "replace", address, "lladdr", ours, "dev", far, "nud", "permanent"
        )


def _address(name: str, number: int, last: int) -> str:
    """Bring an interface up; give its hardware address."""
    for knob in ("all", "default", name):
        _switch(f"ipv4/conf/{knob}/rp_filter", 0)
        _switch(f"ipv6/conf/{knob}/accept_dad", 0)
    run("ip", "address", "add", f"10.77.{number}.{last}/24", "dev", name)
    run("ip", "-6", "address", "add", f"fd77:{number}::{last}/64", "dev", name, "nodad")
    run("ip", "link", "set", name, "up")
    return run("ip", "-o", "link", "show", name).partition("link/ether ")[2].split()[0]


class World:
    """What tests see of it: packets that arrive, or do not."""

    def __init__(self) -> None:
        self._left = ExitStack()
        self._own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._left.callback(os.close, self._own)
        try:
            enter_own_network()
            self._left.callback(self._back)
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        self._outside = _Neighbour()
        self._left.callback(self._outside.close)
        self._inside = _Neighbour()
        self._left.callback(self._inside.close)
        _switch("ipv4/ip_forward", 1)
        _switch("ipv6/conf/all/forwarding", 1)
        _link(*_OUTSIDE, self._outside)
        _link(*_INSIDE, self._inside)
        far = _OUTSIDE[1]
        # Whatever address it is not asked to reach is its own: it can send from all of them.
        for family, all_of_them in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
            words = ("ip", family, "route", "add", "local", all_of_them, "dev", "lo")
            self._outside.do(run, *words, "table", "main")
        for family, net, host in (
            ("-4", "10.77.2.0/24", "10.77.1.1"),
            ("-6", "fd77:2::/64", "fd77:1::1"),
        ):
            self._outside.do(run, "ip", family, "route", "add", net, "via", host, "dev", far)
        for family, near, beyond in (
            ("-4", "10.77.1.2", "10.77.2.1"),
            ("-6", "fd77:1::2", "fd77:2::1"),
        ):
            run("ip", family, "route", "add", "default", "via", near, "dev", _OUTSIDE[0])
            self._inside.do(run, "ip", family, "route", "add", "default", "via", beyond)

    def _back(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.setns(self._own, 0) == 0, os.strerror(ctypes.get_errno())

    def close(self) -> None:
        """Go back to where the thread came from; the namespaces end."""
        self._left.close()

    def outside(self, what: Callable[[], _Result]) -> _Result:
        """Do something in the network outside, such as starting a program there."""
        return self._outside.do(what)

    def target(self, source: str, *, behind: bool = False) -> str:
        """Give the address that a source of its family sends to: the host's, or one behind it."""
        network = f"{int(behind) + 1}"
        last = 2 if behind else 1
        return f"fd77:{network}::{last}" if ":" in source else f"10.77.{network}.{last}"

    def listener(
        self, source: str, port: int = PORT, protocol: Protocol = "udp", *, behind: bool = False
    ) -> socket.socket:
        """Open a socket that a source can send to, on the host or behind it."""
        where = (self.target(source, behind=behind), port, protocol)
        one = self._inside.do(_bound, *where) if behind else _bound(*where)
        if protocol == "tcp":
            one.listen()
        return one

    def sender(self, source: str, protocol: Protocol = "udp", port: int = 0) -> socket.socket:
        """Open a socket outside that sends from an address, whichever it is."""
        return self._outside.do(_bound, source, port, protocol)

    def beacon(self, source: str, *, behind: bool = False) -> None:
        """Send a packet from nobody listed and wait for it: what was sent before is there, too."""
        own = "fd77:1::2" if ":" in source else "10.77.1.2"
        with (
            self.listener(own, _BEACON, behind=behind) as ear,
            self.sender(own) as mouth,
        ):
            mouth.sendto(b"beacon", (self.target(own, behind=behind), _BEACON))
            assert readable(ear, _PATIENCE), "the network of the tests is broken"

    def sends(
        self, source: str, port: int = PORT, protocol: Protocol = "udp", *, behind: bool = False
    ) -> bool:
        """Tell whether a packet from ``source`` arrives; for TCP: whether it can connect.

        ``behind``: at a host behind this one, which is the hook "forward".
        """
        target = (self.target(source, behind=behind), port)
        with (
            closing(self.listener(source, port, protocol, behind=behind)) as ear,
            closing(self.sender(source, protocol)) as mouth,
        ):
            mouth.settimeout(0)
            if protocol == "udp":
                mouth.sendto(b"hello", target)
            else:
                mouth.connect_ex(target)
            self.beacon(source, behind=behind)
            return readable(ear)


def readable(ear: socket.socket, patience: float = _GRACE) -> bool:
    """Tell whether something arrived, or does within ``patience`` seconds."""
    return bool(select.select([ear], [], [], patience)[0])


def _bound(address: str, port: int, protocol: Protocol) -> socket.socket:
    one = socket.socket(
        socket.AF_INET6 if ":" in address else socket.AF_INET,
        socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM,
    )
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    if ":" in address:
        one.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    one.bind((address, port))
    return one
