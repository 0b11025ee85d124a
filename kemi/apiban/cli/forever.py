"""Being the sync process of a host for good: what a service runs where no Kamailio does it."""

from __future__ import annotations

import os
from typing import Final

from apiban.cli.host import SILENT, Host
from apiban.cli.syncer import Syncer
from apiban.errors import ApibanError, BoardError
from apiban.gate.board import Board
from apiban.log import Log
from apiban.ticks import run_service

__all__ = ["Forever", "sync_forever"]

_TICK: Final = 0.2
_LOOK_EVERY: Final = 1.0


class Forever:
    """The sync process, as long as no Kamailio of this host has one: ``tick()`` drives it.

    A Kamailio's own tells its workers of a new list, and this one cannot: it gives way at once,
    and goes on when that one has been silent.
    """

    def __init__(self, host: Host, log: Log) -> None:
        self._host = host
        self._log = log
        self._syncer: Syncer | None = None
        self._look_from = 0.0
        self._waits = False
        self._failed = ""  # why it could not begin the last time

    def begin(self) -> None:
        """Look who syncs, and be ready to when it is nobody else.

        Raises:
            ApibanError: the runtime folder cannot be written.

        """
        self._look_from = self._host.clock.uptime() + _LOOK_EVERY
        self._give_way(kamailio=self._kamailio_syncs())
        if self._syncer is None and not self._waits:
            self._syncer = Syncer(self._host, self._log)

    def tick(self) -> None:
        """Do what is due; that it cannot begin is said once."""
        if self._host.clock.uptime() >= self._look_from:
            try:
                self.begin()
            except ApibanError as error:
                if str(error) != self._failed:
                    self._log("sync-idle", reason=error, effect="waiting")
                self._failed = str(error)
            else:
                self._failed = ""
        if self._syncer is not None:
            self._syncer.tick()

    def close(self) -> None:
        """Let go of the store and its lock, and take the report away."""
        if self._syncer is not None:
            self._syncer.close()
            self._syncer = None

    def _give_way(self, *, kamailio: bool) -> None:
        if kamailio and not self._waits:
            self.close()
            reason = "the sync process of Kamailio does it"
            self._log("sync-busy", reason=reason, effect="waiting")
        self._waits = kamailio

    def _kamailio_syncs(self) -> bool:
        """Tell whether a sync process ticks that has workers; also one that waits for our lock."""
        try:
            board = Board.open(self._host.settings.paths.runtime / "counters")
        except BoardError:
            return False
        return board.is_kept(self._host.clock.uptime(), within=SILENT)


def sync_forever(host: Host, log: Log) -> None:
    """Sync until a signal says that it is enough.

    Raises:
        ApibanError: it cannot begin.

    """
    forever = Forever(host, log)
    log("sync-start", pid=os.getpid())
    try:
        forever.begin()
        run_service(forever.tick, every=_TICK, effect="the sync goes on", log=log)
    finally:
        forever.close()
