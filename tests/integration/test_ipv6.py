"""IPv6 between two network namespaces that the test makes: one for the node, one for sources."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from apiban.trial.kamailio import CONFIGURATION

from tests.support.node import NodeUnderTest, wait_for

pytestmark = pytest.mark.kamailio

NODE, NODE4 = "2001:db8:1::1", "10.99.0.1"
LISTED, IN_BLOCK, SAVED, GOOD = "2001:db8:2::5", "2001:db8:3::9", "2001:db8:3::7", "2001:db8:4::1"
LISTED4, GOOD4 = "10.99.0.5", "10.99.0.6"
BLOCK = "2001:db8:3::/48"


@contextmanager
def inside(network: str) -> Iterator[None]:
    """Move this thread, and what it starts meanwhile, into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    here, other = Path("/proc/thread-self/ns/net"), Path("/run/netns") / network
    with here.open() as outside, other.open() as there:
        assert libc.setns(there.fileno(), 0) == 0, "a network namespace is needed (run as root)"
        try:
            yield
        finally:
            assert libc.setns(outside.fileno(), 0) == 0


def ip(*words: str, network: str = "") -> None:
    """Run one ip command, in a network if one is named.

    (``ip -n`` would remount /sys, which a plain chroot does not allow.)
    """
    inside = ["nsenter", f"--net=/run/netns/{network}"] if network else []
    subprocess.run([*inside, "ip", *words], check=True)


@pytest.fixture
def networks() -> Iterator[tuple[str, str]]:
    """Make the node's network and the sources', with a cable between them."""
    ours, theirs = (f"apiban-{os.getpid()}-{end}" for end in ("node", "out"))
    ip("netns", "add", ours)
    ip("netns", "add", theirs)
    try:
        ip(*["link", "add", "eth0", "type", "veth", "peer", "eth0", "netns"], theirs, network=ours)
        for network, addresses in (
            (ours, (f"{NODE}/32", f"{NODE4}/24")),
            (theirs, (*(f"{a}/32" for a in (LISTED, IN_BLOCK, SAVED, GOOD)), f"{LISTED4}/24")),
        ):
            ip("link", "set", "lo", "up", network=network)
            ip("link", "set", "eth0", "up", network=network)
            for address in addresses:
                extra = ["nodad"] if ":" in address else []
                ip("addr", "add", address, "dev", "eth0", *extra, network=network)
        ip("addr", "add", f"{GOOD4}/24", "dev", "eth0", network=theirs)
        yield ours, theirs
    finally:
        ip("netns", "del", ours)
        ip("netns", "del", theirs)


def node_with(
    make_node: Callable[..., NodeUnderTest],
    folder: Path,
    style: str,
    listen: Iterable[str] = (f"udp:[{NODE}]:5060", f"tcp:[{NODE}]:5060", f"udp:{NODE4}:5060"),
) -> NodeUnderTest:
    """Make a node on IPv6 that lists a host and a block, with one address of the block allowed."""
    path = folder / "edge.cfg"
    path.write_text(f'#!KAMAILIO\ninclude_file "{CONFIGURATION}"\n{style}\n', encoding="utf-8")
    # The namespace is ours: any port is free.
    node = make_node((LISTED, BLOCK, LISTED4), configuration=path, listen=listen)
    node.target = (NODE, 5060)
    node.write_settings(allow__networks=[SAVED])
    return node


@pytest.mark.parametrize("style", ["", 'ipv6_hex_style="A"'], ids=["default", "uppercase"])
def test_ipv6_hosts_and_blocks(
    networks: tuple[str, str],
    make_node: Callable[..., NodeUnderTest],
    tmp_path: Path,
    style: str,
) -> None:
    """A listed host and a block are dropped in any spelling; the allowed one inside is served."""
    ours, theirs = networks
    with inside(ours):
        node = node_with(make_node, tmp_path, style).start()
    with inside(theirs):
        for transport in ("udp", "tcp"):
            for source in (LISTED, IN_BLOCK):
                assert node.is_dropped(source, transport)
            for source in (SAVED, GOOD):
                assert node.ask(source, transport).startswith(b"SIP/2.0 ")
        node.target = (NODE4, 5060)
        assert node.is_dropped(LISTED4)
        assert node.passes(GOOD4)


def test_mapped_ipv4_on_a_dual_stack_socket(
    networks: tuple[str, str], make_node: Callable[..., NodeUnderTest], tmp_path: Path
) -> None:
    """A dual-stack listener shows IPv4 as ::ffff:..., and the IPv4 list counts for it."""
    ours, theirs = networks
    with inside(ours):
        node = node_with(make_node, tmp_path, "", listen=["udp:[::]:5060"]).start()
    node.target = (NODE4, 5060)
    with inside(theirs):
        assert node.is_dropped(LISTED4)
        assert "::ffff:" in node.events("first-drop")[-1]
        before = node.board.total()
        node.ask(GOOD4, timeout=0.3)
        wait_for(lambda: node.board.total().passed == before.passed + 1, "the count")
