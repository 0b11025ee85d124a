import ipaddress
import random
from ipaddress import IPv4Address, IPv6Address

import pytest
from apiban.address import pack
from apiban.errors import AddressError, ApibanError
from hypothesis import given
from hypothesis import strategies as st

NOT_ADDRESSES = [
    "",
    " ",
    "localhost",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.256",
    "01.2.3.4",
    "1.2.3.04",
    "0x1.2.3.4",
    "16909060",
    "1.2.3.4\n",
    " 1.2.3.4",
    "1.2.3.4\0",
    "\u0661.2.3.4",
    "1.2.3.4:5060",
    "1.2.3.4/32",
    "[1.2.3.4]",
    ":",
    ":::",
    "::g",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1::2::3",
    "12345::",
    "::ffff:1.2.3.256",
    "fe80::1%eth0",
    "::1/128",
    "[::1]:5060",
    "\ud800",
    "\ud800:",
]


def _mixed_case(text: str, seed: int) -> str:
    choose = random.Random(seed)
    return "".join(choose.choice((one.lower(), one.upper())) for one in text)


@st.composite
def spellings_of_ipv6(draw: st.DrawFn) -> tuple[str, bytes]:
    """Give an IPv6 address that is no mapped one, in any spelling, and its 16 bytes."""
    address = draw(st.ip_addresses(v=6).filter(lambda one: one.ipv4_mapped is None))
    last_four = IPv4Address(int(address) & 0xFFFFFFFF)
    high = address.exploded.rsplit(":", 2)[0]
    text = draw(st.sampled_from([address.compressed, address.exploded, f"{high}:{last_four}"]))
    text = _mixed_case(text, draw(st.integers(0, 99)))
    return draw(st.sampled_from([text, f"[{text}]"])), address.packed


@st.composite
def spellings_of_ipv4(draw: st.DrawFn) -> tuple[str, bytes]:
    """Give an IPv4 address, plain or mapped into IPv6 in any spelling, and its 4 bytes."""
    address = draw(st.ip_addresses(v=4))
    mapped = IPv6Address(0xFFFF << 32 | int(address))
    forms = [f"::ffff:{address}", f"0:0:0:0:0:ffff:{address}", mapped.compressed, mapped.exploded]
    text = _mixed_case(draw(st.sampled_from(forms)), draw(st.integers(0, 99)))
    return draw(st.sampled_from([str(address), text, f"[{text}]"])), address.packed


@given(spellings_of_ipv4() | spellings_of_ipv6())
def test_every_spelling_gives_the_same_bytes(spelling: tuple[str, bytes]) -> None:
    """Upper case, exploded, brackets, dotted tail and ::ffff: are spellings, not other hosts."""
    text, packed = spelling
    assert pack(text) == packed


@given(st.text(alphabet="0123456789abcdefABCDEF:.x /", max_size=45) | st.text(max_size=20))
def test_any_text_is_judged_as_the_standard_library_does(text: str) -> None:
    """What ``ipaddress`` takes is packed like it packs; what it refuses is refused."""
    try:
        wanted = ipaddress.ip_address(text)
    except ValueError:
        with pytest.raises(AddressError):
            pack(text)
        return
    mapped = wanted.ipv4_mapped if isinstance(wanted, IPv6Address) else None
    assert pack(text) == (mapped or wanted).packed


@pytest.mark.parametrize("text", NOT_ADDRESSES)
def test_what_is_no_address_is_refused(text: str) -> None:
    """Ports, scopes, leading zeros, spaces and other scripts' digits make no address."""
    with pytest.raises(AddressError):
        pack(text)


def test_error_is_one_of_ours_and_a_value_error() -> None:
    """Callers may catch it by either of its roots."""
    with pytest.raises(AddressError) as caught:
        pack("nonsense")
    assert isinstance(caught.value, ApibanError)
    assert isinstance(caught.value, ValueError)
    assert "'nonsense'" in str(caught.value)


def test_error_is_short_and_on_one_line() -> None:
    """A packet or a page with a huge text, or a line break in it, gives a short line."""
    with pytest.raises(AddressError) as caught:
        pack("x\n\x1b" * 100_000)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "size"), [("::ffff:0.0.0.0", 4), ("::fffe:1.2.3.4", 16), ("::1.2.3.4", 16)]
)
def test_only_the_mapped_block_becomes_ipv4(text: str, size: int) -> None:
    """Neighbours of ::ffff:0:0/96, and the old IPv4-compatible block, stay IPv6."""
    assert len(pack(text)) == size
