"""``bin/bench``: measures, side by side in one run, and prints what was found as Markdown.

It needs root: it runs in a network namespace of its own, which holds nothing but loopback, so that
the floods meet nobody and rules of nftables touch nobody.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from apiban.bench.cost import cost_of_calls, cost_of_drops, cost_of_requests
from apiban.bench.load import enforcement, goodput, growth, sync
from apiban.bench.machine import Machine
from apiban.bench.nodes import ALLOCATORS
from apiban.bench.report import Part, Report
from apiban.errors import ApibanError

__all__ = ["main"]

PARTS: Final = ("drops", "good", "goodput", "growth", "sync")
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
    began = time.monotonic()
    parts: list[Part] = []
    with tempfile.TemporaryDirectory(prefix="apiban-bench-") as work:
        try:
            for number, part in enumerate(_parts(options)):
                parts.extend(part(Path(work) / str(number)))
        except ApibanError as error:
            _say(f"bench: {error}")
            return 1
        except KeyboardInterrupt:
            return 130
    minutes = (time.monotonic() - began) / 60
    how = f"{'quick' if options.quick else 'full'} run, {minutes:.1f} minutes"
    report = Report(Machine.here(), f"{time.strftime('%Y-%m-%d')}, {how}", tuple(parts))
    sys.stdout.write(report.markdown())
    if options.markdown is not None:
        options.markdown.write_text(report.markdown(), encoding="utf-8")
    if options.json is not None:
        options.json.write_text(json.dumps(report.data(), indent=1) + "\n", encoding="utf-8")
    return 0


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
    """Run it again, in a network namespace of its own."""
    if os.geteuid():
        _say("bench: it needs root, for a network namespace of its own")
        return 1
    inner = f'ip link set lo up && exec "{sys.executable}" -m apiban.bench "$@"'
    command = ["unshare", "--net", "sh", "-c", inner, "bench", *arguments]
    with subprocess.Popen(command, env={**os.environ, _INSIDE: "1"}) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue  # the child has it from the terminal too, and ends what it started


def _parts(options: argparse.Namespace) -> Iterator[Callable[[Path], Sequence[Part]]]:
    """Give what is to be measured, in order; each takes a folder that it makes."""
    quick: bool = options.quick
    rounds = 3 if quick else 9
    packets = 20_000 if quick else 100_000
    only = options.only or PARTS
    names = options.allocator or (("tlsf",) if quick else ALLOCATORS)
    for name in names:
        cost = partial(partial, allocator=name, rounds=rounds, say=_said)
        load = partial(partial, allocator=name, quick=quick, say=_said)
        if "drops" in only:
            yield cost(cost_of_drops, packets=packets)
        if "good" in only:
            yield cost(cost_of_requests, packets=packets // 2)
            if not quick:
                yield cost(cost_of_calls, calls=750)
        if "goodput" in only:
            yield load(goodput, plots=options.plots)
        if "growth" in only and name == names[-1]:  # it hardly depends on the allocator
            yield load(growth)
            yield load(enforcement)
    if "sync" in only:
        yield partial(sync, quick=quick, say=_said)


def _said(text: str) -> None:
    _say(f"  {text}")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
