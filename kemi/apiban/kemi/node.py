"""One Kamailio's node: everything is put together here, before the workers are forked."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from apiban import __version__
from apiban.clock import Clock, SystemClock
from apiban.errors import BoardError, SettingsError, SnapshotError
from apiban.gate import Board, Front, Gate, Hits, Sweeper, Tally
from apiban.gate.board import CHANGES, SETTINGS
from apiban.kemi.calls import Calls
from apiban.kemi.edge import Edge
from apiban.kemi.folders import Folders
from apiban.kemi.guard import Guard
from apiban.kemi.keeper import Keeper, child_command, child_environ
from apiban.kemi.memory import Memory, Pages
from apiban.kemi.metrics import Metrics
from apiban.kemi.mirror import Mirror
from apiban.kemi.outcome import Outcomes
from apiban.kemi.trusted import Trusted
from apiban.log import EVENTS, Level, line
from apiban.notices import Notices
from apiban.settings import Settings, load_settings, settings_path
from apiban.snapshot import Snapshot, load_snapshot, map_snapshot, share_snapshot
from apiban.snapshot.publish import LastList, durable_path, encode_list, runtime_path
from apiban.store import overriding_mode

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr

__all__ = ["Node"]

_COMPILE_TIMEOUT: Final = 30.0


class Node:
    """The guard, the edge, the keeper and the metrics of one node.

    ``previous`` is the node that ``app_python.reload`` replaces in this process: its shared
    memory and its list are taken over, so that nothing is unprotected in between.

    Raises:
        SettingsError: the settings cannot be used.

    """

    def __init__(
        self,
        ksr: Ksr,
        *,
        environ: Mapping[str, str] = os.environ,
        previous: Node | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._ksr = ksr
        self._environ = environ
        self._path = settings_path(environ)
        self._clock = clock or SystemClock()
        self._existed = self._path.exists()
        self.settings: Settings = load_settings(self._path, environ)
        self._folders = Folders(self.settings.paths.state)
        self.board = self._take_board(previous)
        self.hits: Hits = self._take_hits(previous)
        self.gate = Gate(now=self._clock.now, timer=time.monotonic)
        self.gate.use(self._first_snapshot(previous))
        # Code of an earlier version has none of these.
        self.pages = Pages(getattr(getattr(previous, "pages", None), "mapped", None))
        self.notices = Notices(getattr(getattr(previous, "notices", None), "ends", None))
        memory = Memory(self.pages, uptime=self._clock.uptime)
        calls = Calls(ksr, memory, grace=self.settings.calls.grace, uptime=self._clock.uptime)
        self.guard = Guard(
            ksr,
            board=self.board,
            gate=self.gate,
            front=Front(ksr, self.board, uptime=self._clock.uptime),
            tally=Tally(self.hits, now=self._clock.now),
            clock=self._clock,
            log=self.log,
            log_settings=self.settings.log,
            load=self._load,
            settings_changed=self._read_settings,
            calls=calls,
        )
        self.outcomes = Outcomes(
            ksr,
            gate=self.gate,
            memory=memory,
            calls=calls,
            clock=self._clock,
            settings=self.settings,
            tell=self.notices.send,
            fault=self.guard.count_fault,
        )
        self.sweeper: Sweeper = Sweeper(
            ksr,
            self.board,
            self.hits,
            now=self._clock.now,
            uptime=self._clock.uptime,
            previous=getattr(previous, "sweeper", None),
        )
        self.edge = Edge(ksr, self.guard, self.settings.edge, self.log, self.outcomes)
        self.keeper = Keeper(
            command=child_command("apiban.sync"),
            environ=child_environ(environ),
            board=self.board,
            clock=self._clock,
            log=self.log,
            print_line=self._print,
            summary_every=self.settings.log.interval,
            notices=self.notices.take,
        )
        self.metrics = Metrics(
            ksr,
            board=self.board,
            clock=self._clock,
            settings=lambda: self.settings,
            load=self._load,
            sync_runs=lambda: self.keeper.pid is not None,
            previous=getattr(previous, "metrics", None),  # code of an earlier version has none
        )
        self.trusted = Trusted(ksr, clock=self._clock, log=self.log, settings=lambda: self.settings)
        self.mirror = Mirror(
            ksr,
            board=self.board,
            clock=self._clock,
            log=self.log,
            settings=lambda: self.settings,
            load=self._load_in_force,
            previous=getattr(previous, "mirror", None),
        )
        if previous is not None:
            previous.keeper.stop()  # only the rtimer process has a child to stop
        self._settings_seen = self.board.words[SETTINGS]
        self._changes_seen = -1
        snapshot = self.gate.snapshot
        self.log(
            "reload" if previous else "start",
            version=__version__,
            mode=self._in_force().mode,
            generation=self.gate.generation,
            ranges=len(snapshot) if snapshot is not None else 0,
            key="set" if self.settings.feed.key else "missing",
        )

    def child_init(self, rank: int) -> None:
        """Begin in a process that Kamailio forked."""
        self.guard.sign_in(rank)

    def tick(self) -> None:
        """Do the rtimer's work; this process meets no packet, so new settings are read here."""
        if self.board.words[CHANGES] != self._changes_seen:
            self._changes_seen = self.board.words[CHANGES]
            self._keep_up()
        self.keeper.tick()
        self.sweeper.tick()
        self.metrics.tick()
        self.trusted.tick()
        self.mirror.tick()

    def log(self, event: str, **fields: object) -> None:
        """Write a line to Kamailio's log."""
        self._print(EVENTS[event], line(event, fields))

    def _print(self, level: Level, text: str) -> None:
        getattr(self._ksr, level)(text + "\n")

    # Shared memory -----------------------------------------------------------------------------

    def _take_board(self, previous: Node | None) -> Board:
        if previous is not None:
            # The same open file, mapped again if the code's layout is still the same.
            return Board(previous.board.handle)
        paths = self.settings.paths
        now = self._clock.now()
        try:
            for folder in (paths.state, paths.runtime):
                self._folders.make(folder)
            board = Board.create(paths.runtime / "counters", now=now)
            self._folders.hand_over(paths.runtime / "counters")
        except BoardError as error:
            self.log("fault", what="counters", reason=error, effect="not visible from outside")
            board = Board.unnamed(now=now)
        return board

    def _take_hits(self, previous: Node | None) -> Hits:
        if previous is not None:
            return Hits(previous.hits.handle)
        path, now = self.settings.paths.runtime / "hits", self._clock.now()
        try:
            hits = Hits.create(path, now=now)
            self._folders.hand_over(path)
        except BoardError as error:
            self.log("fault", what="hits", reason=error, effect="not visible from outside")
            hits = Hits.unnamed(now=now)
        return hits

    # The snapshot ------------------------------------------------------------------------------

    def _first_snapshot(self, previous: Node | None) -> Snapshot | None:
        """Give the last good list, before the first packet.

        From the node before a reload, else from the durable snapshot, else compiled anew from
        the store; else there is none, and everything passes until the sync publishes.
        """
        if previous is not None and self.board.generation:
            with contextlib.suppress(SnapshotError):
                return self._load(self.board.generation)
        if previous is not None and previous.gate.snapshot is not None:
            with contextlib.suppress(SnapshotError):
                # Its class may be the old code's: only its bytes are taken over.
                return Snapshot(previous.gate.snapshot.buffer)
        path = durable_path(self.settings.paths.state)
        if path.exists():
            try:
                return self._begin_with(load_snapshot(path), first=previous is None)
            except SnapshotError as error:
                self.log("snapshot-refused", reason=error, effect="compiling it from the store")
        if self._compile():
            with contextlib.suppress(SnapshotError):
                return self._begin_with(load_snapshot(path), first=previous is None)
        self.log("no-snapshot", effect="everything passes until the first sync")
        return None

    def _begin_with(self, snapshot: Snapshot, *, first: bool) -> Snapshot:
        """Use a list of an earlier time with the mode and the exemptions of the settings now."""
        if first:
            self.board.announce(snapshot.generation)
        settings = self._in_force()
        if snapshot.mode is settings.mode and not any(map(snapshot.overlaps, settings.exempt)):
            return snapshot
        return share_snapshot(
            encode_list(
                LastList(snapshot),
                settings,
                (),
                generation=snapshot.generation,
                now=snapshot.created,
            )
        )

    def _in_force(self) -> Settings:
        """Give the settings in the mode that the operator may have set at the command line."""
        override = overriding_mode(
            self.settings.paths.state / "store.db", self._clock.now(), self.settings.mode
        )
        return self.settings if override is None else replace(self.settings, mode=override.mode)

    def _compile(self) -> bool:
        """Have the store's list compiled by a process of the workers' user."""
        if not (self.settings.paths.state / "store.db").exists():
            return False
        user, group = self._folders.owner() or (None, None)
        try:
            done = subprocess.run(
                [*child_command("apiban.sync"), "--publish", "--board", str(self.board.handle)],
                env=child_environ(self._environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(self.board.handle,),
                timeout=_COMPILE_TIMEOUT,
                check=False,
                cwd="/",
                user=user,
                group=group,
                extra_groups=[] if user is not None else None,
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return done.returncode == 0

    def _load(self, generation: int) -> Snapshot:
        """Map the list in the publisher's memory; where that is gone, copy it from a file.

        Files are never mapped: who cuts a mapped file short ends the process that reads it.
        """
        with contextlib.suppress(SnapshotError):
            snapshot = map_snapshot(self.board.memory_path)
            if snapshot.generation == generation:
                return snapshot
        paths = self.settings.paths
        for path in (runtime_path(paths.runtime, generation), durable_path(paths.state)):
            with contextlib.suppress(SnapshotError):
                snapshot = load_snapshot(path)
                if snapshot.generation >= generation:
                    return snapshot
        raise SnapshotError(f"the list of generation {generation} cannot be read")

    def _load_in_force(self, generation: int) -> Snapshot:
        """Give a list for what acts on it here; the first one in the mode that it began with."""
        first = self.gate.snapshot  # this process meets no packet, and so takes no newer one
        if first is not None and first.generation == generation:
            return first
        return self._load(generation)

    # Settings ----------------------------------------------------------------------------------

    def _keep_up(self) -> None:
        """Do for this process what the guard does for one that meets packets."""
        settings = self.board.words[SETTINGS]
        if settings != self._settings_seen:
            with contextlib.suppress(SettingsError):  # they are read again with the next change
                self._read_settings()
                self._settings_seen = settings
                self.keeper.summary_every = self.settings.log.interval

    def _read_settings(self) -> None:
        """Take settings that the sync process found good.

        Raises:
            SettingsError: they were changed again meanwhile, for the worse; the old ones stay.

        """
        new = load_settings(self._path, self._environ, must_exist=self._existed)
        self.guard.log_settings = new.log
        self.edge.use(new.edge)
        self.outcomes.use(new)
        self.settings = replace(new, paths=self.settings.paths)
