import dataclasses
import ipaddress
from ipaddress import IPv4Network, IPv6Network

import pytest
from apiban.address import Network, parse_address, parse_network
from apiban.errors import AddressError
from hypothesis import given
from hypothesis import strategies as st

MAPPED_BLOCK = IPv6Network("::ffff:0:0/96")

IPV4 = st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map(
    lambda pair: IPv4Network(pair, strict=False)
)
IPV6 = (
    st.tuples(st.ip_addresses(v=6), st.integers(0, 128))
    .map(lambda pair: IPv6Network(pair, strict=False))
    .filter(lambda block: not block.subnet_of(MAPPED_BLOCK))
)
BLOCKS = IPV4 | IPV6


@given(BLOCKS)
def test_block_survives_the_way_through_text(block: IPv4Network | IPv6Network) -> None:
    """The text of a Network reads back as that Network, and as the standard library's block."""
    network = parse_network(str(block))
    assert parse_network(str(network)) == network
    assert network.as_ipaddress() == block
    assert ipaddress.ip_network(str(network)) == block


@given(BLOCKS)
def test_range_is_the_whole_block(block: IPv4Network | IPv6Network) -> None:
    """First and last are inside; prefix and family are the block's."""
    network = parse_network(str(block))
    assert (network.first, network.last) == (int(block[0]), int(block[-1]))
    assert (network.family, network.prefix) == (block.version, block.prefixlen)
    assert network.is_host == (block.num_addresses == 1)


@given(IPV4)
def test_mapped_block_is_the_ipv4_block(block: IPv4Network) -> None:
    """::ffff:a.b.c.d/96+n and a.b.c.d/n are one and the same."""
    mapped = f"::ffff:{block.network_address}/{block.prefixlen + 96}"
    assert parse_network(mapped) == parse_network(str(block))


@given(st.ip_addresses())
def test_host_reads_the_same_as_address_and_as_network(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """A bare address is a network of one host, whichever function reads it."""
    assert parse_network(str(address)) == parse_address(str(address))
    assert parse_network(f"{address}/{address.max_prefixlen}") == parse_address(str(address))


@given(BLOCKS.filter(lambda block: block.num_addresses > 1), st.data())
def test_bits_beyond_the_prefix_are_refused(
    block: IPv4Network | IPv6Network, data: st.DataObject
) -> None:
    """10.0.0.1/8 says two things at once; neither is taken."""
    inside = data.draw(st.integers(1, block.num_addresses - 1))
    with pytest.raises(AddressError, match="host bits set"):
        parse_network(f"{block[inside]}/{block.prefixlen}")


def test_bits_beyond_a_mapped_prefix_are_refused() -> None:
    """The mapped spelling opens no way around it."""
    with pytest.raises(AddressError, match="host bits set"):
        parse_network("::ffff:10.0.0.1/104")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("  192.0.2.0/24\n", "192.0.2.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:C000:0201/128", "192.0.2.1"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
    ],
)
def test_spellings_have_one_text(text: str, shown: str) -> None:
    """However it was written, it is shown in one way."""
    assert str(parse_network(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/24",
        "192.0.2.0/",
        "192.0.2.0/33",
        "192.0.2.0/-1",
        "192.0.2.0/24/24",
        "192.0.2.0/\u0662\u0664",
        "192.0.2.0 /24",
        "192.0.2/24",
        "2001:db8::/129",
        "example.org/24",
        "no new bans",
    ],
)
def test_what_is_no_network_is_refused(text: str) -> None:
    """Half a network is none."""
    with pytest.raises(AddressError):
        parse_network(text)


@given(st.text(max_size=60) | st.text(alphabet="0123456789abcdef:./%[] ", max_size=60))
def test_any_text_gives_a_network_or_the_typed_error(text: str) -> None:
    """Nothing but AddressError comes out of reading what a feed or an operator wrote."""
    for read in (parse_network, parse_address):
        try:
            network = read(text)
        except AddressError:
            continue
        assert 0 <= network.first <= network.last < 2 ** (32 if network.family == 4 else 128)


@pytest.mark.parametrize("text", ["192.0.2.0/24", "192.0.2.1/32", "2001:db8::/32", "::1/128"])
def test_a_network_is_no_address(text: str) -> None:
    """Where one host is asked for, a block is refused, a block of one host too."""
    with pytest.raises(AddressError):
        parse_address(text)


def test_networks_sort_by_family_then_by_place() -> None:
    """The compiler sorts them: IPv4 before IPv6, then by first, then by last."""
    texts = ["10.0.0.0/8", "10.0.0.0/9", "9.9.9.9", "::1", "255.255.255.255"]
    shown = [str(one) for one in sorted(map(parse_network, texts))]
    assert shown == ["9.9.9.9", "10.0.0.0/9", "10.0.0.0/8", "255.255.255.255", "::1"]


def test_network_is_frozen() -> None:
    """It is a key of dictionaries; nobody changes it."""
    network = parse_network("192.0.2.0/24")
    with pytest.raises(dataclasses.FrozenInstanceError):
        network.last = 0  # type: ignore[misc]
    assert {network: 1}[Network(4, 0xC0000200, 0xC00002FF)] == 1
