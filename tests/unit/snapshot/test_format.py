import ipaddress
import struct
import zlib

import pytest
from apiban.errors import SnapshotError
from apiban.settings import Mode
from apiban.snapshot import Origin, Snapshot, compile_ranges, encode_snapshot
from apiban.snapshot.compile import Range
from apiban.snapshot.format import FOREVER
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.snapshot.parts import END, only, sample

_HEADER, _INDEX = 64, 4 * 65537
_TOP4 = 2**32 - 1
_TOP64 = 2**64 - 1
_number4 = st.sampled_from([0, 1, 2, 255, 256, 2**31 - 1, 2**31, _TOP4 - 1, _TOP4])
# Few halves, so that many share the high one; none makes an IPv4-mapped address.
_high6 = st.sampled_from([0, 1, 0x2001_0DB8_0000_0000, _TOP64 - 1, _TOP64])
_low6 = st.sampled_from([0, 1, 2, 2**63, _TOP64 - 1, _TOP64])
_number6 = st.tuples(_high6, _low6).map(lambda halves: halves[0] << 64 | halves[1])


def _bans(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[list[Range]]:
    ends = st.tuples(numbers, numbers).map(sorted)
    ends_at, origins = st.sampled_from([1, END, FOREVER]), st.sampled_from(list(Origin))
    ban = st.tuples(ends, ends_at, origins).map(lambda t: (*t[0], *t[1:]))
    return st.lists(ban, max_size=8)


def _longest(bans: list[Range], number: int) -> tuple[int, int] | None:
    """Give the expiry and the origin of the ban that holds: of equal ones the lowest origin's."""
    found = [(-expires, by) for first, last, expires, by in bans if first <= number <= last]
    return (-min(found)[0], min(found)[1]) if found else None


def _open(content: bytes) -> Snapshot:
    return Snapshot(memoryview(content))


@given(_bans(_number4), st.lists(_number4, max_size=8))
def test_ipv4_look_up_is_that_of_a_plain_list(bans: list[Range], asked: list[int]) -> None:
    """Each address, those next to an end too, has its longest ban and its origin, or none."""
    ranges = compile_ranges(sorted(bans, key=lambda ban: ban[0]), [])
    snapshot = _open(
        encode_snapshot(generation=1, created=0, mode=Mode.ENFORCE, ipv4=ranges, ipv6=[])
    )
    for number in {*asked, *_around(bans, _TOP4)}:
        assert snapshot.find(str(ipaddress.IPv4Address(number))) == _longest(bans, number)


@given(_bans(_number6), st.lists(_number6, max_size=8))
def test_ipv6_look_up_is_that_of_a_plain_list(bans: list[Range], asked: list[int]) -> None:
    """Two columns of halves sort and compare as one number of 128 bits."""
    ranges = compile_ranges(sorted(bans, key=lambda ban: ban[0]), [])
    snapshot = _open(
        encode_snapshot(generation=1, created=0, mode=Mode.ENFORCE, ipv4=[], ipv6=ranges)
    )
    for number in {*asked, *_around(bans, 2**128 - 1)}:
        assert snapshot.find(str(ipaddress.IPv6Address(number))) == _longest(bans, number)


def _around(bans: list[Range], top: int) -> set[int]:
    near = {end + step for first, last, *_ in bans for end in (first, last) for step in (-1, 0, 1)}
    return {number for number in near if 0 <= number <= top}


def test_families_do_not_mix() -> None:
    """A ban of 0.0.0.1 says nothing of ::1, and the other way round."""
    ipv4 = encode_snapshot(generation=1, created=0, mode=Mode.OFF, ipv4=[(1, 1, 9, 2)], ipv6=[])
    ipv6 = encode_snapshot(generation=1, created=0, mode=Mode.OFF, ipv4=[], ipv6=[(1, 1, 9, 1)])
    assert (_open(ipv4).find("0.0.0.1"), _open(ipv4).find("::1")) == ((9, 2), None)
    assert (_open(ipv6).find("0.0.0.1"), _open(ipv6).find("::1")) == (None, (9, 1))
    assert (_open(ipv6).expires("0.0.0.1"), _open(ipv6).expires("::1")) == (0, 9)


@pytest.mark.parametrize(
    "spelling",
    ["2001:db8::1", "2001:DB8::1", "[2001:db8::1]", "2001:0db8:0:0:0:0:0:1"],
)
def test_every_spelling_of_ipv6_is_found(spelling: str) -> None:
    """Kamailio's ipv6_hex_style and brackets change nothing."""
    assert _open(sample()).expires(spelling) == END


@pytest.mark.parametrize("spelling", ["::ffff:192.0.2.1", "::FFFF:c000:201", "[::ffff:192.0.2.1]"])
def test_mapped_address_is_the_ipv4_address(spelling: str) -> None:
    """A dual-stack listener shows IPv4 sources as mapped ones."""
    assert _open(sample()).expires(spelling) == END


@pytest.mark.parametrize(
    "text", ["", "x", "192.0.2.1 ", "192.0.2", "192.0.2.1/32", "192.0.2.1\0", "fe80::1%eth0", "é"]
)
def test_what_is_no_address_is_not_banned(text: str) -> None:
    """The look-up never raises."""
    assert _open(sample()).find(text) is None
    assert _open(sample()).expires(text) == 0


def test_header_comes_back() -> None:
    """What was encoded is what the reader sees, the ranges too."""
    snapshot = _open(sample(generation=2**40, mode=Mode.SHADOW))
    snapshot.verify()
    assert snapshot.generation == 2**40
    assert snapshot.mode is Mode.SHADOW
    assert snapshot.created == 1_800_000_000
    assert len(snapshot) == 5
    assert [family for family, _ in snapshot.ranges()] == [4, 4, 4, 6, 6]
    listed = {str(ipaddress.ip_address(first)) for family, (first, *_) in snapshot.ranges()}
    assert listed >= {"192.0.2.1", "2001:db8::1"}


def test_ranges_come_back_with_their_origins() -> None:
    """Of both families, whatever the lengths of the columns are."""
    ipv4 = [(n, n, END, n % 3) for n in range(5)]
    ipv6 = [(n, n, END, (n + 1) % 3) for n in range(7)]
    snapshot = _open(
        encode_snapshot(generation=1, created=0, mode=Mode.ENFORCE, ipv4=ipv4, ipv6=ipv6)
    )
    snapshot.verify()
    assert list(snapshot.ranges()) == [(4, one) for one in ipv4] + [(6, one) for one in ipv6]


def test_empty_snapshot_bans_nobody() -> None:
    """No range at all is a snapshot too."""
    snapshot = _open(only())
    snapshot.verify()
    assert len(snapshot) == 0
    assert snapshot.expires("192.0.2.1") == 0
    assert snapshot.expires("::1") == 0


def test_cut_short_anywhere_is_refused() -> None:
    """Whatever the length that is left, the header and the size betray it."""
    content = sample()
    for length in range(len(content)):
        with pytest.raises(SnapshotError):
            _open(content[:length])


@pytest.mark.parametrize("extra", [1, 4, 8, 4096])
def test_longer_than_it_says_is_refused(extra: int) -> None:
    """Bytes after the end are no part of what was written."""
    with pytest.raises(SnapshotError):
        _open(sample() + bytes(extra))


def test_any_flipped_bit_of_the_header_is_refused() -> None:
    """A reader that checks the header alone cannot be led astray by one bit of it."""
    content = bytearray(sample())
    for bit in range(_HEADER * 8):
        content[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SnapshotError):
            _open(bytes(content))
        content[bit // 8] ^= 1 << bit % 8


def test_any_flipped_bit_of_the_body_is_found_by_verify() -> None:
    """The publisher and the start read every byte."""
    content = bytearray(sample())
    # The index has two million bits: one in about three words of it, and all of the rest.
    index = range(_HEADER * 8, (_HEADER + _INDEX) * 8, 89)
    for bit in (*index, *range((_HEADER + _INDEX) * 8, len(content) * 8)):
        content[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SnapshotError):
            _open(bytes(content)).verify()
        content[bit // 8] ^= 1 << bit % 8


def _signed(content: bytes, at: int, word: bytes) -> bytes:
    """Change the header and sign it again, as another version would write it."""
    header = bytearray(content[:_HEADER])
    header[at : at + len(word)] = word
    header[-4:] = struct.pack("=I", zlib.crc32(header[:-4]))
    return bytes(header) + content[_HEADER:]


@pytest.mark.parametrize(
    ("at", "word", "said"),
    [
        pytest.param(0, b"OTHERMAG", "not a snapshot", id="magic"),
        pytest.param(8, struct.pack("=I", 99), "format 99", id="format"),
        pytest.param(12, struct.pack("=I", 9), "damaged", id="mode"),
        pytest.param(32, struct.pack("=I", 2**32 - 1), "cut short", id="ipv4-count"),
        pytest.param(36, struct.pack("=I", 2**32 - 1), "cut short", id="ipv6-count"),
    ],
)
def test_well_signed_but_unusable_header_is_refused(at: int, word: bytes, said: str) -> None:
    """Another version's file, or one that lies about its size, is named as what it is."""
    with pytest.raises(SnapshotError, match=said):
        _open(_signed(sample(), at, word))
