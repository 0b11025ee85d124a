"""From the store to the workers: compile, write, announce.

Each publication is written twice: ``state/snapshot`` is the durable one, read at the next start;
``runtime/snapshot-N`` is the one that workers map. Nobody has a reason to touch the latter, and a
damaged durable file cannot hurt a worker.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Final

from apiban.address import Family, Network
from apiban.errors import SnapshotError
from apiban.gate.board import Board
from apiban.log import Log
from apiban.settings.model import Settings
from apiban.settings.watch import FileWatch
from apiban.snapshot.compile import Ranges, compile_ranges
from apiban.snapshot.file import map_snapshot, write_snapshot
from apiban.snapshot.format import FOREVER, encode_snapshot
from apiban.store import FEED_SOURCE, Store

__all__ = ["Publisher", "durable_path", "runtime_path"]

_KEPT: Final = 2


def durable_path(state: Path) -> Path:
    """Give where the durable snapshot is."""
    return state / "snapshot"


def runtime_path(runtime: Path, generation: int) -> Path:
    """Give where the workers find the snapshot of a generation."""
    return runtime / f"snapshot-{generation}"


class Publisher:
    """Publishes what the store holds. The files that it wrote are its own to look after."""

    def __init__(self, board: Board, log: Log) -> None:
        self._board = board
        self._log = log
        self._durable_failed = ""
        self._watches: tuple[FileWatch, ...] = ()

    def publish(
        self, store: Store, settings: Settings, own: tuple[Network, ...], *, now: float
    ) -> bool:
        """Compile and announce; tell whether the workers have it.

        Raises:
            StoreError: the store cannot be read.

        """
        exempt = (*settings.exempt, *own, *store.allowed(now))
        ipv4 = _compile(store, settings, exempt, 4)
        ipv6 = _compile(store, settings, exempt, 6)
        generation = self._next_generation(settings.paths.state)
        content = encode_snapshot(
            generation=generation, created=now, mode=settings.mode, ipv4=ipv4, ipv6=ipv6
        )
        self._write_durable(settings.paths.state, content)
        path = runtime_path(settings.paths.runtime, generation)
        try:
            write_snapshot(path, content)
        except SnapshotError as error:
            self._log("publish-failed", error=error, effect="workers keep the last list")
            return False
        self._board.announce(generation)
        self._watches = (FileWatch(path), FileWatch(durable_path(settings.paths.state)))
        self._tidy(settings.paths.runtime, generation)
        self._log(
            "published", generation=generation, ipv4=len(ipv4), ipv6=len(ipv6), mode=settings.mode
        )
        return True

    @property
    def in_place(self) -> bool:
        """Tell whether the files of the last publication are still what was written."""
        return not any(watch.changed() for watch in self._watches)

    @property
    def durable(self) -> bool:
        """Tell whether the last publication would survive a restart."""
        return not self._durable_failed

    def _write_durable(self, state: Path, content: bytes) -> None:
        """Write for the next start; when that fails the workers get the list all the same."""
        try:
            write_snapshot(durable_path(state), content)
            failure = ""
        except SnapshotError as error:
            failure = str(error)
        if failure and failure != self._durable_failed:
            self._log("publish-failed", error=failure, effect="a restart would have an older list")
        self._durable_failed = failure

    def _next_generation(self, state: Path) -> int:
        """Count on from what the workers use and from what is on the disk."""
        latest = self._board.generation
        with contextlib.suppress(SnapshotError):
            latest = max(latest, map_snapshot(durable_path(state)).generation)
        return latest + 1

    def _tidy(self, runtime: Path, generation: int) -> None:
        """Remove old generations: who has one mapped keeps it all the same."""
        for path in runtime.glob("snapshot-*"):
            number = path.name.removeprefix("snapshot-")
            if number.isdecimal() and int(number) <= generation - _KEPT:
                with contextlib.suppress(OSError):
                    path.unlink()


def _compile(
    store: Store, settings: Settings, exempt: tuple[Network, ...], family: Family
) -> Ranges:
    """Compile one family. A feed's entries may be enforced beyond their time: see ``sync``."""
    bans = (
        (first, last, min(math.ceil(expires), FOREVER))
        for first, last, expires in store.bans(
            family, grace_source=FEED_SOURCE, grace=settings.feed.stale_max
        )
    )
    allowed = ((network.first, network.last) for network in exempt if network.family == family)
    return compile_ranges(bans, allowed)
