"""A source that is banned in the middle of a connection is cut off, whatever others accept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest
from apiban.firewall import conntrack
from apiban.firewall.backend import Backend
from apiban.firewall.elements import FOREVER, Change
from apiban.firewall.rules import Port

from tests.contract.firewall.kits import Kit
from tests.contract.firewall.parts import LISTED, LISTED6, block, rules
from tests.contract.firewall.world import PORT, World, readable, run

OTHERS: Final = {LISTED: "198.51.100.99", LISTED6: "2001:db8:7::99"}


def _accept_established(kit: Kit) -> None:
    """Be the firewall of somebody else, who comes first: after a reload of it, say."""
    if kit.name == "nftables":
        run("nft", "add table inet foreign")
        run("nft", "add chain inet foreign c { type filter hook input priority -50; }")
        run("nft", "add rule inet foreign c ct state established accept")
        return
    for tool in ("iptables", "ip6tables"):
        name = tool.replace("tables", "tables-legacy") if kit.name == "ipset-legacy" else tool
        run(name, *["-I", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"])


class _Flow:
    """UDP packets there and back, between a source and a port of the host."""

    def __init__(self, world: World, source: str, port: int, left: ExitStack) -> None:
        self._world = world
        self._source = source
        self._target = (world.target(source), port)
        self._ear = left.enter_context(world.listener(source, port))
        self._mouth = left.enter_context(world.sender(source, port=port))
        self._ear.settimeout(5)
        self._mouth.settimeout(5)

    def begin(self) -> None:
        """Make it one that conntrack knows, begun by the source."""
        self._mouth.sendto(b"INVITE", self._target)
        _, back = self._ear.recvfrom(100)
        self._ear.sendto(b"200", back)
        assert self._mouth.recv(100) == b"200"

    def begin_here(self) -> None:
        """Make it one that the host began."""
        self._ear.sendto(b"OPTIONS", self._mouth.getsockname()[:2])
        assert self._mouth.recv(100) == b"OPTIONS"
        self._mouth.sendto(b"200", self._target)
        assert self._ear.recv(100) == b"200"

    def goes_on(self) -> bool:
        """Tell whether another packet of the source arrives."""
        self._mouth.sendto(b"more", self._target)
        self._world.beacon(self._source)
        arrives = readable(self._ear)
        if arrives:
            self._ear.recv(100)
        return arrives


@pytest.fixture
def left() -> Iterator[ExitStack]:
    """Give what closes the sockets."""
    with ExitStack() as stack:
        yield stack


@contextmanager
def _forgotten() -> Iterator[None]:
    """Begin and end without connections."""
    run("conntrack", "-F")
    yield
    run("conntrack", "-F")


@pytest.mark.parametrize("source", [LISTED, LISTED6])
@pytest.mark.parametrize("begins", ["there", "here"])
def test_banned_in_the_middle(  # noqa: PLR0917 - what pytest gives
    kit: Kit, backend: Backend, world: World, source: str, begins: str, left: ExitStack
) -> None:
    """Its packets do not arrive any more, though a foreign rule accepts known connections."""
    backend.apply(Change(rebuild=True), rules(), now=time.time())
    _accept_established(kit)
    left.enter_context(_forgotten())
    flow, other = (
        _Flow(world, one, port, left) for one, port in ((source, PORT), (OTHERS[source], PORT + 1))
    )
    other.begin()
    flow.begin() if begins == "there" else flow.begin_here()
    backend.apply(Change(add={block(source): FOREVER}), rules(), now=time.time())
    # With nftables nobody's "accept" lets past a table of ours; with iptables the first rule has
    # the last word.
    assert flow.goes_on() is (kit.name != "nftables")
    assert conntrack.cut([block(source)], within=20) == conntrack.Cut(1)
    assert not flow.goes_on()
    assert other.goes_on()


def test_ports_that_are_not_guarded(
    kit: Kit, backend: Backend, world: World, left: ExitStack
) -> None:
    """Only connections to the ports of the settings end, and those of the blocks given."""
    chosen = rules(ports=(Port("udp", PORT, PORT),))
    backend.apply(Change(rebuild=True), chosen, now=time.time())
    _accept_established(kit)
    left.enter_context(_forgotten())
    guarded, free = (_Flow(world, LISTED, port, left) for port in (PORT, PORT + 5))
    guarded.begin()
    free.begin()
    backend.apply(Change(add={block(LISTED): FOREVER}), chosen, now=time.time())
    ranges = [block("198.51.100.0/28"), block("10.0.0.0/8")]
    for ports, removed in (((Port("tcp", PORT, PORT),), 0), (chosen.ports, 1)):
        assert conntrack.cut(ranges, ports=ports, within=20) == conntrack.Cut(removed)
    assert not guarded.goes_on()
    [kept] = run("conntrack", "-L", "-s", LISTED).splitlines()
    assert f"dport={PORT + 5} " in kept
    assert free.goes_on()


def test_an_allowed_host_in_a_banned_network(
    backend: Backend, world: World, left: ExitStack
) -> None:
    """Its connection is not touched; without the allow it would be."""
    backend.apply(Change(rebuild=True), rules(established="keep"), now=time.time())
    left.enter_context(_forgotten())
    flow = _Flow(world, LISTED, PORT, left)
    flow.begin()
    ranges, allowed = [block("198.51.100.0/28")], [block(LISTED)]
    assert conntrack.cut(ranges, allowed=allowed, within=20) == conntrack.Cut(0)
    assert flow.goes_on()
    assert conntrack.cut(ranges, within=20) == conntrack.Cut(1)


def test_what_this_host_began_may_stay(backend: Backend, world: World, left: ExitStack) -> None:
    """Calls that began here are left alone when asked to."""
    backend.apply(Change(rebuild=True), rules(established="keep"), now=time.time())
    left.enter_context(_forgotten())
    flow = _Flow(world, LISTED, PORT, left)
    flow.begin_here()
    assert conntrack.cut([block(LISTED)], begun_here=False, within=20) == conntrack.Cut(0)
    assert conntrack.cut([block(LISTED)], within=20) == conntrack.Cut(1)


def test_zones(backend: Backend, world: World, left: ExitStack) -> None:
    """A connection of another zone of conntrack is found and removed there."""
    backend.apply(Change(rebuild=True), rules(established="keep"), now=time.time())
    left.enter_context(_forgotten())
    zone = ("PREROUTING", "-s", LISTED, "-j", "CT", "--zone", "7")
    run("iptables", "-t", "raw", "-A", *zone)
    left.callback(run, "iptables", "-t", "raw", "-D", *zone)
    assert world.sends(LISTED)
    assert "zone=7" in run("conntrack", "-L", "-s", LISTED)
    assert conntrack.cut([block(LISTED)], within=20) == conntrack.Cut(1)
    assert run("conntrack", "-L", "-s", LISTED) == ""


def test_a_long_list_costs_little_where_nobody_is_connected(backend: Backend, world: World) -> None:
    """No process is started when the kernel knows no connection at all."""
    run("conntrack", "-F")
    blocks = [(4, number, number) for number in range(1 << 24, (1 << 24) + 100_000)]

    def refused(*words: object, **more: object) -> Iterator[str]:
        raise AssertionError(words)

    assert conntrack.cut(blocks, stream=refused) == conntrack.Cut(0)
