"""``bin/run``: the main job in the foreground."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from apiban.errors import ApibanError
from apiban.gate import Board
from apiban.settings import DEFAULT_PATH, load_settings, settings_path
from apiban.trial.follow import Follower
from apiban.trial.kamailio import Kamailio, worker_cpu_seconds
from apiban.trial.sipp import SCENARIOS, Load, Result, Server, Sipp, serve, start
from apiban.trial.stage import (
    CALLER,
    CONTROL,
    LISTED,
    UPSTREAM,
    free_port,
    own_environ,
    sample_feed,
    wait,
    write_settings,
)
from apiban.trial.summary import Summary

__all__ = ["main"]

_FEED_VARIABLES: Final = (
    "APIBAN_KEY",
    "APIBANKEY",
    "APIBAN_FEED_KEY",
    "APIBAN_FEED_KEY_FILE",
    "APIBAN_FEED_URL",
    "APIBAN_SETTINGS",
)
_FIRST_LIST: Final = 60.0
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trial, or protect with the real list; give the exit status."""
    parser = argparse.ArgumentParser(prog="bin/run")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--listen", metavar="ADDRESS[:PORT]")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    configured = any(os.environ.get(name) for name in _FEED_VARIABLES) or DEFAULT_PATH.exists()
    job = _protect if configured else _try_out
    try:
        with tempfile.TemporaryDirectory(prefix="apiban-") as name:
            return job(Path(name), options.listen, once=options.once)
    except ApibanError as error:
        sys.stderr.write(f"bin/run: {error}\n")
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _listeners(listen: str | None, port: int) -> tuple[str, list[str]]:
    """Give host:port, and Kamailio's listeners on it."""
    host = listen or f"127.0.0.1:{port}"
    bare_ipv6 = host.startswith("[") and host.endswith("]")
    address = host if ":" in host and not bare_ipv6 else f"{host}:{port}"
    return address, [f"udp:{address}", f"tcp:{address}"]


# With a key ------------------------------------------------------------------------------------


def _protect(folder: Path, listen: str | None, *, once: bool) -> int:
    """Protect with the real list, without a flood."""
    environ = own_environ(folder, os.environ)
    settings = load_settings(settings_path(environ), environ)
    address, listeners = _listeners(listen, 5060)
    _say(f"Kamailio listens on {address} (UDP and TCP); the list comes from {settings.feed.url}")
    if not settings.edge.upstreams:
        _say("no upstream is set (edge.upstreams): what is not banned is answered with 503")
    kamailio = Kamailio(folder / "kamailio", listen=listeners, environ=environ)
    with Follower(kamailio.log_file) as log, kamailio:
        if once:
            ended = wait(lambda: _has(log, "pass-end", "feed-trouble", "no-key"), _FIRST_LIST)
            if not ended or not _has(log, "pass-end"):
                _say("FAILED: no complete list came; the log above says why")
                return 1
            board = Board.open(settings.paths.runtime / "counters")
            _say(f"\n  the list is in force; its generation is {board.generation}")
            return 0
        return _stay(kamailio)


# Without a key ---------------------------------------------------------------------------------


def _try_out(folder: Path, listen: str | None, *, once: bool) -> int:
    """Flood a node of our own on loopback, and look what comes of it."""
    address, listeners = _listeners(listen, free_port("127.0.0.1"))
    clean = {name: text for name, text in os.environ.items() if not name.startswith("APIBAN")}
    environ = own_environ(folder, {**clean, "APIBAN_SETTINGS": str(folder / "apiban.toml")})
    work = folder / "sipp"
    work.mkdir()
    _say("no key is configured: a trial on loopback with a sample list (bin/run --help)")
    with (
        sample_feed(folder) as (url, key),
        serve(Server("upstream-uas", UPSTREAM), SCENARIOS, work) as upstream,
    ):
        write_settings(
            folder / "apiban.toml", url=url, key=key, upstream=f"sip:{UPSTREAM}:{upstream.port}"
        )
        kamailio = Kamailio(folder / "kamailio", listen=listeners, environ=environ)
        with Follower(kamailio.log_file) as log, kamailio:
            _say(f"Kamailio listens on {address} (UDP and TCP); waiting for the list")
            if not wait(lambda: _has(log, "pass-end"), _FIRST_LIST):
                raise ApibanError("the list did not come")
            board = Board.open(folder / "runtime" / "counters")
            with ExitStack() as loads:
                summary = _Flood(address, board, work, loads).run()
            _say("\n" + summary.table() + "\n")
            failures = summary.failures()
            for failure in failures:
                _say(f"FAILED: {failure}")
            if once:
                return 1 if failures else 0
            return _stay(kamailio)


class _Flood:
    """The trial's loads, and what came of them."""

    def __init__(self, target: str, board: Board, work: Path, loads: ExitStack) -> None:
        self._loads = loads  # ends what still runs, whatever ends us
        self._target = target
        self._board = board
        self._work = work

    def run(self) -> Summary:
        before = self._board.total()
        _say(f"flood from {len(LISTED)} listed sources, UDP, 500/s each")
        cpu = worker_cpu_seconds(self._board)
        results = [one.wait() for one in self._floods(rate=500, count=1500)]
        self._settle(before.dropped + sum(result.messages_sent for result in results))
        cpu = worker_cpu_seconds(self._board) - cpu
        cpu_drops = self._board.total().dropped - before.dropped
        _say("the same over UDP and TCP, beside good calls and control probes")
        floods = [
            *self._floods(rate=300, count=900),
            *self._floods(rate=50, count=100, transport="tcp"),
        ]
        calls = [self._start("good-call", CALLER, 10, 30, one) for one in ("udp", "tcp")]
        good = [self._start("good-options", CALLER, 20, 50, one) for one in ("udp", "tcp")]
        control = [self._start("control-probe", CONTROL, 10, 20, one) for one in ("udp", "tcp")]
        called, asked = _all(calls), _all(good)
        probed = _all(control)
        results += _all(floods)
        sent = sum(result.messages_sent for result in results)
        self._settle(before.dropped + sent)
        return Summary(
            listed_sent=sent,
            listed_dropped=self._board.total().dropped - before.dropped,
            listed_answered=sum(result.messages_received for result in results),
            control_probes=sum(result.calls_created for result in probed),
            control_answered=sum(result.calls_succeeded for result in probed),
            calls_tried=sum(result.calls_created for result in called),
            calls_succeeded=sum(result.calls_succeeded for result in called),
            options_tried=sum(result.calls_created for result in asked),
            options_succeeded=sum(result.calls_succeeded for result in asked),
            cpu_seconds=cpu,
            cpu_drops=cpu_drops,
            front_dropped=self._board.front().dropped,
            workers=tuple(
                (slot.rank, slot.counts.dropped) for slot in self._board.slots() if slot.rank
            ),
        )

    def _floods(self, *, rate: int, count: int, transport: str = "udp") -> list[Sipp]:
        return [
            self._start("scanner-options-flood", source, rate, count, transport)
            for source in LISTED
        ]

    def _start(self, scenario: str, source: str, rate: int, count: int, transport: str) -> Sipp:
        load = Load(scenario, self._target, source, rate, count, transport=transport)
        return self._loads.enter_context(start(load, SCENARIOS, self._work))

    def _settle(self, dropped: int) -> None:
        """Let the workers empty their sockets before their counts are read."""
        wait(lambda: self._board.total().dropped >= dropped, 3.0)


def _all(clients: list[Sipp]) -> list[Result]:
    return [client.wait() for client in clients]


def _has(log: Follower, *events: str) -> bool:
    return any(line.startswith(f"event={name}") for line in log.events for name in events)


def _stay(kamailio: Kamailio) -> int:
    _say("it stays up until Ctrl-C")
    try:
        while kamailio.running:
            time.sleep(0.2)
    except KeyboardInterrupt:
        return 0
    _say("Kamailio ended: " + " | ".join(kamailio.log_lines()[-3:]))
    return 1


if __name__ == "__main__":
    sys.exit(main())
