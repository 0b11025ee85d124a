"""The kernel as the client knows it: what it holds by now, whether that is still so, its counters.

What was put in is remembered, so that a change costs no look at the kernel. Every
``firewall.interval`` the backend's mark tells whether anybody changed a rule since; only then, and
now and then, all is read back. The kernel's own clock ends bans meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from apiban.firewall.backend import Backend
from apiban.firewall.elements import FOREVER, Change, Counter, Held, Wanted
from apiban.firewall.plan import after, alive, due, plan
from apiban.firewall.rules import Rules

__all__ = ["READ_EVERY", "Kernel", "Total"]

READ_EVERY: Final = 600.0
# While others change their own rules all the time, reading takes no more than this part of it.
_READING: Final = 20.0
# Ends are looked at so often at most: half of plan.MARGIN is more than this.
_EXTEND_EVERY: Final = 60.0
_ABOUT: Final = 10.0
_NOTHING: Final = Counter(0, 0)


@dataclass(frozen=True, slots=True)
class Total:
    """What was dropped since the client's start, rules that were made anew included."""

    packets: int = 0
    bytes: int = 0


class Kernel:
    """One backend. Each method may raise FirewallError; then all is read back the next time.

    ``clock`` is one that nobody sets, in seconds: it tells how long a reading takes.
    """

    def __init__(self, backend: Backend, *, clock: Callable[[], float]) -> None:
        self.backend = backend
        self._clock = clock
        self.checked_at: float | None = None
        self.totals: dict[str, Total] = {"ipv4": Total(), "ipv6": Total()}
        self._counted: Mapping[str, Counter] | None = None
        self._rules: Rules | None = None
        self._held: Held | None = None
        self._counts: tuple[int, int] = (0, 0)
        self._counts_of: Held | None = None
        self._counts_until = 0.0
        self._known = False  # whether _held is what the kernel holds
        self._mark: object = None
        self._frame: object = None  # the rules as they were at the last reading
        self._took = 0.0  # by that
        self._read_at = 0.0  # uptimes
        self._looked_at = 0.0
        self._due: float | None = None  # by the wall clock
        self._planned_at = float("-inf")

    @property
    def held(self) -> Held | None:
        """What the kernel holds, as far as is known."""
        return self._held

    def counts(self, now: float) -> tuple[int, int]:
        """Tell how many IPv4 and IPv6 blocks are banned in the kernel; those that ended are not."""
        if self._counts_of is not self._held or now >= self._counts_until:
            self._counts_of = self._held
            held = {} if self._held is None else self._held.banned
            alive = [(block[0], end) for block, end in held.items() if now < end]
            ipv4 = sum(family == 4 for family, _ in alive)
            self._counts = ipv4, len(alive) - ipv4
            self._counts_until = min((end for _, end in alive), default=FOREVER)
        return self._counts

    def is_foreign(self, rules: Rules, *, now: float, uptime: float, every: float) -> bool:
        """Look whether the kernel still holds what it should; tell that it must be mended.

        At the first time, and after a failure, all of it is read.
        """
        known = self._known and rules == self._rules
        if known and uptime < self._looked_at + every:
            return False
        self._looked_at = uptime
        mark = self.backend.mark()
        same = mark is not None and mark == self._mark
        if known and same and uptime < self._read_at + READ_EVERY:
            self.checked_at = now
            return False
        frame = self.backend.frame()
        # The list is there and the rules are: what others did can wait while it is a long one.
        stands = frame is not None and frame == self._frame
        if known and stands and uptime < self._read_at + _READING * self._took:
            self.checked_at = now
            return False
        before = self._held if known else None
        self._known = False
        began = self._clock()
        held = self.backend.read(rules, now=now)
        self._took, self._frame = self._clock() - began, frame
        if self._counted is None:  # what was dropped before our start is not ours
            self._counted = {} if held is None else self.backend.counters()
        self._held, self._rules, self._mark, self._known = held, rules, mark, True
        self._read_at, self.checked_at, self._planned_at = uptime, now, float("-inf")
        return before is not None and _differs(before, held, now)

    def bring(self, wanted: Wanted, *, now: float, uptime: float, afresh: bool) -> Change:
        """Make the kernel hold what it should; give what was changed.

        ``afresh`` tells that ``wanted`` is new: otherwise only ends are looked at that are due.
        """
        if not self.is_due(now=now, uptime=uptime) and not afresh:
            return Change()
        rules = self._rules
        assert rules is not None  # noqa: S101 - is_foreign() looked
        change = plan(wanted, self._held, now=now)
        if change:
            if change.rebuild and self._held is not None:
                self.count()  # the counters go with the rules
            self._known = False
            # If others were at it as well since the last look, all is read the next time.
            self._mark = self.backend.apply(change, rules, now=now, since=self._mark)
            if change.rebuild:
                self._counted, self._frame = self.backend.counters(), None
            self._known = True
        self._held = alive(after(self._held, change), now)
        self._planned_at = uptime
        self._due = due(wanted, self._held, now=now)
        return change

    def is_due(self, *, now: float, uptime: float) -> bool:
        """Tell whether ends may have to be extended."""
        if self._planned_at == float("-inf"):
            return True
        is_due = self._due is not None and now >= self._due
        return is_due and uptime >= self._planned_at + _EXTEND_EVERY

    def clear(self) -> None:
        """Take out all that is ours."""
        if self._held is None:
            return
        self.count()
        self._known = False
        self.backend.remove()
        self._held, self._mark, self._known = None, None, True
        self._counted = {}

    def doubt(self) -> None:
        """Read all back at the next look."""
        self._known = False

    def count(self) -> None:
        """Add up the counters; where these are gone, so is all else, and it is read back."""
        if self._held is None and self._known:
            return
        found, before = self.backend.counters(), self._counted or {}
        if len(found) < len(self.totals):
            self._mark, self._frame, self._looked_at = None, None, float("-inf")
        for name, total in self.totals.items():
            new, old = found.get(name, _NOTHING), before.get(name, _NOTHING)
            if new.packets < old.packets:  # they began anew
                old = _NOTHING
            self.totals[name] = Total(
                total.packets + new.packets - old.packets, total.bytes + new.bytes - old.bytes
            )
        self._counted = found


def _differs(before: Held, held: Held | None, now: float) -> bool:
    """Tell whether others changed what was there; what is about to end may be gone already."""
    if held is None or not held.intact or held.allowed != before.allowed:
        return True
    soon = now + _ABOUT
    gone = any(block not in held.banned for block, end in before.banned.items() if end > soon)
    come = any(block not in before.banned for block, end in held.banned.items() if end > soon)
    return gone or come
