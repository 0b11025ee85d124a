import pytest
from apiban.feed.server.page.words import ago, amount, compact, time, visible
from hypothesis import given
from hypothesis import strategies as st


def test_control_characters_are_seen() -> None:
    """A terminal's escape, a zero byte and a turn of direction are spelled out."""
    assert visible("a\x1b[31m\x00\u202e\u200bb") == "a\\x1b[31m\\x00\\u202e\\u200bb"
    assert visible("Grüße 你好") == "Grüße 你好"


@given(st.text(st.characters()))
def test_everything_comes_out_printable(text: str) -> None:
    """Any text, lone surrogates as well."""
    assert visible(text).isprintable()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1000, "1k"), (1500, "1.5k"), (250_000, "250k"), (2_000_000, "2M"),
     (5 * 10**18, "5e+18")],
)  # fmt: skip
def test_axis_numbers_are_short(value: int, text: str) -> None:
    """With the unit that keeps them so."""
    assert compact(value) == text


def test_counts_have_their_thousands_apart() -> None:
    """Seven digits in a row nobody reads."""
    assert amount(1234567) == "1,234,567"


@pytest.mark.parametrize(
    ("at", "text"), [(0.0, "1970-01-01 00:00"), (None, "never"), (1e30, "?"), (float("nan"), "?")]
)
def test_times_are_in_utc(at: float | None, text: str) -> None:
    """And a time beyond all calendars breaks nothing."""
    assert time(at) == text


@pytest.mark.parametrize(
    ("at", "text"),
    [(None, "never"), (1000.0, "now"), (1005.0, "now"), (940.0, "1 min ago"),
     (1000.0 - 7200, "2 h ago"), (1000.0 - 86400 * 3, "3 d ago")],
)  # fmt: skip
def test_how_long_ago(at: float | None, text: str) -> None:
    """In the largest unit that fits; what is ahead of the clock is now."""
    assert ago(at, 1000.0) == text
