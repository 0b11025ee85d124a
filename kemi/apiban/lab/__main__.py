"""``bin/lab``: the lab's command line."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from apiban.errors import ApibanError
from apiban.lab.actions import VALUES
from apiban.lab.base import RELEASES, host_release
from apiban.lab.command import LabError
from apiban.lab.lab import ROOT, Lab, default_folder
from apiban.lab.play import Report, play
from apiban.lab.situation import Expect, Plan, Situation, read_situations
from apiban.lab.table import head, lines, verdict
from apiban.trial.sipp import SCENARIOS, expectation

__all__ = ["main"]

_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; give the exit status."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return int(options.work(Lab(default_folder(ROOT, os.environ), _say), options))
    except ApibanError as error:
        sys.stderr.write(f"bin/lab: {error}\n")
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/lab",
        description="The lab: floods and failures around a Kamailio in docker-compose"
        " (docs/lab.md). It needs root, unless a Docker daemon and a registry answer.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="build and start it, and leave it running")
    flood = commands.add_parser("flood", help="flood it from a listed source, and say what came")
    check = commands.add_parser("check", help="play the situations, and end with a table")
    logs = commands.add_parser("logs", help="print what the services said")
    down = commands.add_parser("down", help="take away all that was made for it")
    for command in (up, check):
        command.add_argument(
            "--release",
            choices=RELEASES,
            default=host_release(_os_release()),
            help="the Debian that the images are of (default: %(default)s)",
        )
    up.add_argument("--ports", action="store_true", help="open some ports on 127.0.0.1")
    up.set_defaults(work=_up)
    flood.add_argument(
        "--scenario", default="scanner-options-flood", help="a folder of sipp-scenarios"
    )
    flood.add_argument("--rate", type=_number, default=5000, help="calls a second (%(default)s)")
    flood.add_argument("--seconds", type=_number, default=10, help="for so long (%(default)s)")
    flood.add_argument("--transport", choices=("udp", "tcp"), default="udp")
    flood.set_defaults(work=_flood)
    check.add_argument("names", nargs="*", metavar="NAME", help="a situation (default: all)")
    check.add_argument(
        "--list", action="store_true", help="print the situations, and play none of them"
    )
    check.set_defaults(work=_check)
    logs.set_defaults(work=_logs)
    down.set_defaults(work=_down)
    return parser


def _up(lab: Lab, options: argparse.Namespace) -> int:
    try:
        lab.up(options.release, ports=options.ports, environ=os.environ)
    except (ApibanError, KeyboardInterrupt):
        _say("what was made so far is taken away by: bin/lab down")
        raise
    _say("images: " + ", ".join(f"{name} {size}" for name, size in lab.sizes().items()))
    return 0


def _flood(lab: Lab, options: argparse.Namespace) -> int:
    if not lab.is_up:
        raise LabError("there is no lab: bin/lab up")
    usual = expectation(SCENARIOS, options.scenario)
    if options.transport not in usual.transports:
        raise LabError(f"{options.scenario} is not for {options.transport}")
    plan = Plan(
        scenario=options.scenario,
        source="attacker",
        name="flood",
        transport=options.transport,
        target="kamailio",
        ipv6=False,
        rate=options.rate,
        count=options.rate * options.seconds,
        later=False,
        answers="none",
        success=usual.success_ratio,
        reached=0.0,
    )
    what = "a flood by hand"
    report = play(
        Situation("flood", what, 0, (plan,), (), (), Expect(limit=math.inf)), lab.services
    )
    return _table([report])


def _check(lab: Lab, options: argparse.Namespace) -> int:
    situations = _chosen(read_situations(SCENARIOS, VALUES), options.names)
    if options.list:
        for one in situations:
            _say(f"{one.name:<24} {one.what}")
        return 0
    began = time.monotonic()
    was_up = lab.is_up
    try:
        if not was_up:
            lab.up(options.release, ports=False, environ=os.environ)
            _say("images: " + ", ".join(f"{name} {size}" for name, size in lab.sizes().items()))
        _say(head())
        reports = []
        for situation in situations:
            reports.append(play(situation, lab.services))
            for line in lines(reports[-1]):
                _say(line)
            if reports[-1].failures:
                _say(f"    {_load()}")
    finally:
        if not was_up:
            with _undisturbed():
                lab.down()
    _say(verdict(reports, time.monotonic() - began))
    return 1 if any(report.failures for report in reports) else 0


def _load() -> str:
    """Say how busy this machine is: with others at work, calls get lost for want of a processor."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"


def _logs(lab: Lab, _options: argparse.Namespace) -> int:
    sys.stdout.write(lab.logs())
    return 0


def _down(lab: Lab, _options: argparse.Namespace) -> int:
    with _undisturbed():
        lab.down()
    return 0


def _table(reports: Sequence[Report]) -> int:
    _say(head())
    for report in reports:
        for line in lines(report):
            _say(line)
    return 1 if any(report.failures for report in reports) else 0


def _chosen(situations: list[Situation], names: Sequence[str]) -> list[Situation]:
    known = {one.name: one for one in situations}
    for name in names:
        if name not in known:
            raise LabError(f"there is no situation {name!r}; there are: {', '.join(known)}")
    return [known[name] for name in names] if names else situations


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _os_release() -> str:
    try:
        return Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return ""


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore what would end us, and the programs that we run, in the middle of the clean-up."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
