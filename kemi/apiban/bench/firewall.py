"""What it costs to put a list into the kernel, to change it there, and to find it there again.

Everything that is between the published list's file and the kernel counts: CPU time of this process
and of those that it starts. It happens in the network namespace that this runs in, which must be a
private one.
"""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from apiban.address import parse_address
from apiban.bench.lists import addresses
from apiban.bench.machine import BenchError
from apiban.bench.nftables import apply_rules, is_private
from apiban.bench.rounds import Figure, alternate
from apiban.firewall.backend import Backend
from apiban.firewall.choose import make_backend, rules_of
from apiban.firewall.elements import Held
from apiban.firewall.plan import after, plan
from apiban.firewall.rules import Rules
from apiban.firewall.wanted import wanted_of
from apiban.settings import Mode, load_settings
from apiban.snapshot import load_snapshot
from apiban.snapshot.compile import compile_ranges
from apiban.snapshot.file import write_snapshot
from apiban.snapshot.format import encode_snapshot
from apiban.snapshot.origin import Origin

__all__ = ["CHANGED", "IPSET", "NFTABLES", "PROCESSES", "Lists", "measure_lists"]

NFTABLES: Final = "ours, nftables"
IPSET: Final = "ours, ipset"
PROCESSES: Final = "one nft process an address"
CHANGED: Final = 250  # as many as come, and as many go

_BACKENDS: Final[Mapping[str, Literal["nftables", "ipset"]]] = {
    NFTABLES: "nftables",
    IPSET: "ipset",
}
_DAY: Final = 86400
_TABLE: Final = "ip apiban_bench_processes"


@dataclass(frozen=True, slots=True)
class Lists:
    """CPU seconds by the way into the kernel: the whole list, a change of it, and a restart.

    ``sampled`` are the processes that were measured of ``PROCESSES``: more cost as much each.
    """

    addresses: int
    sampled: int
    load: Mapping[str, Figure]
    change: Mapping[str, Figure]
    restart: Mapping[str, Figure]


def measure_lists(
    folder: Path, *, count: int, sampled: int, rounds: int, say: Callable[[str], None]
) -> Lists:
    """Measure with lists of so many addresses.

    Raises:
        BenchError: this is no private network namespace.
        FirewallError: a backend cannot work here.

    """
    if not is_private():
        raise BenchError("no firewall is touched outside of a private network namespace")
    folder.mkdir(parents=True)
    now = int(time.time())
    texts = addresses(0, count + CHANGED)
    files = (folder / "before", folder / "after")
    _write(files[0], texts[:count], now)
    _write(files[1], texts[CHANGED:], now)
    settings = load_settings(folder / "apiban.toml", {}).firewall
    rules = rules_of(settings, Mode.ENFORCE)
    ours = {
        name: _Client(make_backend(replace(settings, backend=backend)), rules, files)
        for name, backend in _BACKENDS.items()
    }
    processes = _Processes(texts[:count], sampled)
    loads = {**{name: one.load for name, one in ours.items()}, PROCESSES: processes.load}
    changes = {**{name: one.change for name, one in ours.items()}, PROCESSES: processes.change}
    restarts = {name: one.restart for name, one in ours.items()}
    try:
        return Lists(
            count,
            sampled,
            load=alternate(loads, rounds, say=say),
            change=alternate(changes, rounds, say=say),
            restart=alternate(restarts, rounds, say=say),
        )
    finally:
        for one in ours.values():
            one.remove()
        processes.remove()


class _Client:
    """A backend, and what is put through it as the client does that."""

    def __init__(self, backend: Backend, rules: Rules, files: tuple[Path, Path]) -> None:
        self._backend = backend
        self._rules = rules
        self._files = files
        self._latest = 0
        self._held: Held | None = None

    def load(self) -> float:
        """Put the list into a kernel that holds nothing of ours."""
        self.remove()
        self._held = None
        return _cpu_of(lambda: self._bring(0))

    def change(self) -> float:
        """Bring the other list."""
        return _cpu_of(lambda: self._bring(1 - self._latest))

    def restart(self) -> float:
        """Forget what the kernel holds, as a client that starts again, and find it there."""

        def again() -> None:
            self._held = self._backend.read(self._rules, now=time.time())
            self._bring(self._latest)

        return _cpu_of(again)

    def remove(self) -> None:
        self._backend.remove()

    def _bring(self, number: int) -> None:
        now = time.time()
        wanted = wanted_of(load_snapshot(self._files[number]), (), now=now)
        change = plan(wanted, self._held, now=now)
        if change:
            self._backend.apply(change, self._rules, now=now)
        self._held = after(self._held, change)
        self._latest = number


class _Processes:
    """``nft add element``, run once for each address, into a set like ours without any end."""

    def __init__(self, texts: list[str], sampled: int) -> None:
        self._texts = texts
        self._sampled = min(sampled, len(texts))
        self._is_full = False

    def load(self) -> float:
        """Begin with an empty set; what was measured is reckoned up to the list's length."""
        self._make(())
        self._is_full = False
        spent = _cpu_of(lambda: self._each("add", self._texts[: self._sampled]))
        return spent * len(self._texts) / self._sampled

    def change(self) -> float:
        """Take addresses out of the full set, and put as many in."""
        if not self._is_full:
            self._make(self._texts)
            self._is_full = True
        some = self._texts[: min(CHANGED, self._sampled)]
        spent = _cpu_of(lambda: self._each("delete", some))
        spent += _cpu_of(lambda: self._each("add", some))
        return spent * CHANGED / len(some)

    def remove(self) -> None:
        apply_rules(f"add table {_TABLE}\ndelete table {_TABLE}\n")

    def _make(self, texts: Iterable[str]) -> None:
        self.remove()
        listed = ", ".join(texts)
        elements = f"elements = {{ {listed} }};" if listed else ""
        apply_rules(f"table {_TABLE} {{\nset listed {{ type ipv4_addr; {elements} }}\n}}\n")

    def _each(self, verb: str, texts: Iterable[str]) -> None:
        for text in texts:
            words = ["nft", verb, "element", *_TABLE.split(), "listed", "{", text, "}"]
            subprocess.run(words, check=True, capture_output=True)


def _write(path: Path, texts: Iterable[str], now: int) -> None:
    """Write a list as it is published; no ban ends while it is measured."""
    listed = sorted(parse_address(text).first for text in texts)
    bans = ((one, one, now + _DAY + one % (6 * _DAY), int(Origin.FEED)) for one in listed)
    content = encode_snapshot(
        generation=1,
        created=now,
        mode=Mode.ENFORCE,
        ipv4=compile_ranges(bans, ()),
        ipv6=compile_ranges((), ()),
    )
    write_snapshot(path, content)


def _cpu_of(work: Callable[[], object]) -> float:
    before = _cpu()
    work()
    return _cpu() - before


def _cpu() -> float:
    """Give the CPU seconds of this process, and of those it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
