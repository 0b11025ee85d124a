"""What the feed lists, in the order of listing: each listing has an ID that is never used again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from apiban.address import Network, parse_network
from apiban.errors import AddressError, ApibanError

__all__ = ["Catalog", "read_list"]

PAGE: Final = 250


def read_list(path: Path) -> list[Network]:
    """Read a plain list: an address or a network a line, ``#`` begins a comment.

    Raises:
        ApibanError: the file cannot be read, or a line (which it names) is neither.

    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ApibanError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ApibanError(f"{path}: is not UTF-8 text") from None
    found: dict[Network, None] = {}
    for number, text in enumerate(lines, start=1):
        word = text.partition("#")[0].strip()
        if not word:
            continue
        try:
            found[parse_network(word)] = None
        except AddressError as error:
            raise ApibanError(f"{path}, line {number}: {error}") from None
    return list(found)


class Catalog:
    """The active listings, oldest first.

    The first ID comes from the clock, in microseconds: a client that kept its cursor over a
    restart of the service gets everything once more, and misses nothing. (A clock set back
    between the two would break that; the service of its own keeps no state.)
    """

    def __init__(self, networks: Iterable[Network], *, now: float) -> None:
        self._next = int(now * 1_000_000)
        self._ids: list[int] = []
        self._networks: list[Network] = []
        self._listed: dict[Network, int] = {}
        self._blocks: list[Network] = []
        self.replace(networks)

    def replace(self, networks: Iterable[Network]) -> None:
        """Make these the active ones: what stays keeps its ID, what is new gets one."""
        wanted = dict.fromkeys(networks)
        kept = [(number, one) for one, number in self._listed.items() if one in wanted]
        new = [one for one in wanted if one not in self._listed]
        numbered = sorted(kept) + [(self._next + at, one) for at, one in enumerate(new)]
        self._next += len(new)
        self._ids = [number for number, _ in numbered]
        self._networks = [one for _, one in numbered]
        self._listed = {one: number for number, one in numbered}
        self._blocks = [one for one in self._networks if not one.is_host]

    def after(self, cursor: int) -> tuple[list[Network], int]:
        """Give up to 250 networks listed after the ID, and the last one's ID; none at the end."""
        start = bisect_right(self._ids, cursor)
        page = self._networks[start : start + PAGE]
        return page, self._ids[start + len(page) - 1] if page else cursor

    def find(self, address: Network) -> int | None:
        """Give the ID of the listing that covers an address."""
        number = self._listed.get(address)
        if number is not None:
            return number
        for block in self._blocks:
            if block.family == address.family and block.first <= address.first <= block.last:
                return self._listed[block]
        return None

    def __len__(self) -> int:
        return len(self._ids)
