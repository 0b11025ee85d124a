"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level", "fail", "note", "ok", "warn"]

Level = Literal["ok", "note", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: ``what`` is there; ``mend`` is what to do about it, empty where nothing is.

    A ``note`` is what could not be looked at, or need not be mended.
    """

    check: str
    level: Level
    what: str
    mend: str = ""


def ok(check: str, what: str) -> Finding:
    """Give what is as it must be."""
    return Finding(check, "ok", what)


def note(check: str, what: str, mend: str = "") -> Finding:
    """Give what is neither good nor bad."""
    return Finding(check, "note", what, mend)


def warn(check: str, what: str, mend: str) -> Finding:
    """Give what works now, and should be mended."""
    return Finding(check, "warn", what, mend)


def fail(check: str, what: str, mend: str) -> Finding:
    """Give what does not work."""
    return Finding(check, "fail", what, mend)
