"""Who gets through, with real packets."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest
from apiban.firewall.backend import Backend
from apiban.firewall.elements import FOREVER, Change
from apiban.firewall.rules import Port

from tests.contract.firewall.parts import LISTED, LISTED6, block, blocks, rules, until
from tests.contract.firewall.world import PORT, World, readable

BOTH = {block(LISTED): FOREVER, block(LISTED6): FOREVER}
# No connection of another test, which may try again, is from these.
COUNTED, COUNTED6 = "198.51.100.200", "2001:db8:7::200"
COUNTED_BOTH = {block(COUNTED): FOREVER, block(COUNTED6): FOREVER}
OTHERS = ("198.51.100.99", "2001:db8:7::99")


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_listed_sources_are_dropped(backend: Backend, world: World, protocol: str) -> None:
    """Single addresses and ranges, IPv4 and IPv6; nobody else; and nobody after removal."""
    listed = ("203.0.113.0", "203.0.113.255", "2001:db8:1::1", LISTED, LISTED6)
    ranges = {block("203.0.113.0/24"): FOREVER, block("2001:db8:1::/64"): FOREVER}
    backend.apply(Change(add=BOTH | ranges, rebuild=True), rules(), now=time.time())
    assert not any(world.sends(source, protocol=protocol) for source in listed)
    others = (*OTHERS, "203.0.112.255", "203.0.114.0", "2001:db8:2::1")
    assert all(world.sends(source, protocol=protocol) for source in others)
    backend.remove()
    assert all(world.sends(source, protocol=protocol) for source in listed)


def test_a_ban_and_its_end(backend: Backend, world: World) -> None:
    """A source is dropped from the change on that adds it, until the one that removes it."""
    backend.apply(Change(rebuild=True), rules(), now=time.time())
    for source in (LISTED, LISTED6, "203.0.113.9"):
        ban = block(source) if source in (LISTED, LISTED6) else block("203.0.113.0/24")
        assert world.sends(source)
        backend.apply(Change(add={ban: FOREVER}), rules(), now=time.time())
        assert not world.sends(source)
        backend.apply(Change(remove=frozenset({ban})), rules(), now=time.time())
        assert world.sends(source)


def test_the_kernel_lets_them_in_again(backend: Backend, world: World) -> None:
    """When the time of a ban is over, packets arrive, though nobody looks after the kernel."""
    now = time.time()
    short = {block(one): int(now) + 2 for one in (LISTED, LISTED6, "203.0.113.0/24")}
    backend.apply(Change(add=short, rebuild=True), rules(), now=now)
    for source in (LISTED, LISTED6, "203.0.113.9"):
        assert until(lambda source=source: world.sends(source))  # type: ignore[misc]


def test_the_allowed_go_before(backend: Backend, world: World) -> None:
    """An allowed address, or network, inside of a banned range gets through."""
    banned = {block("203.0.113.0/24"): FOREVER, block("2001:db8:1::/64"): FOREVER} | BOTH
    allowed = blocks("203.0.113.9", "203.0.113.128/25", "2001:db8:1::9", LISTED)
    backend.apply(Change(add=banned, allow=allowed, rebuild=True), rules(), now=time.time())
    assert all(map(world.sends, ("203.0.113.9", "203.0.113.200", "2001:db8:1::9", LISTED)))
    assert not any(map(world.sends, ("203.0.113.10", "2001:db8:1::10", LISTED6)))
    backend.apply(Change(disallow=blocks("203.0.113.9")), rules(), now=time.time())
    assert not world.sends("203.0.113.9")


def test_chosen_ports(backend: Backend, world: World) -> None:
    """Only what goes to them is dropped."""
    chosen = rules(
        ports=(Port("udp", 5060, 5061), Port("udp", 5070, 5070), Port("tcp", 5061, 5061))
    )
    backend.apply(Change(add=BOTH, rebuild=True), chosen, now=time.time())
    for source in (LISTED, LISTED6):
        assert not world.sends(source, 5060)
        assert not world.sends(source, 5061)
        assert not world.sends(source, 5070)
        assert not world.sends(source, 5061, "tcp")
        assert world.sends(source, 5062)
        assert world.sends(source, 5060, "tcp")


def test_chosen_interfaces(backend: Backend, world: World) -> None:
    """Only what comes in by them is dropped."""
    backend.apply(Change(add=BOTH, rebuild=True), rules(interfaces=("inner",)), now=time.time())
    assert world.sends(LISTED)
    assert world.sends(LISTED6)
    for chosen in (("outer",), ("inner", "outer")):
        backend.apply(Change(add=BOTH, rebuild=True), rules(interfaces=chosen), now=time.time())
        assert not world.sends(LISTED)
        assert not world.sends(LISTED6)


@pytest.mark.parametrize(
    ("hooks", "here", "behind"),
    [
        (("input",), False, True),
        (("forward",), True, False),
        (("input", "forward"), False, False),
    ],
)
def test_chosen_hooks(
    backend: Backend, world: World, hooks: tuple[str, ...], *, here: bool, behind: bool
) -> None:
    """What is for this host, and what it only forwards."""
    backend.apply(Change(add=BOTH, rebuild=True), rules(hooks=hooks), now=time.time())
    for source in (LISTED, LISTED6):
        assert world.sends(source) is here
        assert world.sends(source, behind=True) is behind


@pytest.mark.parametrize("source", [LISTED, LISTED6])
@pytest.mark.parametrize("established", ["keep", "drop"])
def test_what_goes_on_when_a_source_is_listed(
    backend: Backend, world: World, source: str, established: str
) -> None:
    """A UDP flow and a TCP connection end with "drop" and go on with "keep"; new ones do not."""
    chosen = rules(established=established)
    backend.apply(Change(rebuild=True), chosen, now=time.time())
    target = (world.target(source), PORT)
    with (
        closing(world.listener(source)) as ear,
        closing(world.sender(source)) as mouth,
        closing(world.listener(source, protocol="tcp")) as door,
        closing(world.sender(source, "tcp")) as caller,
    ):
        for one in (ear, mouth, door, caller):
            one.settimeout(5)
        mouth.sendto(b"INVITE", target)
        _, back = ear.recvfrom(100)
        ear.sendto(b"200", back)
        assert mouth.recv(100) == b"200"
        caller.connect(target)
        with closing(door.accept()[0]) as call:
            backend.apply(Change(add={block(source): FOREVER}), chosen, now=time.time())
            mouth.sendto(b"BYE", target)
            caller.sendall(b"BYE")
            world.beacon(source)
            goes_on = established == "keep"
            assert readable(ear) is goes_on
            assert readable(call) is goes_on
    assert not world.sends(source, PORT + 1)
    assert not world.sends(source, PORT + 1, "tcp")


def test_shadow_counts_and_lets_pass(backend: Backend, world: World) -> None:
    """In shadow mode each packet that would be dropped is counted, and arrives."""
    backend.apply(Change(add=COUNTED_BOTH, rebuild=True), rules(drops=False), now=time.time())
    for source in (COUNTED, COUNTED, COUNTED6, *OTHERS):
        assert world.sends(source)
    counters = backend.counters()
    assert (counters["ipv4"].packets, counters["ipv6"].packets) == (2, 1)


def test_counters_count_what_was_dropped(backend: Backend, world: World) -> None:
    """Packets and bytes by family, single addresses and ranges; a change takes nothing away."""
    ranges = {block("203.0.113.0/24"): FOREVER}
    backend.apply(Change(add=COUNTED_BOTH | ranges, rebuild=True), rules(), now=time.time())
    for source in (COUNTED, "203.0.113.77", COUNTED6, *OTHERS):
        world.sends(source)
    change = Change(add={block("198.51.100.1"): FOREVER, block("10.0.0.0/8"): FOREVER})
    backend.apply(change, rules(), now=time.time())
    counters = backend.counters()
    hello = len(b"hello")
    assert (counters["ipv4"].packets, counters["ipv4"].bytes) == (2, 2 * (20 + 8 + hello))
    assert (counters["ipv6"].packets, counters["ipv6"].bytes) == (1, 40 + 8 + hello)


def test_no_gap(backend: Backend, world: World) -> None:
    """Some hundred packets a second all along 20 rebuilds and 20 changes: none gets through."""
    banned = BOTH | {block("203.0.113.0/24"): FOREVER}
    backend.apply(Change(add=banned, rebuild=True), rules(), now=time.time())
    done = threading.Event()
    sources = (LISTED, LISTED6, "203.0.113.9")
    sent = 0
    ears = [world.listener(source, PORT) for source in (LISTED, LISTED6)]
    mouths = [(world.sender(source), (world.target(source), PORT)) for source in sources]

    def flood() -> None:
        nonlocal sent
        while not done.wait(0.004):
            for mouth, target in mouths:
                mouth.sendto(b"flood", target)
                sent += 1

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for number in range(20):
            more = {(4, 1 << 24 | number, 1 << 24 | number): FOREVER}
            other = {(4, number << 24, (number + 1 << 24) - 1): FOREVER}
            backend.apply(
                Change(add=banned | more, rebuild=True),
                rules(established=("keep", "drop")[number % 2]),
                now=time.time(),
            )
            ends = {one: int(time.time()) + 100 + number for one in banned}
            backend.apply(Change(add=other, extend=ends), rules(), now=time.time())
    finally:
        done.set()
        thread.join()
        for mouth, _ in mouths:
            mouth.close()
    world.beacon(LISTED)
    world.beacon(LISTED6)
    arrived = [readable(ear) for ear in ears]
    for ear in ears:
        ear.close()
    assert sent > 100
    assert arrived == [False, False]
