"""How the page writes texts, numbers and times."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["ago", "amount", "compact", "time", "visible"]

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def visible(text: str) -> str:
    """Show what has no look of its own: control characters, and those that turn text around.

    What came in a packet may hold any.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


def amount(value: float) -> str:
    """Write a count with its thousands apart."""
    return f"{value:,.0f}"


def compact(value: float) -> str:
    """Write a count for an axis: 1500 is "1.5k"."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:,.3g}{unit}" if value < 1e15 else f"{value:.0e}"
    return f"{value:g}"


def time(at: float | None, pattern: str = "%Y-%m-%d %H:%M") -> str:
    """Write a time, in seconds since 1970, in UTC; None is "never"."""
    if at is None:
        return "never"
    try:
        return datetime.fromtimestamp(at, UTC).strftime(pattern)
    except (OverflowError, ValueError, OSError):
        return "?"


def ago(at: float | None, now: float) -> str:
    """Write how long ago a time was."""
    if at is None:
        return "never"
    for seconds, unit in _UNITS:
        if now - at >= seconds:
            return f"{int((now - at) // seconds)} {unit} ago"
    return "now"
