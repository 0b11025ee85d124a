"""The headers that the guard reads by itself: whatever comes, it is bounded and never raises."""

from __future__ import annotations

import time

import pytest
from apiban.kemi.headers import call_id, challenge, is_within_dialog
from hypothesis import given
from hypothesis import strategies as st

_TOKEN = st.text("abcXYZ019-.!%*_+`'~@[]<>:;/\"?", min_size=1, max_size=200)
_NAME = st.sampled_from(["Call-ID", "call-id", "CALL-ID", "i", "I"])
_BLANK = st.text(" \t", max_size=3)


def _message(*headers: str, first: str = "BYE sip:a@b SIP/2.0", end: str = "\r\n") -> str:
    return end.join([first, *headers, "", "v=0", "i: of-the-body", "t: <a>;tag=x"])


@given(_NAME, st.tuples(_BLANK, _BLANK, _BLANK), _TOKEN, st.sampled_from(["\r\n", "\n"]))
def test_call_id_is_read_in_all_its_forms(
    name: str, blanks: tuple[str, str, str], value: str, end: str
) -> None:
    """The long name and the compact one, in any case, with blanks around."""
    header = f"{name}{blanks[0]}:{blanks[1]}{value}{blanks[2]}"
    assert call_id(_message("Via: x", header, "To: <a>", end=end)) == value


@pytest.mark.parametrize(
    "message",
    [
        "",
        _message("To: <a>;tag=1"),  # what looks like one in the body is none
        _message("Call-ID: one", "i: two"),
        _message("Call-ID: one", "Call-ID: one"),
        _message("Call-ID:", " folded"),
        _message("Call-ID: a b"),
        _message("X-Call-ID: a"),
        _message("Call-ID: " + "x" * 257),
        _message("X: " + "y" * 20_000, "Call-ID: behind-too-much"),
    ],
)
def test_call_id_that_is_not_plain_is_none(message: str) -> None:
    """Two of them, none, a folded one, one that is too long or too far behind."""
    assert call_id(message) == ""


@given(st.text(max_size=3000))
def test_any_text_is_read(text: str) -> None:
    """Nothing raises; a Call-ID that is found is one word of the text."""
    for message in (text, _message(text)):
        found = call_id(message)
        assert found in message
        assert not set(found) & set(" \t\r\n")
        assert isinstance(is_within_dialog(message), bool)
        nonce, stale = challenge(text)
        assert nonce in text
        assert isinstance(stale, bool)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (_message("To: <sip:a@b>;tag=1"), True),
        (_message("t: sip:a@b ; Tag = 1"), True),
        (_message("To: <sip:a@b>;x=y;tag=1", end="\n"), True),
        (_message(first="SIP/2.0 200 OK"), True),
        (_message("To: <sip:a@b;tag=1>"), False),
        (_message('To: ";tag=1" <sip:a@b>'), False),
        (_message("To: <sip:a@b>;tag="), False),
        (_message("To: <sip:a@b>"), False),
        (_message("To: <a>;tag=1", "t: <a>;tag=1"), False),
        (_message(), False),
    ],
)
def test_dialog_is_told_by_the_tag_of_to(message: str, expected: bool) -> None:  # noqa: FBT001
    """A reply, or a request whose one To has a tag outside of its URI."""
    assert is_within_dialog(message) is expected


@given(st.text("abc019-_=+/.", min_size=1, max_size=256), st.booleans(), st.booleans())
def test_challenge_is_read(nonce: str, stale: bool, first: bool) -> None:  # noqa: FBT001
    """Wherever the nonce stands, and whether the last one was stale."""
    parts = ['realm="a, nonce here"', f'nonce="{nonce}"', f"stale={str(stale).upper()}"]
    value = "Digest " + ", ".join(parts if first else reversed(parts))
    assert challenge(value) == (nonce, stale)


@pytest.mark.parametrize(
    "value", ["", 'Basic nonce="x"', 'Digest cnonce="x"', 'Digest nonce=""', 'Digest nonce="a']
)
def test_no_challenge(value: str) -> None:
    """Another scheme, another field, an empty or an open one."""
    assert challenge(value)[0] == ""


@pytest.mark.parametrize("unit", ["i:", "\ni: ", "t:;tag", "\nt:" + ";tag " * 8, "\t", 'nonce="'])
def test_time_does_not_grow_with_the_square(unit: str) -> None:
    """A message that was made to be slow takes no longer than a few milliseconds."""
    message = unit * (65_535 // len(unit))
    began = time.perf_counter()
    call_id(message)
    is_within_dialog(message)
    challenge("Digest " + message)
    assert time.perf_counter() - began < 0.25
