from collections.abc import Sequence
from types import SimpleNamespace

import ifaddr
import pytest
from apiban.address import parse_network
from apiban.sync.own import own_addresses
from apiban.sync.sanity import sift

from tests.unit.sync.world import feed_settings


@pytest.mark.parametrize(
    "text",
    [
        "192.0.2.1",
        "8.8.8.8",
        "172.15.255.255",
        "172.32.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "223.255.255.255",
        "1.0.0.0",
        "198.18.0.0/16",
        "2001:db8::1",
        "2001:db8::/32",
        "::2",
        "fbff:ffff::1",
        "fe00::1",
        "fec0::1",
    ],
)
def test_what_can_be_a_scanner_is_taken(text: str) -> None:
    """Addresses just outside every private range, and the widest blocks, are taken."""
    network = parse_network(text)
    assert sift([network], feed_settings()) == ([network], [])


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "0.255.255.255",
        "10.0.0.0",
        "10.255.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.0",
        "172.31.255.255",
        "192.168.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "10.1.0.0/16",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::/32",
        "fc00::1",
        "fdff::1",
        "fe80::1",
        "febf::1",
        "ff02::1",
    ],
)
def test_private_and_reserved_are_refused_unless_allowed(text: str) -> None:
    """Each end of each range; a lab's setting lets them through."""
    network = parse_network(text)
    taken, refused = sift([network], feed_settings())
    assert taken == []
    assert [(one.network, one.reason) for one in refused] == [(network, "private or reserved")]
    assert sift([network], feed_settings(accept_private=True)) == ([network], [])


@pytest.mark.parametrize(
    ("text", "broad"),
    [
        ("198.50.0.0/15", "broader than /16"),
        ("0.0.0.0/0", "broader than /16"),
        ("2000::/31", "broader than /32"),
        ("::/0", "broader than /32"),
    ],
)
def test_broad_prefix_is_refused_whatever_is_accepted(text: str, broad: str) -> None:
    """No feed bans half the internet, also where private ranges are accepted."""
    for settings in (feed_settings(), feed_settings(accept_private=True)):
        taken, refused = sift([parse_network(text)], settings)
        assert taken == []
        assert [one.reason for one in refused] == [broad]


@pytest.mark.parametrize(
    ("text", "refused"), [("8.0.0.0/5", True), ("172.0.0.0/11", True), ("16.0.0.0/5", False)]
)
def test_block_around_a_private_range_is_refused(text: str, *, refused: bool) -> None:
    """Where a setting allows such width, a block that touches a private range is refused still."""
    assert bool(sift([parse_network(text)], feed_settings(widest_ipv4=1))[1]) == refused


def test_the_rest_of_a_page_is_taken() -> None:
    """One bad entry does not cost the others their place or their order."""
    page = [parse_network(text) for text in ("192.0.2.9", "10.0.0.1", "192.0.2.1", "0.0.0.0/0")]
    taken, refused = sift(page, feed_settings())
    assert taken == [page[0], page[2]]
    assert [one.network for one in refused] == [page[1], page[3]]


def test_own_addresses_are_single_hosts_of_every_interface(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Never a subnet; IPv6 scopes are cut off; what is no address is left out."""
    ips = ["192.0.2.1", ("2001:db8::1", 0, 0), ("fe80::1%eth0", 0, 2), "not-an-address"]
    adapters = [SimpleNamespace(ips=[SimpleNamespace(ip=ip, network_prefix=24)]) for ip in ips]

    def get(*_: object) -> Sequence[object]:
        return adapters

    monkeypatch.setattr(ifaddr, "get_adapters", get)
    own = own_addresses()
    assert [str(network) for network in own] == ["192.0.2.1", "2001:db8::1", "fe80::1"]
    assert all(network.is_host for network in own)


def test_this_host_has_loopback() -> None:
    """The real look-up works, and finds what every host has."""
    assert parse_network("127.0.0.1") in own_addresses()
