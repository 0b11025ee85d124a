"""Waiting until all who run on this host have a change: Kamailio's workers, and the kernel."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from apiban.cli.host import Host
from apiban.store import Store

__all__ = ["InForce", "wait_in_force"]

_POLL: Final = 0.02
_LEFT: Final = (
    "the firewall client runs no more, and the kernel keeps what it held until that runs out: "
    "restart apiban-firewall"
)
_STOPPED: Final = (
    "the firewall client was stopped, and the kernel keeps what it held until that runs out: "
    "apiban firewall once brings it up to date"
)


@dataclass(frozen=True, slots=True)
class InForce:
    """What became of a change: ``seconds`` until all here had it, None when somebody has not.

    ``where`` names who has it: "kamailio" for its workers, "kernel" for the firewall client.
    ``why_not`` says what stands in the way of the others; ``runs`` is whether any of the two runs
    here at all.
    """

    seconds: float | None
    generation: int = 0
    why_not: str = ""
    runs: bool = True
    where: tuple[str, ...] = ()


def wait_in_force(host: Host, store: Store, *, at_most: float = 5.0) -> InForce:
    """Wait until the workers and the kernel have all that was written through this store.

    Each only where it runs: Kamailio with the module, the firewall client.
    """
    position = store.noted  # not what others wrote since, which may change no list
    last, runs_here = host.firewall_report(), host.firewall()
    if host.board is None and last is None:
        why_not = "no Kamailio runs here, and no firewall client does; in force when one starts"
        return InForce(None, why_not=why_not, runs=False)
    whys = [_cannot_publish(host)] if host.board is not None else []
    missing = {"kamailio"} if whys == [""] else set()
    if runs_here is not None:
        missing.add("kernel")
    elif last is not None:
        whys.append(_STOPPED if last.stopped else _LEFT)
    having, waited = _wait(host, missing, position, at_most)
    whys += [_late(host, name, at_most) for name in sorted(missing - having)]
    whys = [why for why in whys if why]
    if whys:
        has = {"kernel": "the kernel has it", "kamailio": "Kamailio has it"}
        told = [*(has[name] for name in having), *whys]
        return InForce(None, why_not="; ".join(told), where=tuple(sorted(having)))
    return InForce(waited, _generation(host), where=tuple(sorted(having)))


def _wait(host: Host, names: set[str], position: int, at_most: float) -> tuple[set[str], float]:
    """Wait until each of these knows the store that far; give those that do, and how long."""
    began = time.monotonic()
    having: set[str] = set()
    while True:
        waited = time.monotonic() - began
        having |= {name for name in names - having if _knows(host, name) >= position}
        if having == names or waited >= at_most:
            return having, waited
        time.sleep(_POLL)


def _cannot_publish(host: Host) -> str:
    """Say why no change comes to the Kamailio that runs here; empty when one can."""
    if host.report() is None:
        return "no sync process runs; apiban doctor says more"
    return host.other_store()


def _knows(host: Host, name: str) -> int:
    """Give up to which number of the store's journal the one or the other knows it."""
    if name == "kamailio":
        return 0 if host.board is None else host.board.position
    report = host.firewall_report()
    return 0 if report is None else report.position


def _late(host: Host, name: str, at_most: float) -> str:
    """Say that the one or the other did not take a change in time."""
    if name == "kernel":
        report = host.firewall()
        trouble = report.trouble if report is not None else "its client has ended"
        why = f": {trouble}" if trouble else ""
        return f"not in the kernel within {at_most:g} s{why}; apiban doctor says more"
    silence = host.silence() or 0.0
    hangs = silence >= at_most
    why = f": the sync process hangs, for {silence:.0f} s by now" if hangs else ""
    return f"not published within {at_most:g} s{why}; apiban doctor says more"


def _generation(host: Host) -> int:
    if host.board is not None:
        return host.board.generation
    report = host.firewall_report()
    return 0 if report is None else report.generation
