"""The firewall client: whether it runs, what the kernel holds, and what both need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from apiban.doctor.finding import Finding, fail, note, ok, warn
from apiban.firewall.interfaces import absent
from apiban.firewall.report import FirewallReport
from apiban.settings.model import FirewallSettings

__all__ = ["Listed", "check_client", "check_held", "check_privileges", "check_tools"]

_RESTART: Final = "systemctl restart apiban-firewall; journalctl -u apiban-firewall says more"
# What each backend calls, and the Debian package that has it.
_TOOLS: Final = {
    "nftables": (("nft", "nftables"),),
    "ipset": (("ipset", "ipset"), ("iptables", "iptables"), ("ip6tables", "iptables")),
    "dry-run": (),
}
_NET_ADMIN: Final = 12
_OTHERS_ALLOWED: Final = 3  # CAP_NET_RAW and the like, which the backend ipset may want
# So long the client may take for a new list.
_TAKES: Final = 10.0


@dataclass(frozen=True, slots=True)
class Listed:
    """The published list: its number, its mode, when it was compiled."""

    generation: int
    mode: str
    created: float


def check_client(
    report: FirewallReport | None, *, runs: bool, alive: bool, kamailio: bool, now: float
) -> Iterator[Finding]:
    """Tell how the client is; ``alive`` is whether its process is there, ``runs`` that it writes.

    ``kamailio`` is whether Kamailio drops here, too.
    """
    if report is None:
        told = "no firewall client runs here; apiban firewall status says what the kernel holds"
        yield note("firewall", told)
        return
    if report.stopped:
        yield warn(
            "firewall",
            f"the client was stopped {now - report.at:,.0f} s ago:"
            " what is in the kernel runs out by itself",
            "systemctl start apiban-firewall to go on; apiban firewall flush takes it out now",
        )
        return
    if not runs:
        what = f"process {report.pid} is gone"
        if alive:
            what = f"process {report.pid} has said nothing for {now - report.at:,.0f} s"
        tell = warn if kamailio else fail
        yield tell("firewall", f"{what}: what is in the kernel runs out by itself", _RESTART)
        return
    yield ok(
        "firewall",
        f"process {report.pid}, {report.backend}, {report.mode}: {report.banned_ipv4:,} IPv4 and"
        f" {report.banned_ipv6:,} IPv6 blocks in the kernel",
    )
    if report.trouble:
        yield fail("firewall", report.trouble, "mend that; it tries again by itself")
    if report.healed:
        yield note(
            "firewall",
            f"others undid its rules {report.healed} times since its start; they were put back",
            "find what flushes the whole ruleset: a firewall's reload, Docker, a timer",
        )


def check_held(report: FirewallReport, listed: Listed | None, *, now: float) -> Iterator[Finding]:
    """Tell whether the kernel holds the published list; nothing where that cannot be compared.

    A client that makes its list of the store itself, since nobody syncs, has no generation.
    """
    if listed is None or not report.generation or now - listed.created < _TAKES:
        return
    if report.generation != listed.generation:
        yield fail(
            "kernel",
            f"it holds generation {report.generation}, and the list is at {listed.generation}",
            _RESTART,
        )
    elif report.mode != listed.mode:
        yield fail("kernel", f"its mode is {report.mode}, and the list's {listed.mode}", _RESTART)
    else:
        yield ok("kernel", f"holds the list, generation {report.generation}")


def check_tools(settings: FirewallSettings, find: Callable[[str], str | None]) -> Iterator[Finding]:
    """Tell whether the programs are there that the backend calls; ``find`` is like ``which``."""
    missing = [(name, package) for name, package in _TOOLS[settings.backend] if not find(name)]
    for name, package in missing:
        yield fail("firewall tools", f"{name} is not there", f"apt-get install {package}")
    if not missing and _TOOLS[settings.backend]:
        names = ", ".join(name for name, _ in _TOOLS[settings.backend])
        yield ok("firewall tools", f"{names}: there")
    for name in absent(settings.interfaces):
        yield warn(
            "firewall interfaces",
            f"there is no interface {name}: what comes in elsewhere is not looked at",
            "firewall.interfaces names those that listed sources come by; none: all",
        )
    if settings.conntrack and not find("conntrack"):
        yield warn(
            "firewall tools",
            "conntrack is not there: connections of newly banned sources stay, by which flowtables"
            " and rules before ours may let them go on",
            "apt-get install conntrack, or firewall.conntrack = false",
        )


def check_privileges(report: FirewallReport, effective: int | None) -> Iterator[Finding]:
    """Tell what the client may do: ``effective`` are its capabilities, None where not known."""
    if effective is None or report.backend == "dry-run":
        return
    if not effective >> _NET_ADMIN & 1:
        yield fail(
            "firewall rights",
            f"process {report.pid} lacks CAP_NET_ADMIN: the kernel refuses its changes",
            "run it by apiban-firewall.service, or as root",
        )
    elif effective.bit_count() > _OTHERS_ALLOWED:
        yield note(
            "firewall rights",
            f"process {report.pid} may do more than it must",
            "apiban-firewall.service gives it CAP_NET_ADMIN alone",
        )
    else:
        yield ok("firewall rights", "CAP_NET_ADMIN, and not all of root's")
