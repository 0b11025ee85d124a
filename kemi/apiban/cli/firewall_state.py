"""What ``apiban firewall status`` knows: of the client that runs, else of the kernel itself."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

from apiban.cli.host import Host
from apiban.errors import FirewallError
from apiban.firewall.choose import rules_of
from apiban.firewall.client import FirewallClient
from apiban.firewall.elements import Block
from apiban.firewall.report import FirewallReport
from apiban.firewall.rules import Rules
from apiban.firewall.running import last_report, runs
from apiban.settings import Mode

__all__ = ["Standing", "standing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """The firewall at ``now``.

    ``report`` is what the client said last, None when none ever did; ``runs`` whether it still is
    there. ``held`` and ``wanted`` are numbers of blocks by family, None where they are not known:
    what the kernel holds where no client runs is for who may ask it, and which sources flood is
    known to the client alone. ``rules`` are those of the settings. ``trouble`` is one line, empty
    when nothing is wrong.
    """

    now: float
    backend: str
    sources: str
    mode: str
    interval: float
    report: FirewallReport | None
    runs: bool
    held: tuple[int, int] | None
    wanted: tuple[int, int] | None
    trouble: str
    rules: Rules

    @property
    def differs(self) -> bool:
        """Whether the kernel holds another number of blocks than it should."""
        return self.held is not None and self.wanted is not None and self.held != self.wanted


def standing(host: Host, client: FirewallClient) -> Standing:
    """Look at the report, the list and, where no client runs and the kernel allows it, at that."""
    settings, now = client.settings, host.clock.now()
    report = last_report(settings.paths.runtime, now)
    running = report is not None and runs(report, now)
    client.look()
    listed = client.listed
    mode = settings.mode if listed is None else listed.mode
    wanted: tuple[int, int] | None = None
    if mode is Mode.OFF:
        wanted = (0, 0)
    elif listed is not None and settings.firewall.sources == "all":
        wanted = _families(client.wanted(listed).banned)
    held: tuple[int, int] | None = None
    if running and report is not None:
        held, trouble = (report.banned_ipv4, report.banned_ipv6), report.trouble
    else:
        trouble = client.trouble
        try:
            found = client.kernel.backend.read(rules_of(settings.firewall, mode), now=now)
        except FirewallError as error:
            if os.geteuid() == 0:  # who may not ask has no trouble
                trouble = trouble or str(error)
        else:
            held = _families(() if found is None else found.banned)
    return Standing(
        now=now,
        backend=report.backend if running and report is not None else settings.firewall.backend,
        sources=report.sources if running and report is not None else settings.firewall.sources,
        mode=report.mode if running and report is not None else str(mode),
        interval=settings.firewall.interval,
        report=report,
        runs=running,
        held=held,
        wanted=wanted,
        trouble=trouble,
        rules=rules_of(settings.firewall, mode),
    )


def _families(blocks: Collection[Block]) -> tuple[int, int]:
    """Tell how many there are of IPv4 and of IPv6."""
    ipv4 = sum(family == 4 for family, _, _ in blocks)
    return ipv4, len(blocks) - ipv4
