"""The never-list: networks that nothing may list, from a file that the operator edits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from apiban.address import Network
from apiban.errors import ApibanError
from apiban.feed.server.listfile import read_list
from apiban.feed.server.ranges import Ranges
from apiban.settings.watch import FileWatch

__all__ = ["SHIPPED", "NeverList"]

# Public resolvers and some carriers: where an operator begins.
SHIPPED: Final = Path(__file__).with_name("never-list.txt")

Say = Callable[..., None]


class NeverList:
    """The networks of one file, read again when it was changed.

    A change that cannot be read is said, and the last good list stays.

    Raises:
        ApibanError: the file cannot be read at the start.

    """

    def __init__(self, path: Path | None, log: Say) -> None:
        self._path = path or SHIPPED
        self._log = log
        self._watch = FileWatch(self._path)
        self._ranges = Ranges(read_list(self._path))

    def refresh(self) -> bool:
        """Read the file again if it is another one; tell whether the list changed."""
        if not self._watch.changed():
            return False
        try:
            self._ranges = Ranges(read_list(self._path))
        except ApibanError as error:
            self._log("never-list-refused", reason=error, effect="the last good one stays")
            return False
        self._log("never-list", networks=len(self._ranges))
        return True

    def overlaps(self, network: Network) -> bool:
        """Tell whether a network has an address in common with the list."""
        return self._ranges.overlaps(network)
