"""The lists that a sync process published: which is the newest, and how far it knows the store."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from apiban.alive import is_alive
from apiban.clock import Clock
from apiban.errors import BoardError, SnapshotError
from apiban.firewall.trouble import Troubles
from apiban.gate.board import Board
from apiban.settings import FileWatch
from apiban.settings.model import PathSettings
from apiban.snapshot import Snapshot, load_snapshot
from apiban.snapshot.publish import durable_path, runtime_path
from apiban.sync.report import read_report, report_path

__all__ = ["Published", "published_position"]

_RETRY: Final = 5.0
_NONE_YET: Final = "there is no list yet: it is taken as soon as a sync process has made one"
_KEEPS: Final = "the kernel keeps what it holds"


class Published:
    """The files of the lists. ``begin`` names their folders."""

    def __init__(self, *, clock: Clock, troubles: Troubles) -> None:
        self._clock = clock
        self._troubles = troubles
        self._paths: PathSettings | None = None
        self._files: tuple[FileWatch, ...] = ()
        self._seen: tuple[tuple[Path, int, int], ...] = ()  # the lists that were read last
        self._changed = False
        self._read_from = 0.0  # an uptime

    def begin(self, paths: PathSettings) -> None:
        """Begin with these folders."""
        self._paths = paths
        self._files = (FileWatch(durable_path(paths.state)), FileWatch(paths.runtime))
        self._seen, self._read_from = (), 0.0

    def look(self) -> None:
        """See whether a file changed; it costs a few stats."""
        changes = [watch.changed() for watch in self._files]  # each of them looks
        self._changed = any(changes)

    def forget(self) -> None:
        """Read the lists the next time, whether they changed or not."""
        self._seen = ()

    def newest(self, generation: int | None) -> Snapshot | None:
        """Give the newest list; None while it is the one of this generation, or cannot be read.

        ``generation`` is None where there is no list at all yet.
        """
        now = self._clock.uptime()
        unread = not self._seen or "list" in self._troubles
        if self._paths is None or not (self._changed or (unread and now >= self._read_from)):
            return None
        self._read_from = now + _RETRY
        places = _places(self._paths)
        if places == self._seen and "list" not in self._troubles:
            return None
        newest: Snapshot | None = None
        errors = []
        for path, _, _ in places:
            try:
                found = load_snapshot(path)
            except SnapshotError as error:
                errors.append(error)
                continue
            if newest is None or found.generation > newest.generation:
                newest = found
        if newest is None and generation is None and _are_missing(places):
            self._troubles.wait("list", _NONE_YET)
        elif newest is None and errors:
            self._troubles.tell("list", errors[0], effect=_KEEPS)
        else:
            self._seen = places
            self._troubles.over("list")
        return newest if newest is not None and newest.generation != (generation or 0) else None


def published_position(runtime: Path, generation: int) -> int | None:
    """Give up to which number of the store's journal the list in the files knows the store.

    None when that is not known now. ``generation`` is that of the list in use, 0 for one of ours.
    """
    with contextlib.suppress(BoardError):
        board = Board.open(runtime / "counters")
        if board.generation and any(is_alive(slot.pid) for slot in board.slots()):
            # A list of ours is compared with what can be had in its place.
            return board.position if generation in {0, board.generation} else None
    report = read_report(report_path(runtime))
    return None if report is None else report.position


def _are_missing(places: Iterable[tuple[Path, int, int]]) -> bool:
    """Tell whether none of these files is there; what is closed to us may be."""
    try:
        return not any(path.exists() for path, _, _ in places)
    except OSError:
        return False


def _places(paths: PathSettings) -> tuple[tuple[Path, int, int], ...]:
    """Give the files of lists, the newest of the runtime folder first, and what tells them apart.

    That of the durable list is always among them: to miss it is a reason to say so.
    """
    runtime = paths.runtime
    numbers = [
        int(path.name.partition("-")[2])
        for path in runtime.glob("snapshot-*")
        if re.fullmatch(r"snapshot-[0-9]{1,19}", path.name)
    ]
    files = [runtime_path(runtime, max(numbers))] if numbers else []
    files.append(durable_path(paths.state))
    found = []
    for path in files:
        inode = changed = 0
        with contextlib.suppress(OSError):
            status = path.stat()
            inode, changed = status.st_ino, status.st_mtime_ns
        found.append((path, inode, changed))
    return tuple(found)
