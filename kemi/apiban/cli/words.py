"""What several commands take and give: durations, times, tables of text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

import click

from apiban.address import Network, parse_network
from apiban.errors import AddressError

__all__ = ["ADDRESS", "DURATION", "Kind", "table", "when"]

T = TypeVar("T")

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Kind(click.ParamType, Generic[T]):  # type: ignore[type-arg]
    """A kind of argument; click has no subscript here before 8.2, and Debian 12 has 8.1."""


class _Duration(Kind[float]):
    """A length of time: 90, 90s, 30m, 12h, 7d, 2w."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Give the seconds."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"([0-9]{1,9})([smhdw]?)", str(value))
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is no length of time such as 90s, 30m, 12h or 7d", param, ctx)
        return float(int(match[1]) * _UNITS[match[2] or "s"])


class _Address(Kind[Network]):
    """An address, or a network in CIDR form."""

    name = "address"

    def convert(self, value: Any, param: Any, ctx: Any) -> Network:
        """Give the network."""
        if isinstance(value, Network):
            return value
        try:
            return parse_network(value)
        except AddressError as error:
            self.fail(str(error), param, ctx)


DURATION: Final = _Duration()
ADDRESS: Final = _Address()


def when(at: float | None) -> str:
    """Show a time in UTC."""
    if at is None:
        return "-"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay rows out below their heads, in columns as wide as they must be."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in (head, *texts)) for at in range(len(head))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *texts)
    )
    return "\n".join(lines)
