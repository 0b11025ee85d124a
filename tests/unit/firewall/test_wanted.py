"""What the kernel should hold, of a list."""

from __future__ import annotations

from apiban.address import Network, parse_network
from apiban.firewall.elements import FOREVER
from apiban.firewall.wanted import allowed_blocks, blocks_of, wanted_of
from apiban.settings import Mode
from apiban.snapshot import Snapshot, encode_snapshot
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_800_000_000.0
END = int(NOW) + 3600


def snapshot(*texts: str, end: int = END) -> Snapshot:
    """Make a list of these, all with one end."""
    found = sorted(parse_network(text) for text in texts)
    ranges = {
        family: [(one.first, one.last, end, 0) for one in found if one.family == family]
        for family in (4, 6)
    }
    content = encode_snapshot(
        generation=1, created=NOW, mode=Mode.ENFORCE, ipv4=ranges[4], ipv6=ranges[6]
    )
    return Snapshot(memoryview(content))


def texts(blocks: object) -> list[str]:
    """Show blocks."""
    return [str(Network(*block)) for block in sorted(blocks)]  # type: ignore[call-overload]


@given(
    st.sampled_from([4, 6]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1]),
)
def test_blocks_of_a_range(family: int, one: int, other: int, high: int) -> None:
    """They are CIDR blocks, one after the other, exactly the range; none has 2 to 8 addresses."""
    shift = high << 127 if family == 6 else 0
    first, last = min(one, other) + shift, max(one, other) + shift
    following = first
    for number, (_, begin, end) in enumerate(blocks_of(family, first, last)):  # type: ignore[arg-type]
        if number > 600:
            return
        assert begin == following
        size = end - begin + 1
        assert size & (size - 1) == 0
        assert begin % size == 0
        assert size == 1 or size > 8
        following = end + 1
    assert following == last + 1


def test_room_for_less_than_what_is_aligned() -> None:
    """A block ends where the range does, however well its first address is aligned."""
    assert list(blocks_of(4, 1 << 16, (1 << 16) + 47)) == [
        (4, 1 << 16, (1 << 16) + 31),
        (4, (1 << 16) + 32, (1 << 16) + 47),
    ]


def test_the_largest_blocks_there_are() -> None:
    """All of either family is one block."""
    assert list(blocks_of(4, 0, 2**32 - 1)) == [(4, 0, 2**32 - 1)]
    assert list(blocks_of(6, 0, 2**128 - 1)) == [(6, 0, 2**128 - 1)]


def test_small_blocks_are_single_addresses() -> None:
    """A /29 is eight addresses, a /28 a block."""
    wanted = wanted_of(snapshot("192.0.2.0/29", "198.51.100.0/28", "2001:db8::/126"), (), now=NOW)
    assert len(wanted.banned) == 8 + 1 + 4
    assert texts(wanted.banned)[-5:-4] == ["198.51.100.0/28"]
    assert set(wanted.banned.values()) == {END}


def test_ended_bans_and_those_for_good() -> None:
    """What has ended is not wanted; what never ends is."""
    assert wanted_of(snapshot("192.0.2.1", end=int(NOW)), (), now=NOW).banned == {}
    found = wanted_of(snapshot("192.0.2.1", end=FOREVER), (), now=NOW).banned
    assert list(found.values()) == [FOREVER]


def test_allowed_never_overlap() -> None:
    """Networks within others, and side by side, become the fewest blocks."""
    allowed = allowed_blocks(
        parse_network(text)
        for text in (
            "10.0.0.0/8",
            "10.1.2.3",
            "192.0.2.0/25",
            "192.0.2.128/25",
            "2001:db8::1",
            "::ffff:203.0.113.9",
        )
    )
    assert texts(allowed) == ["10.0.0.0/8", "192.0.2.0/24", "203.0.113.9", "2001:db8::1"]
