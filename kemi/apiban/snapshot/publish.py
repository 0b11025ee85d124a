"""From the store to the workers: compile, write, announce.

The workers map the list from sealed memory of the publishing process, which nobody can cut short
under their feet. ``runtime/snapshot-N`` serves who comes when that process is gone,
``state/snapshot`` the next start; both are only ever read whole, never mapped.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from apiban.address import Family, Network
from apiban.errors import SnapshotError
from apiban.gate.board import Board
from apiban.log import Log
from apiban.settings.model import Settings
from apiban.settings.watch import FileWatch
from apiban.snapshot.compile import Ranges, compile_ranges
from apiban.snapshot.file import hold_snapshot, load_snapshot, write_snapshot
from apiban.snapshot.format import FOREVER, Snapshot, encode_snapshot
from apiban.snapshot.origin import NUMBERS, Origin
from apiban.store import FEED_SOURCE

__all__ = ["Bans", "LastList", "Publisher", "durable_path", "runtime_path"]


_HELD = 2


class Bans(Protocol):
    """Where the list to publish comes from: the store, or the last list where it fails."""

    def bans(
        self, family: Family, *, grace_source: str, grace: float
    ) -> Iterator[tuple[int, int, float, str]]:
        """Give (first, last, expires, source) sorted by first."""
        ...

    def allowed(self, now: float) -> list[Network]:
        """Give the networks of the allow list that are in force."""
        ...

    def position(self) -> int:
        """Give how far in the store's journal this is; 0 when that is not known."""
        ...


class LastList:
    """The ranges of a snapshot: the allow list of its time is cut out of them already."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def bans(self, family: Family, **_: object) -> Iterator[tuple[int, int, float, str]]:
        """Give the ranges of a family; their grace is in them already."""
        return (
            (first, last, float(expires), Origin(origin).source)
            for of, (first, last, expires, origin) in self._snapshot.ranges()
            if of == family
        )

    def allowed(self, _now: float) -> list[Network]:
        """Give nothing."""
        return []

    def position(self) -> int:
        """Give 0: the list does not say."""
        return 0


def durable_path(state: Path) -> Path:
    """Give where the durable snapshot is."""
    return state / "snapshot"


def runtime_path(runtime: Path, generation: int) -> Path:
    """Give where the workers find the snapshot of a generation."""
    return runtime / f"snapshot-{generation}"


def encode_list(
    source: Bans, settings: Settings, own: tuple[Network, ...], *, generation: int, now: float
) -> bytes:
    """Compile a list without whoever is exempt, in the settings' mode.

    Raises:
        StoreError: the source is a store that cannot be read.

    """
    exempt = (*settings.exempt, *own, *source.allowed(now))
    return encode_snapshot(
        generation=generation,
        created=now,
        mode=settings.mode,
        ipv4=_compile(source, settings, exempt, 4),
        ipv6=_compile(source, settings, exempt, 6),
    )


class Publisher:
    """Publishes lists. The files that it wrote are its own to look after."""

    def __init__(self, board: Board, log: Log) -> None:
        self._board = board
        self._log = log
        self._content = b""
        self._held: list[int] = []  # the open files of the last lists in memory
        self._said: dict[str, str] = {}  # what was said of each place, to say it once
        self._watches: tuple[FileWatch, ...] = ()

    def publish(
        self, source: Bans, settings: Settings, own: tuple[Network, ...], *, now: float
    ) -> bool:
        """Compile, write and announce; tell whether the workers have it.

        Raises:
            StoreError: the store cannot be read.

        """
        state, runtime = settings.paths.state, settings.paths.runtime
        generation = self._next_generation(state)
        position = source.position()  # before the list is read: it knows this much at least
        self._content = encode_list(source, settings, own, generation=generation, now=now)
        self.write_files(settings)
        handle = self._hold()
        if handle is None and not self.on_disk:
            return False
        self._board.announce(
            generation,
            keeper=os.getpid() if handle else 0,
            handle=handle or 0,
            position=position,
        )
        self._tidy(state, runtime, generation)
        snapshot = Snapshot(memoryview(self._content))
        ipv4, ipv6 = snapshot.counts
        self._log("published", generation=generation, ipv4=ipv4, ipv6=ipv6, mode=settings.mode)
        return True

    def _hold(self) -> int | None:
        """Keep the list in memory, and the one before it: a worker may be just opening that."""
        try:
            handle = hold_snapshot(self._content)
        except OSError as error:
            self._log("publish-failed", reason=error.strerror, effect="workers read the file")
            return None
        self._held.append(handle)
        while len(self._held) > _HELD:
            os.close(self._held.pop(0))
        return handle

    @property
    def in_place(self) -> bool:
        """Tell whether the files of the last publication are still what was written."""
        return not any(watch.changed() for watch in self._watches)

    @property
    def on_disk(self) -> bool:
        """Tell whether both files of the last publication could be written."""
        return not self._said

    def write_files(self, settings: Settings) -> None:
        """Write the files of the last publication; the workers have it from memory."""
        paths, generation = settings.paths, Snapshot(memoryview(self._content)).generation
        durable, runtime = durable_path(paths.state), runtime_path(paths.runtime, generation)
        self._write("durable", durable, effect="a restart would have an older list")
        self._write("runtime", runtime, effect="workers have the list from memory alone")
        self._watches = (FileWatch(durable), FileWatch(runtime))

    def _write(self, place: str, path: Path, *, effect: str) -> None:
        try:
            write_snapshot(path, self._content)
        except SnapshotError as error:
            # A runtime file has another name each time: why it failed is what makes it new.
            why = str(error).partition(": ")[2]
            if self._said.get(place) != why:
                self._said[place] = why
                self._log("publish-failed", reason=error, effect=effect)
        else:
            self._said.pop(place, None)

    def _next_generation(self, state: Path) -> int:
        """Count on from what the workers use and from what is on the disk."""
        latest = self._board.generation
        with contextlib.suppress(SnapshotError):
            latest = max(latest, load_snapshot(durable_path(state)).generation)
        return latest + 1

    def _tidy(self, state: Path, runtime: Path, generation: int) -> None:
        """Remove other generations, but for the last: who has one mapped keeps it all the same."""
        keep = {runtime_path(runtime, number).name for number in (generation, generation - 1)}
        ours = f".{os.getpid()}.new"
        stale = [path for path in runtime.glob("snapshot-[0-9]*") if path.name not in keep]
        for folder in (state, runtime):  # what publishers left that were killed
            stale += [p for p in folder.glob(".snapshot*.new") if not p.name.endswith(ours)]
        for path in stale:
            with contextlib.suppress(OSError):
                path.unlink()


def _compile(
    source: Bans, settings: Settings, exempt: tuple[Network, ...], family: Family
) -> Ranges:
    """Compile one family. A feed's entries may be enforced beyond their time: see ``sync``.

    A source of the store that is not known is a feed, too.
    """
    number, feed = NUMBERS.get, int(Origin.FEED)
    bans = (
        (first, last, min(math.ceil(expires), FOREVER), number(by, feed))
        for first, last, expires, by in source.bans(
            family, grace_source=FEED_SOURCE, grace=settings.feed.stale_max
        )
    )
    allowed = ((network.first, network.last) for network in exempt if network.family == family)
    return compile_ranges(bans, allowed)
