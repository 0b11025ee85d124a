"""What becomes of good calls while a flood of INVITEs from listed sources comes in.

Kamailio is a stateful proxy with one UDP worker, alone on the second core. On the first core are
the flood (an ordinary process), the good callers and the upstream (both before ordinary processes,
so that the flood starves neither). Each point has a Kamailio, an upstream and a flood of its own:
nothing is carried over from the point before.

What the figures do not show, as all is on loopback:

- the kernel's work for a packet, up to its place in Kamailio's socket, is done on the sender's
  core. So is all that the rules of the offload do, which see the flood in bursts of up to 60
  messages besides: they cost the measured node nothing here;
- a good packet never comes amid such a burst, since it is sent from the same core. The socket of a
  worker that is overrun has had a moment to empty by then: whoever is overrun loses more calls on
  a real network than here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from apiban.bench.calls import Report
from apiban.bench.check import check_node
from apiban.bench.flood import BURST
from apiban.bench.lists import FEW, LISTED
from apiban.bench.machine import BenchError, UdpSocket, cpu_seconds, udp_socket, waited_seconds
from apiban.bench.nftables import is_private
from apiban.bench.nodes import Node, Setup
from apiban.bench.offload import OFFLOAD, Offload
from apiban.bench.report import Goal
from apiban.trial.kamailio import CONFIGURATION
from apiban.trial.stage import UPSTREAM, free_port

__all__ = ["FULL", "HTABLE_EARLY", "NONE", "OURS", "OURS_OFFLOAD", "QUICK", "RECIPE"]
__all__ += ["Goodput", "Limits", "Plan", "Point", "Protection", "judge", "measure_goodput"]

NONE: Final = "no protection"
RECIPE: Final = "htable recipe"
HTABLE_EARLY: Final = "htable, pre-parse"
OURS: Final = "ours"
OURS_OFFLOAD: Final = "ours with kernel offload"

_CALLER: Final = "127.0.2.1"
_CORE: Final = "0"
_LEAD: Final = 0.5  # seconds that the flood comes before the first call
# MiB, shared. Kamailio's own 64 hold some 12,000 open calls; the worker is to be the limit here.
_MEMORY: Final = "4096"
# A caller, or a repetition, that is this late tells of a busy core and not of Kamailio.
_LATE: Final = 0.020
_SLOW_FLOOD: Final = 0.95
_WAITED: Final = 0.10
_COLLAPSED: Final = 0.25
_MORE_MEMORY: Final = re.compile(
    r"no (?:more )?(?:shared|shm|free) ?mem|out of (?:shared )?mem", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Protection:
    """A way to run the proxy."""

    name: str
    defines: tuple[str, ...] = ()
    list_in: str = ""
    offload: bool = False  # the firewall client runs beside it


PROTECTIONS: Final = {
    one.name: one
    for one in (
        Protection(NONE),
        Protection(RECIPE, ("WITH_RECIPE",), "htable"),
        Protection(HTABLE_EARLY, ("WITH_HTABLE_EARLY",), "htable"),
        Protection(OURS, ("WITH_NATIVE",), "store"),
        Protection(OURS_OFFLOAD, ("WITH_NATIVE",), "store", offload=True),
    )
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured. ``rates`` are floods in messages a second, ascending.

    ``protected_from`` is the lowest flood, but for none at all, for those with a protection.
    """

    rates: tuple[int, ...]
    protections: tuple[str, ...] = tuple(PROTECTIONS)
    protected_from: int = 0
    seconds: float = 2.0  # of new calls, at each point
    calls: float = 75.0  # a second
    patience: float = 8.0  # seconds until a call is lost


FULL: Final = Plan(
    (0, 5000, *range(10_000, 60_000, 10_000), 75_000, *(100_000 * 2**n for n in range(5))),
    protected_from=10_000,
)
QUICK: Final = Plan((0, 100_000, 400_000), (NONE, OURS), seconds=0.5, patience=2.0)


@dataclass(frozen=True, slots=True)
class Point:
    """Good calls under one flood. Times in seconds, of the calls that were set up."""

    protection: str
    asked: int  # the flood's messages a second, as planned
    flood: float  # and as sent
    calls: int
    lost: int
    repeated: int  # the callers' messages that were sent again
    p50: float | None
    p99: float | None
    relayed: int  # the flood's INVITEs that came to the upstream
    dropped: int  # packets that found no room in Kamailio's socket
    worker: float  # the share of its core that the worker used
    waited: float  # and the share of the time that it waited for it
    late: float  # how late the callers themselves were, 99th percentile
    doubts: tuple[str, ...] = ()  # why the point may not tell of Kamailio

    @property
    def success(self) -> float:
        """The share of the calls that succeeded."""
        return 1 - self.lost / self.calls


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a protection gives way: floods as sent, in messages a second; None: not reached."""

    protection: str
    lossless: float | None  # the highest, all lower ones included, at which no call was lost
    begins: float | None  # the lowest at which a call was lost
    half: float | None  # the lowest at which more than half were lost


@dataclass(frozen=True, slots=True)
class Goodput:
    """All points of one run with one allocator."""

    allocator: str
    plan: Plan
    points: tuple[Point, ...]

    def of(self, protection: str) -> tuple[Point, ...]:
        """Give a protection's points, by rate."""
        found = (one for one in self.points if one.protection == protection)
        return tuple(sorted(found, key=lambda one: one.asked))

    def limits(self) -> tuple[Limits, ...]:
        """Give each protection's limits."""
        return tuple(_limits(name, self.of(name)) for name in self.plan.protections)

    def goal(self) -> Goal:
        """Count what ours loses where no protection loses more than half.

        Without a value if the run does not show it; doubts of either point are the goal's.
        """
        half = next((one for one in self.of(NONE) if one.success < 0.5), None)
        where = "" if half is None else f" at {half.asked:,}/s,"
        name = f"calls lost{where} where no protection loses more than half (-x {self.allocator})"
        ours = [one for one in self.of(OURS) if half is not None and one.asked == half.asked]
        if half is None or not ours:
            return Goal(name, None, 0)
        return Goal(name, ours[0].lost, 0, bool(half.doubts or ours[0].doubts))

    def rows(self) -> list[dict[str, Any]]:
        """Give the points as plain data, by protection and rate."""
        return [
            {"allocator": self.allocator, **dataclasses.asdict(one), "success": one.success}
            for name in self.plan.protections
            for one in self.of(name)
        ]


def _limits(name: str, points: Sequence[Point]) -> Limits:
    clean = list(itertools.takewhile(lambda one: not one.lost, points))
    return Limits(
        name,
        lossless=clean[-1].flood if clean else None,
        begins=points[len(clean)].flood if len(clean) < len(points) else None,
        half=next((one.flood for one in points if one.success < 0.5), None),
    )


def measure_goodput(
    folder: Path, *, allocator: str, plan: Plan, say: Callable[[str], None]
) -> Goodput:
    """Measure rate by rate, the protections in turn, every second rate backwards.

    A protection is left out of the higher rates once it has lost most of the calls, or once the
    flood cannot be made faster. The offload is measured in a private network namespace only.
    """
    left = [PROTECTIONS[name] for name in plan.protections]
    if not (is_private() and shutil.which("nft")):
        left = [one for one in left if not one.offload]
        say("no kernel offload: it needs nft, and a private network namespace (unshare -n)")
    points: list[Point] = []
    for turn, rate in enumerate(plan.rates):
        for protection in left[:: -1 if turn % 2 else 1]:
            if protection.list_in and 0 < rate < plan.protected_from:
                continue
            point = _point(protection, rate, folder / f"{rate}-{len(points)}", allocator, plan)
            points.append(point)
            say(_line(point))
            if point.success <= _COLLAPSED or (rate and point.flood < rate * _SLOW_FLOOD):
                left.remove(protection)
    return Goodput(allocator, plan, tuple(points))


def _line(point: Point) -> str:
    p99 = "-" if point.p99 is None else f"{point.p99 * 1e3:.0f} ms"
    doubts = f" ({'; '.join(point.doubts)})" if point.doubts else ""
    return (
        f"{point.protection}, flood {point.flood:,.0f}/s: {point.success:.1%} of {point.calls} "
        f"calls, p99 {p99}{doubts}"
    )


def _point(protection: Protection, rate: int, folder: Path, allocator: str, plan: Plan) -> Point:
    upstream = f"{UPSTREAM}:{free_port(UPSTREAM)}"
    setup = Setup(
        protection.name,
        (*protection.defines, f'BENCH_UPSTREAM="sip:{upstream}"'),
        configuration=CONFIGURATION.parent / "bench" / "proxy.cfg",
        list_in=protection.list_in,
        answers="405",  # to OPTIONS
    )
    node = Node(
        setup,
        folder,
        LISTED,
        allocator=allocator,
        settings=OFFLOAD if protection.offload else "",
        options=("-m", _MEMORY),
    )
    with _Program("apiban.bench.upstream", upstream) as server, node, contextlib.ExitStack() as on:
        check_node(node)
        log = folder / "firewall.log"
        client = Offload(node.environ, node.runtime, log) if protection.offload else None
        if client is not None:
            on.enter_context(client)
        pids, port = node.workers(), int(upstream.rpartition(":")[2])
        flood = on.enter_context(_flood(node.target, rate, plan)) if rate else None
        if flood is not None:
            time.sleep(_LEAD)
        # Until the client has seen who floods, all of it is Kamailio's, as without it.
        missing = len(LISTED) - client.flooding(len(LISTED)) if flood and client else 0
        before, began = udp_socket(node.port), time.monotonic()
        cpu, waited = cpu_seconds(pids), waited_seconds(pids)
        words = ("--source", _CALLER, "--rate", str(plan.calls), "--seconds", str(plan.seconds))
        with _Program(
            "apiban.bench.calls", node.target, *words, "--patience", str(plan.patience)
        ) as caller:
            found = caller.result(plan.seconds + 2 * plan.patience + 30)
            report = Report(**{**found, "setups": tuple(found["setups"])})
        took = time.monotonic() - began
        worker, waited = cpu_seconds(pids) - cpu, waited_seconds(pids) - waited
        sent = flood.end() if flood is not None else {}
        dropped, unseen = udp_socket(node.port).lost - before.lost, udp_socket(port)
        relayed = server.end()["flood"]
    return judge(
        protection,
        rate,
        report,
        sent=sent,
        relayed=relayed,
        dropped=dropped,
        worker=worker / took,
        waited=waited / took,
        upstream=unseen,
        missing=missing,
        exhausted=any(_MORE_MEMORY.search(line) for line in node.kamailio.log_lines()),
    )


def judge(  # noqa: PLR0913 - what was seen
    protection: Protection,
    rate: int,
    report: Report,
    *,
    sent: Mapping[str, Any],
    relayed: int,
    dropped: int,
    worker: float,
    waited: float,
    upstream: UdpSocket,
    exhausted: bool,
    missing: int = 0,
) -> Point:
    """Make a point of what was seen, with its doubts. ``sent`` is the flood's own report.

    ``missing`` are the flooding sources that the kernel should have, and had not.
    """
    flood = sent["sent"] / sent["seconds"] if sent else 0.0
    late = _percentile(report.lateness, 0.99) or 0.0
    doubts = {
        "callers without priority": not report.urgent,
        f"callers late by {late * 1e3:.0f} ms": late > _LATE,
        f"{upstream.lost} packets lost by the upstream": upstream.lost > 0,
        f"flood of {flood:,.0f}/s for {rate:,}/s": flood < rate * _SLOW_FLOOD,
        f"the worker waited {waited:.0%} of the time for its core": waited > _WAITED,
        "the flood began late": bool(sent) and sent["began"] > report.began,
        "the flood ended early": bool(sent) and sent["began"] + sent["seconds"] < report.ended,
        f"{relayed} INVITEs of the flood were relayed": bool(protection.list_in and relayed),
        "shared memory was exhausted": exhausted,
        f"{missing} flooding sources were not in the kernel": missing > 0,
    }
    return Point(
        protection.name,
        rate,
        flood,
        report.calls,
        report.lost,
        report.repeated,
        _percentile(report.setups, 0.5),
        _percentile(report.setups, 0.99),
        relayed,
        dropped,
        worker,
        waited,
        late,
        tuple(doubt for doubt, holds in doubts.items() if holds),
    )


def _percentile(values: Sequence[float], share: float) -> float | None:
    """Give the smallest value that so large a share does not exceed."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)] if values else None


def _flood(target: str, rate: int, plan: Plan) -> _Program:
    """Start a flood that lasts longer than any call, in bursts of a millisecond or of one."""
    packets = int(rate * (plan.seconds + 2 * plan.patience + 30))
    burst = max(1, min(BURST, rate // 1000))
    words = ("--sources", FEW, "--packets", str(packets), "--rate", str(rate))
    return _Program("apiban.bench.flood", target, *words, "--burst", str(burst), "--kind", "invite")


class _Program:
    """A program of this package on the first core, which prints its result as JSON."""

    def __init__(self, module: str, *words: str) -> None:
        self._module = module
        self._process = subprocess.Popen(
            ["taskset", "-c", _CORE, sys.executable, "-m", module, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # ^C is for us; we end it
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def end(self) -> Any:
        """End it and give its result."""
        self._process.send_signal(signal.SIGTERM)
        return self.result(10)

    def result(self, seconds: float) -> Any:
        """Give its result once it has ended by itself.

        Raises:
            BenchError: it failed, or does not end.

        """
        try:
            output, errors = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self._module} does not end") from None
        try:
            return json.loads(output)
        except ValueError:
            raise BenchError(f"{self._module}: {errors.strip()[-300:]}") from None
