"""``bin/bench``: measures, side by side in one run, and prints what was found as Markdown.

It needs root: it runs in a network namespace of its own, which holds nothing but loopback, so that
the floods meet nobody and rules of nftables touch nobody. It is the first process of a namespace of
processes, too, which all end with it, however it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from apiban.bench.cost import cost_of_calls, cost_of_drops, cost_of_lists, cost_of_requests
from apiban.bench.load import enforcement, goodput, growth, memory, sync
from apiban.bench.machine import Machine, core_seconds
from apiban.bench.nodes import ALLOCATORS
from apiban.bench.report import Part, Report
from apiban.errors import ApibanError

__all__ = ["main"]

PARTS: Final = ("drops", "good", "goodput", "growth", "sync", "firewall")
_INSIDE: Final = "APIBAN_BENCH_NAMESPACE"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for; give the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for path in (options.json, options.markdown):
        if path is not None and not path.resolve().parent.is_dir():
            parser.error(f"{path}: there is no such folder")
    if options.plots is not None and not options.plots.is_dir():
        parser.error(f"{options.plots}: there is no such folder")
    if _INSIDE not in os.environ:
        return _in_namespace(sys.argv[1:] if arguments is None else arguments)
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        report = _measured(options)
    except KeyboardInterrupt:
        return 130
    sys.stdout.write(report.markdown())
    if options.markdown is not None:
        options.markdown.write_text(report.markdown(), encoding="utf-8")
    if options.json is not None:
        options.json.write_text(json.dumps(report.data(), indent=1) + "\n", encoding="utf-8")
    return 1 if report.failures else 0


def _measured(options: argparse.Namespace) -> Report:
    """Measure part by part; one that fails is told of, and the others are measured all the same."""
    began, busy, (passed, stolen) = time.monotonic(), os.getloadavg()[0], core_seconds()
    parts: list[Part] = []
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="apiban-bench-") as work:
        for number, (name, part) in enumerate(_parts(options)):
            try:
                parts.extend(part(Path(work) / str(number)))
            except (ApibanError, OSError, subprocess.SubprocessError) as error:
                failures.append(f"{name}: {' '.join(str(error).split())}")
                _say(f"bench: {failures[-1]}")
    minutes = (time.monotonic() - began) / 60
    now, stolen_now = core_seconds()
    steal = (stolen_now - stolen) / max(now - passed, 1e-9)
    how = f"{'quick' if options.quick else 'full'} run, {minutes:.1f} minutes"
    noise = f"load average {busy:.2f} before it, {steal:.1%} of the cores stolen during it"
    taken = f"{time.strftime('%Y-%m-%d')}, {how}, {noise}"
    return Report(Machine.here(), taken, tuple(parts), tuple(failures))


def _interrupt(number: int, _frame: object) -> None:
    """End as with ^C; what cleans up then is not interrupted again."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench",
        description="Measure this project beside Kamailio's own means, in one run, on loopback.",
        epilog="A figure marked ~ differs too much from round to round to be trusted: measure on a "
        "machine that does nothing else. Needs root and two cores.",
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, within a minute")
    parser.add_argument(
        "--only", choices=PARTS, action="append", help="a part to measure (default: all of them)"
    )
    parser.add_argument(
        "--allocator",
        choices=ALLOCATORS,
        action="append",
        help="Kamailio's (default: both; tlsf alone with --quick)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write plots (SVG) there")
    return parser


def _in_namespace(arguments: Sequence[str]) -> int:
    """Run it again, in namespaces of its own."""
    if trouble := _trouble():
        _say(f"bench: {trouble}")
        return 1
    inner = f'ip link set lo up && exec "{sys.executable}" -m apiban.bench "$@"'
    own = ("--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    command = ["unshare", *own, "sh", "-c", inner, "bench", *arguments]
    # A session of its own: it hears of a signal once, from here.
    child = subprocess.Popen(command, env={**os.environ, _INSIDE: "1"}, start_new_session=True)

    def forward(_number: int, _frame: object) -> None:
        # unshare waits through a SIGTERM, and through no other signal; the rest of the group ends.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    return child.wait()


def _trouble() -> str:
    """Say what is missing, if something is."""
    if os.geteuid():
        return "it needs root, for namespaces of its own"
    if Machine.cores() < 2:
        return "it needs two cores, one for the flood and one for the worker"
    programs = {"unshare": "util-linux", "taskset": "util-linux", "ip": "iproute2"}
    for name, package in programs.items():
        if shutil.which(name) is None:
            return f"{name} is not in PATH (Debian has it in {package})"
    return ""


def _parts(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[Path], Sequence[Part]]]]:
    """Give what is to be measured, named and in order; each takes a folder that it makes."""
    quick: bool = options.quick
    rounds = 2 if quick else 9
    packets = 20_000 if quick else 100_000
    only = options.only or PARTS
    names = options.allocator or (("tlsf",) if quick else ALLOCATORS)
    for name in names:
        cost = partial(partial, allocator=name, rounds=rounds, say=_said)
        load = partial(partial, allocator=name, quick=quick, say=_said)
        if "drops" in only:
            yield f"drops (-x {name})", cost(cost_of_drops, packets=packets)
        if "good" in only:
            yield f"good requests (-x {name})", cost(cost_of_requests, packets=packets // 2)
            if not quick:
                yield f"proxied calls (-x {name})", cost(cost_of_calls, calls=750)
        if "goodput" in only:
            yield f"goodput (-x {name})", load(goodput, plots=options.plots)
        if "growth" in only:
            if name == names[-1]:  # little of it depends on the allocator
                yield f"growth (-x {name})", load(growth)
                yield f"enforcement (-x {name})", load(enforcement)
            else:
                yield f"memory (-x {name})", load(memory)
    if "sync" in only:
        yield "sync", partial(sync, quick=quick, say=_said)
    if "firewall" in only:
        yield "firewall", partial(cost_of_lists, quick=quick, say=_said)


def _said(text: str) -> None:
    _say(f"  {text}")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
