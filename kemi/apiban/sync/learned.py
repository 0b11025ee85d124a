"""What the SIP workers learned, taken in the sync process: bans of the detector, and good sources.

A detected source is banned, said, and queued for the feed that reports go to, if there is one. A
good source that is listed is said, and kept in ``runtime/good.json`` for the command line.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from apiban.address import Network, parse_address
from apiban.clock import Clock
from apiban.errors import ApibanError
from apiban.honeypot.records import Sighting
from apiban.honeypot.tool import AGENTS
from apiban.log import Log
from apiban.notices import read_notice
from apiban.settings.model import Settings
from apiban.sync.good import GoodSources
from apiban.sync.process import Process
from apiban.sync.sightings import Sightings

__all__ = ["Learned"]

_LINES_KEPT: Final = 1000
_METHOD: Final = re.compile(r"[A-Z0-9.!%*_+`'~-]{1,32}")
# What the command line shows of a ban; the numbers stand for themselves.
_REASONS: Final = {
    "failures": "{count} refused credentials in {window:.0f} s",
    "users": "{count} different failing users in {window:.0f} s",
    "agents": "the user agent of a scanner",
    "requests": "{count} requests in {window:.0f} s",
}


class Learned:
    """Takes the workers' notices. Nothing that is foreseen is raised."""

    def __init__(
        self,
        process: Process,
        *,
        clock: Clock,
        log: Log,
        make_sightings: Callable[[Settings], Sightings | None],
    ) -> None:
        self._process = process
        self._clock = clock
        self._log = log
        self._make_sightings = make_sightings
        self._lines: deque[bytes] = deque(maxlen=_LINES_KEPT)
        self._good = GoodSources()
        self._sightings: Sightings | None = None
        self._settings: Settings | None = None

    def told(self, lines: Sequence[bytes]) -> None:
        """Take lines that ``Notices`` wrote; they are handled at the next tick."""
        self._lines.extend(lines)

    def tick(self) -> None:
        """Handle what there is, before the process publishes; without a store it waits."""
        settings = self._process.settings
        if settings is None or not self._process.has_store:
            return
        if settings is not self._settings:
            self._follow(settings)
        while self._lines:
            line = self._lines.popleft()
            try:
                kind, fields = read_notice(line)
                network = parse_address(str(fields["source"]))
                if kind == "detected":
                    self._detected(network, fields)
                elif kind == "good":
                    self._was_good(network, settings, fields)
            except (ValueError, KeyError, TypeError):
                continue  # of another version's workers, during a reload

    def _follow(self, settings: Settings) -> None:
        """Where sightings are reported to may have changed."""
        old, self._settings = self._settings, settings
        if old is None or (old.report, old.detect) != (settings.report, settings.detect):
            self.close()
            self._sightings = self._make_sightings(settings)

    def close(self) -> None:
        """Let go of the queue."""
        sightings, self._sightings = self._sightings, None
        if sightings is not None:
            sightings.close()

    def _detected(self, network: Network, fields: dict[str, Any]) -> None:
        rule, count, window = fields["rule"], int(fields["count"]), float(fields["window"])
        ban_for = float(fields["ban_for"])
        reason = f"detected: {_REASONS[rule].format(count=count, window=window)}"
        try:
            saved = self._process.ban(network, reason=reason, seconds=ban_for)
        except ApibanError as error:  # what ails the store, its own tick says
            saved = str(error)
        if not saved and self._sightings is not None:
            self._sightings.add(_sighting(network, fields, at=self._clock.now()))
        effect = {"effect": f"not banned: {saved}"} if saved else {}
        self._log(
            "detected",
            source=network,
            rule=rule,
            count=count,
            window=window,
            ban_for=ban_for,
            proof=fields["proof"],
            **effect,
        )

    def _was_good(self, network: Network, settings: Settings, fields: dict[str, Any]) -> None:
        what = str(fields["what"])
        if what in {"registered", "called"}:
            self._good.note(settings.paths.runtime, str(network), what, float(fields["at"]))
            self._log("would-drop-good", source=network, what=what)


def _sighting(network: Network, fields: dict[str, Any], *, at: float) -> Sighting:
    method, user, agent = (str(fields[name]) for name in ("method", "user", "agent"))
    return Sighting(
        source=str(network),
        transport=fields["transport"],
        method=method if _METHOD.fullmatch(method) else "UNKNOWN",
        tool=_tool(agent),
        user_agent=agent or None,
        dialled=None,
        users=(user,) if user else (),
        proof=fields["proof"],
        at=at,
        count=max(int(fields["count"]), 1),
    )


def _tool(agent: str) -> str | None:
    """Give the name that a honeypot gives a tool with this user agent."""
    return next((name for text, name in AGENTS if re.search(text, agent, re.IGNORECASE)), None)
