"""How the commands show things."""

from __future__ import annotations

import pytest
from apiban.cli.show import ago, cut, many, printable, rate, span, until_when

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (-5, "0 s"),
        (59.6, "60 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (172_799, "48 h"),
        (172_800, "2 d"),
        (7 * 86400 - 1, "7 d"),
        (4000 * 86400, "4,000 d"),
    ],
)
def test_a_span_has_one_unit(seconds: float, shown: str) -> None:
    """The one in which it is easily read."""
    assert span(seconds) == shown


def test_times_are_shown_beside_now() -> None:
    """Before, after, at it, and never."""
    assert ago(NOW - 10_800, NOW) == "3 h ago"
    assert ago(NOW + 12, NOW) == "in 12 s"
    assert ago(NOW + 0.5, NOW) == "now"
    assert ago(None, NOW) == "never"
    assert until_when(NOW + 3600, NOW) == "2027-01-15 09:00:00 UTC (in 60 min)"
    assert until_when(None, NOW) == "for good"


def test_numbers_are_shown_with_their_noun() -> None:
    """One of it, or more."""
    assert many(1, "entry", "entries") == "1 entry"
    assert many(12_000, "entry", "entries") == "12,000 entries"
    assert many(0, "change") == "0 changes"
    assert [rate(0), rate(0.25), rate(9.96), rate(1234.5)] == ["0", "0.2", "10.0", "1,234"]


def test_a_text_cannot_command_the_terminal() -> None:
    """Escapes, line breaks and marks that turn the text around are shown, not done."""
    assert printable("a\x1b[31m\nb\u202ec é") == "a\\x1b[31m\\nb\\u202ec é"


def test_a_cut_text_shows_that_it_was() -> None:
    """And is never longer than asked."""
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abc..."
