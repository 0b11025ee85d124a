"""A text that must not be shown, and the check that others cannot read its file."""

from __future__ import annotations

import os
import stat
from typing import Final

__all__ = ["Secret", "readable_by_others"]

_MASK: Final = "********"


class Secret:
    """The API key. Its text comes out of ``reveal()`` alone, never out of str, repr or format."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """Give the text itself: for the request that needs it, and for nothing else."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"Secret('{_MASK if self._text else ''}')"

    def __str__(self) -> str:
        return _MASK if self._text else ""

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Secret is not to be pickled")


def readable_by_others(status: os.stat_result) -> bool:
    """Tell whether users outside the file's owner and group can read it."""
    return bool(status.st_mode & stat.S_IROTH)
