"""The flooding sources of the Kamailio that runs here, looked for once a second."""

from __future__ import annotations

from typing import Final

from apiban.clock import Clock
from apiban.errors import BoardError
from apiban.firewall.elements import Elements
from apiban.firewall.offload import Ban, Offload
from apiban.firewall.report import Flooding
from apiban.firewall.trouble import Troubles
from apiban.gate.board import Board
from apiban.gate.hits import Hits
from apiban.log import Log
from apiban.settings import FileWatch, Settings

__all__ = ["Floods"]

_EVERY: Final = 1.0
# A Kamailio that runs shows it several times a second.
_SILENT: Final = 60.0


class Floods:
    """What ``Offload`` finds in the counts that Kamailio shares.

    That no Kamailio runs is said ``grace`` seconds after the first look: it may start later.
    """

    def __init__(self, *, clock: Clock, log: Log, troubles: Troubles, grace: float = 0.0) -> None:
        self._clock = clock
        self._log = log
        self._troubles = troubles
        self._offload = Offload()
        self._hits: Hits | None = None
        self._watch: FileWatch | None = None
        self._grace = grace
        self._grace_until: float | None = None  # an uptime, as is the next
        self._from = 0.0

    @property
    def flooding(self) -> tuple[Flooding, ...]:
        """The sources, that with the highest rate first."""
        return self._offload.flooding

    def elements(self, ban: Ban) -> Elements:
        """Give them for the kernel."""
        return self._offload.elements(ban)

    def adopt(self, held: Elements, *, lasts: float) -> None:
        """Take what the kernel holds since before this process."""
        self._offload.adopt(held.items(), lasts=lasts, now=self._clock.now())

    def look(self, settings: Settings, *, ban: Ban) -> bool:
        """Look, if it is time; tell whether a source came, went, or was seen again."""
        uptime, firewall = self._clock.uptime(), settings.firewall
        if uptime < self._from:
            return False
        self._from = uptime + _EVERY
        hits = self._open(settings, uptime)
        before = {one.source for one in self.flooding}
        changed = self._offload.look(
            [] if hits is None else hits.all(),
            ban=ban,
            rate=firewall.flood_rate,
            lasts=firewall.flood_for,
            now=self._clock.now(),
            uptime=uptime,
        )
        came = [one.source for one in self.flooding if one.source not in before]
        went = before - {one.source for one in self.flooding}
        if came or went:
            self._log(
                "firewall-offload",
                sources=len(self.flooding),
                came=len(came),
                went=len(went),
                first=came[0] if came else min(went),
            )
        return changed

    def _open(self, settings: Settings, uptime: float) -> Hits | None:
        """Give the table of sources of the Kamailio that runs here; None when none does."""
        runtime = settings.paths.runtime
        if self._grace_until is None:
            self._grace_until = uptime + self._grace
        try:
            _must_live(Board.open(runtime / "counters"), uptime)
            if self._hits is None or self._watch is None or self._watch.changed():
                self._watch = FileWatch(runtime / "hits")
                self._hits = Hits.open(runtime / "hits")
        except BoardError as error:
            self._hits = None
            if uptime >= self._grace_until:
                self._troubles.tell(
                    "kamailio",
                    f"no Kamailio with this module runs here: {error}",
                    effect="no source is offloaded; firewall.sources at all needs no Kamailio",
                )
            return None
        self._troubles.over("kamailio")
        return self._hits


def _must_live(board: Board, uptime: float) -> None:
    """Make sure that a Kamailio runs which has this board.

    Raises:
        BoardError: it is one that ran before.

    """
    if not board.is_kept(uptime, within=_SILENT):
        raise BoardError("it gave no sign for a minute")
