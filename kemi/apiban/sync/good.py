"""Listed sources of which a phone registered or a call was answered, while in mode shadow.

They stand in ``runtime/good.json``, for the command line: the sync process writes it whole and by
rename. An operator looks at it before turning ``enforce`` on: each may be a mistake of the list.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from apiban.sync.document import put_document

__all__ = ["Good", "GoodSources", "good_path", "read_good"]

_MOST: Final = 1000
_LARGEST: Final = 1 << 20

What = Literal["registered", "called"]


@dataclass(frozen=True, slots=True)
class Good:
    """``what`` a source did with success, and when last, in seconds since 1970."""

    source: str
    what: What
    at: float


class GoodSources:
    """The latest thousand of them; what an earlier process wrote is taken over."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], float] | None = None

    def note(self, runtime: Path, source: str, what: str, at: float) -> None:
        """Add one; a file that cannot be written is left as it is."""
        path = good_path(runtime)
        if self._known is None:
            self._known = {(one.source, one.what): one.at for one in reversed(read_good(path))}
        self._known.pop((source, what), None)
        self._known[source, what] = at
        while len(self._known) > _MOST:
            del self._known[next(iter(self._known))]
        rows = [
            {"source": source, "what": what, "at": at}
            for (source, what), at in reversed(self._known.items())
        ]
        with contextlib.suppress(OSError):
            put_document(path, rows)


def good_path(runtime: Path) -> Path:
    """Give where the record is."""
    return runtime / "good.json"


def read_good(path: Path) -> list[Good]:
    """Give the latest first; none when there is no record that this version can read."""
    try:
        with path.open("rb") as file:
            rows = json.loads(file.read(_LARGEST))
        return [Good(str(row["source"]), row["what"], float(row["at"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []
