"""The firewall client: the kernel holds what the list says, whatever happens to either of them.

``tick()`` drives all of it. Nothing that fails ends it: it is said once while it lasts, what the
kernel holds stays there, and bans end by the kernel's own clock should this process be gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from apiban.address import Network
from apiban.clock import Clock, slept
from apiban.errors import FirewallError
from apiban.firewall.backend import Backend
from apiban.firewall.choose import rules_of
from apiban.firewall.cutting import CutOff, Cutting
from apiban.firewall.elements import Block, Change, Wanted
from apiban.firewall.floods import Floods
from apiban.firewall.former import DRY_RUN, Formers, retries
from apiban.firewall.kernel import Kernel
from apiban.firewall.lists import Listed, Lists
from apiban.firewall.live import LiveSettings
from apiban.firewall.plan import SLACK, plan
from apiban.firewall.report import (
    LARGEST_FLOODING,
    FirewallReport,
    report_path,
)
from apiban.firewall.reporter import Reporter
from apiban.firewall.rules import Rules
from apiban.firewall.trouble import Troubles
from apiban.firewall.wanted import allowed_blocks, wanted_of
from apiban.log import Log
from apiban.settings import Mode, Settings
from apiban.settings.model import FirewallSettings

__all__ = ["FirewallClient"]


class FirewallClient:
    """Follows the list and keeps the kernel to it.

    Raises:
        SettingsError: the settings are bad at the start.

    """

    def __init__(  # noqa: PLR0913 - the outside world comes in as arguments
        self,
        *,
        path: Path,
        environ: Mapping[str, str],
        clock: Clock,
        log: Log,
        make_backend: Callable[[FirewallSettings], Backend],
        own: Callable[[], tuple[Network, ...]],
        somebody_syncs: Callable[[Path], bool],
        cut: CutOff,
        grace: float = 0.0,
        slept: Callable[[], float] = slept,
    ) -> None:
        self._clock = clock
        self._log = log
        self._make_backend = make_backend
        self._slept = slept
        self._clocks = self._compared()
        self._live = LiveSettings(path, environ, clock=clock, log=log)
        self._troubles = Troubles(log)
        self._lists = Lists(
            clock=clock, troubles=self._troubles, own=own, somebody_syncs=somebody_syncs
        )
        self._applied: Settings = self._live.now
        self._kernel = self._made(self._applied.firewall)
        self._formers = Formers(self._troubles)
        self._reporter = Reporter(clock, self._troubles)
        self._floods = Floods(clock=clock, log=log, troubles=self._troubles, grace=grace)
        self._cutting = Cutting(cut, clock=clock, troubles=self._troubles)
        self._wanted: Wanted | None = None
        self._wanted_of: tuple[object, ...] = ()
        self._brought: Wanted | None = None
        self._listed: Listed | None = None  # the list that the kernel holds
        self._ready = False
        self._started = clock.now()
        self._retries = retries()
        # Uptimes from which something is due.
        self._retry_from = 0.0
        self._count_from = 0.0
        # What the report says.
        self._changed_at: float | None = None
        self._healed = 0
        self._rate = 0.0
        self._counted: tuple[float, int] | None = None  # uptime, packets

    @property
    def settings(self) -> Settings:
        """The settings that it works by."""
        return self._applied

    @property
    def kernel(self) -> Kernel:
        """What the kernel holds, as far as is known."""
        return self._kernel

    @property
    def trouble(self) -> str:
        """What is wrong now, in one line; empty when nothing is."""
        return self._troubles.first or self._live.refused

    @property
    def waits(self) -> bool:
        """Whether that is no trouble yet: the first list is waited for."""
        return self._troubles.waits

    # Driving it --------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due; raise nothing that is foreseen."""
        self._live.look()
        self.look()
        uptime = self._clock.uptime()
        if uptime >= self._retry_from:
            try:
                self.work()
            except FirewallError as error:
                self._retry_from = uptime + self._retries.after_failure()
                effect = "what the kernel holds stays, until its bans run out"
                self._troubles.tell("kernel", error, effect=effect)
            else:
                self._retries.success()
                self._troubles.over("kernel")
        self._report()  # who waits for it does not wait for what comes now
        self._cut_connections()

    def preview(self) -> tuple[Change, Rules] | None:
        """Give what ``work`` would do now; None while there is no list that can be read.

        Raises:
            FirewallError: the kernel cannot be read.

        """
        listed = self._lists.listed
        if listed is None:
            return None
        self._check(listed)
        rules = rules_of(self._applied.firewall, listed.mode)
        if listed.mode is Mode.OFF:
            return self._all_out(), rules
        change = plan(self.wanted(listed), self._kernel.held, now=self._clock.now())
        return change, rules

    def reload(self) -> None:
        """Read the settings now, and try at once what failed."""
        self._live.read()
        self._retry_from = 0.0

    def look(self) -> None:
        """Take new settings and a new list."""
        if self._live.now is not self._applied:
            self._apply_settings(self._live.now)
        self._lists.look(self._applied)

    def work(self) -> Change:
        """Bring the kernel to what the list says; give what was changed.

        Raises:
            FirewallError: it could not be done; the kernel is as before.

        """
        listed, began = self._lists.listed, self._clock.uptime()
        if listed is None:
            return Change()
        self._look_at_clocks()
        self._check(listed)
        change, again = Change(), set[Block]()
        if listed.mode is Mode.OFF:
            change = self._all_out()
            self._kernel.clear()
            self._brought = None
        else:
            wanted, held, now = self.wanted(listed), self._kernel.held, self._clock.now()
            change = self._kernel.bring(
                wanted,
                now=now,
                uptime=self._clock.uptime(),
                afresh=wanted is not self._brought,
            )
            self._brought = wanted
            if held is not None:  # bans that had ended, and are set anew
                again = {one for one in change.extend if held.banned[one] <= now}
        self._listed = listed
        if change:
            self._note(change, began)
        if not self._is_dry:
            self._formers.leave(self._clock.uptime())
        if not self._ready:
            self._ready = True
            ipv4, ipv6 = self._kernel.counts(self._clock.now())
            self._log("firewall", state="ready", mode=listed.mode, ipv4=ipv4, ipv6=ipv6)
        self._count()
        self._cutting.collect(change.add.keys() | again)
        return change

    def once(self) -> Change:
        """Do ``work``, and what a client that runs does beside it.

        Raises:
            FirewallError: it could not be done; the kernel is as before.

        """
        change = self.work()
        self._cut_connections()
        runtime = self._applied.paths.runtime
        if not self._is_dry and report_path(runtime).exists():  # what one left is another thing now
            self._reporter.write_last(runtime, self._last_report())
        return change

    def stop(self) -> None:
        """End as the settings say: rules and bans stay, or go; the last report tells of it."""
        removes = self._applied.firewall.on_exit == "remove"
        if removes:
            try:
                self._kernel.backend.remove()
                if not self._is_dry:
                    self._formers.leave(float("inf"))
            except FirewallError as error:
                removes = False
                self._troubles.tell("kernel", error, effect="rules and bans stay")
        # A dry run tells of nothing: a report that is there is of what is in the kernel.
        if not self._is_dry:
            self._tell_the_end(removes=removes)
        self._log("firewall-stop", rules="removed" if removes else "kept")
        self._lists.close()

    @property
    def _is_dry(self) -> bool:
        return self._applied.firewall.backend == DRY_RUN

    # What is wanted ----------------------------------------------------------------------------

    @property
    def listed(self) -> Listed | None:
        """The list to go by; None while there is none that can be read."""
        return self._lists.listed

    def wanted(self, listed: Listed) -> Wanted:
        """Give what the kernel should hold; the same object while that does not change."""
        flooding = self._applied.firewall.sources == "flooding"
        changed = flooding and self._floods.look(self._applied, ban=listed.snapshot.expires)
        made_of = (listed.snapshot, listed.allowed, flooding)
        if self._wanted is None or changed or made_of != self._wanted_of:
            self._wanted_of = made_of
            if flooding:
                banned = self._floods.elements(listed.snapshot.expires)
                self._wanted = Wanted(banned, allowed_blocks(listed.allowed))
            else:
                self._wanted = wanted_of(listed.snapshot, listed.allowed, now=self._clock.now())
        return self._wanted

    # The kernel --------------------------------------------------------------------------------

    def _apply_settings(self, new: Settings) -> None:
        old, self._applied = self._applied, new
        if new.firewall.backend != old.firewall.backend:
            back = self._formers.back(new.firewall.backend)
            self._formers.keep(old.firewall.backend, self._kernel)
            self._kernel = back or self._made(new.firewall)
            self._brought, self._counted, self._count_from = None, None, 0.0

    def _made(self, settings: FirewallSettings) -> Kernel:
        return Kernel(self._make_backend(settings), clock=self._clock.uptime)

    def _compared(self) -> tuple[float, float]:
        """Give by how much the wall clock is before the uptime, and that before the kernel's."""
        return self._clock.now() - self._clock.uptime(), self._slept()

    def _look_at_clocks(self) -> None:
        """See whether the clock was set, or the machine slept: ends in the kernel moved then."""
        clocks = self._compared()
        if any(abs(a - b) > SLACK for a, b in zip(clocks, self._clocks, strict=True)):
            self._clocks, self._wanted = clocks, None
            self._kernel.doubt()

    def _check(self, listed: Listed) -> None:
        """Look whether the kernel is as it was left."""
        firewall, kernel = self._applied.firewall, self._kernel
        first = kernel.checked_at is None
        foreign = kernel.is_foreign(
            rules_of(firewall, listed.mode),
            now=self._clock.now(),
            uptime=self._clock.uptime(),
            every=firewall.interval,
        )
        if foreign and listed.mode is not Mode.OFF:
            self._healed += 1
            gone = "all of it" if kernel.held is None else "a part of it"
            self._log("firewall-healed", changed=gone, backend=firewall.backend)
        if first and firewall.sources == "flooding" and kernel.held is not None:
            self._floods.adopt(kernel.held.banned, lasts=firewall.flood_for)

    def _all_out(self) -> Change:
        """Give what takes all out that is in the kernel."""
        held = self._kernel.held
        if held is None:
            return Change()
        now = self._clock.now()
        alive = frozenset(block for block, end in held.banned.items() if now < end)
        return Change(remove=alive, disallow=held.allowed)

    def _note(self, change: Change, began: float) -> None:
        self._changed_at = self._clock.now()
        ipv4, ipv6 = self._kernel.counts(self._clock.now())
        self._log(
            "firewall-changed",
            added=len(change.add),
            extended=len(change.extend),
            removed=len(change.remove),
            ipv4=ipv4,
            ipv6=ipv6,
            seconds=self._clock.uptime() - began,
        )

    def _cut_connections(self) -> None:
        """End what conntrack knows of the sources that are banned from now on."""
        firewall, held, listed = self._applied.firewall, self._kernel.held, self._listed
        cuts = firewall.conntrack and firewall.established == "drop"
        drops = not self._is_dry and listed is not None and listed.mode is Mode.ENFORCE
        if held is None or not cuts or not drops:
            self._cutting.forget()
        else:
            self._cutting.look(held.banned, allowed=held.allowed, ports=firewall.ports)

    def _count(self) -> None:
        """Add up the kernel's counters; what cannot be read is looked at again, and mended."""
        uptime = self._clock.uptime()
        if uptime < self._count_from:
            return
        self._count_from = uptime + self._kernel.backend.count_every
        try:
            self._kernel.count()
        except FirewallError:
            self._kernel.doubt()
            return
        packets = sum(total.packets for total in self._kernel.totals.values())
        if self._counted is not None and uptime > self._counted[0]:
            self._rate = (packets - self._counted[1]) / (uptime - self._counted[0])
        self._counted = uptime, packets

    # Telling of it -----------------------------------------------------------------------------

    def _report(self) -> None:
        # A dry run protects nobody: no command may tell that it does.
        news = self._changed_at, self._listed, self.trouble
        if not self._is_dry and self._reporter.is_due(news):
            self._reporter.write(self._applied.paths.runtime, self.report())

    def _tell_the_end(self, *, removes: bool) -> None:
        if removes:
            self._reporter.remove(self._applied.paths.runtime)
        elif self._reporter.has_written:
            self._reporter.write_last(self._applied.paths.runtime, self._last_report())

    def report(self) -> FirewallReport:
        """Say where it stands."""
        listed, kernel, firewall = self._listed, self._kernel, self._applied.firewall
        ipv4, ipv6 = kernel.counts(self._clock.now())
        totals = kernel.totals
        flooding = self._floods.flooding if firewall.sources == "flooding" else ()
        return FirewallReport(
            pid=os.getpid(),
            at=self._clock.now(),
            started=self._started,
            backend=firewall.backend,
            mode=str(self._applied.mode if listed is None else listed.mode),
            sources=firewall.sources,
            generation=0 if listed is None else listed.generation,
            position=0 if listed is None else listed.position,
            banned_ipv4=ipv4,
            banned_ipv6=ipv6,
            dropped_ipv4=totals["ipv4"].packets,
            dropped_ipv6=totals["ipv6"].packets,
            bytes_ipv4=totals["ipv4"].bytes,
            bytes_ipv6=totals["ipv6"].bytes,
            dropped_per_second=round(self._rate, 3),
            changed_at=self._changed_at,
            checked_at=kernel.checked_at,
            healed=self._healed,
            flooding=flooding[:LARGEST_FLOODING],
            trouble=self.trouble,
            cut=self._cutting.removed,
        )

    def _last_report(self) -> FirewallReport:
        """Say what is left when no client runs."""
        now, held, feed = self._clock.now(), self._kernel.held, self._applied.feed
        ends = () if held is None else held.banned.values()
        until = max(ends, default=now)
        if self._kernel.checked_at is None:  # a former client may have left something
            until = now + feed.ban_for + feed.stale_max
        return replace(self.report(), kept_until=float(until))
