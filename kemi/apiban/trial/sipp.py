"""Runs SIPp with the scenarios of ``sipp-scenarios``, and reads what SIPp counted.

::

    load = Load("scanner-options-flood", "127.0.0.1:5060", "127.0.1.1", rate=1000, count=5000)
    with start(load, SCENARIOS, folder) as sipp:
        wrong = expectation(SCENARIOS, load.scenario).check(sipp.wait())    # "" when all is well

Each run has a folder of its own, with the scenario, SIPp's output and its CSV files.
"""

from __future__ import annotations

import contextlib
import csv
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from apiban.errors import ApibanError

__all__ = ["SCENARIOS", "Expectation", "Load", "Result", "Server", "Sipp", "SippError"]
__all__ += ["command", "expectation", "read_result", "serve", "start"]

SCENARIOS: Final = Path(__file__).resolve().parents[3] / "sipp-scenarios"

# SIPp names its files after the scenario's, in a buffer with room for a process id of 5 digits.
# With a name of this length the allocator's rounding leaves room for 7.
_NAME: Final = "sipp-scenario"
_START_TIMEOUT: Final = 10.0
_CONNECTIONS: Final = 500
_LOGGED: Final = re.compile(r"^\d{4}-\d\d-\d\d\t\S+\t[\d.]+: (.+)", re.MULTILINE)


class SippError(ApibanError):
    """SIPp is missing, did not start, died, or did not end in time."""


@dataclass(frozen=True, slots=True)
class Load:
    """A client: ``count`` calls of a scenario at ``rate`` a second, from one source address."""

    scenario: str
    target: str  # host:port, [host]:port for IPv6
    source: str  # without brackets
    rate: int
    count: int
    source_port: int = 0  # 0: a free one
    transport: str = "udp"
    timeout: float = 60.0  # of the whole run, in seconds


@dataclass(frozen=True, slots=True)
class Server:
    """A server's scenario, and where it listens."""

    scenario: str
    source: str  # without brackets
    source_port: int = 0  # 0: a free one, see Sipp.port
    transport: str = "udp"


@dataclass(frozen=True, slots=True)
class Result:
    """What SIPp counted. While no call failed, the messages sent are exact."""

    messages_sent: int
    messages_received: int  # everything that came back, expected or not
    calls_created: int
    calls_succeeded: int
    calls_failed: int
    elapsed: float  # until the last call ended, in seconds
    sending: float  # until the last call was created, in steps of SIPp's reports (0.2 s)
    exit_status: int
    response_times: tuple[float, ...]  # seconds, in steps of the kernel's tick (up to 10 ms)


@dataclass(frozen=True, slots=True)
class Expectation:
    """A scenario's ``expect.toml``."""

    transports: tuple[str, ...]
    answers: str  # "none": to a flood whose source is listed; "all": each call gets one at least
    success_ratio: float
    rate: int  # the usual one; 0 for a server
    count: int
    options: tuple[str, ...]  # what SIPp needs for this scenario

    def check(self, result: Result) -> str:
        """Return why the result is not as expected, or an empty text."""
        calls, received = result.calls_created, result.messages_received
        if not calls or result.calls_succeeded < self.success_ratio * calls:
            return f"{result.calls_succeeded} of {calls} calls succeeded"
        if (self.answers == "none" and received) or (self.answers == "all" and received < calls):
            return f"{received} answers to {calls} calls, expected: {self.answers}"
        return ""


def expectation(scenarios: Path, scenario: str) -> Expectation:
    """Read a scenario's ``expect.toml``."""
    try:
        toml = tomllib.loads((scenarios / scenario / "expect.toml").read_text("utf-8"))
        values: dict[str, Any] = {
            name: tuple(one) if isinstance(one, list) else one for name, one in toml.items()
        }
        return Expectation(**values)
    except (OSError, ValueError, TypeError) as error:
        raise SippError(f"scenario {scenario}: expect.toml: {error!r}") from error


def command(what: Load | Server, port: int, scenarios: Path) -> list[str]:
    """Return SIPp's command line; it runs in the folder of the run."""
    words = ["-sf", f"{_NAME}.xml", "-i", what.source, "-p", str(port), "-nostdin"]
    # Without -ci anyone who reaches this host controls SIPp. Without -buff_size answers to some
    # 10,000 messages a second are lost. The watchdog would end a run on a busy machine.
    words += ["-ci", "127.0.0.1", "-buff_size", "4194304", "-watchdog_interval", "0"]
    words += ["-trace_stat", "-stf", "stat.csv", "-trace_counts"]
    words += expectation(scenarios, what.scenario).options
    udp = what.transport == "udp"
    if isinstance(what, Server):
        return ["sipp", *words, "-fd", "1", "-t", "u1" if udp else "t1"]
    words += ["-r", str(what.rate), "-m", str(what.count), "-fd", "0.2"]
    words += ["-trace_rtt", "-rtt_freq", "1"]
    users = scenarios / what.scenario / "users.csv"
    words += ["-inf", str(users.resolve())] if users.exists() else []
    if udp:
        return ["sipp", what.target, *words, "-t", "u1"]
    # A connection a call: a proxy that drops closes it, and what else SIPp had put into a shared
    # one (t1) would be lost; reconnected, that would have another source address. SIPp refuses
    # to start with room for more connections than open files; with fewer calls than room it
    # never shares them. SIPp 3.7 keeps each open until the proxy closes it, or to its own end:
    # the room spares the proxy (2,048 connections by default).
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    room = _CONNECTIONS if files < 0 else min(_CONNECTIONS, files - 50)
    words += ["-t", "tn", "-max_socket", str(room), "-l", str(room - 20)]
    return ["sipp", what.target, *words]


def serve(server: Server, scenarios: Path, workdir: Path) -> Sipp:
    """Start a server; it listens when this returns, and runs until it is stopped."""
    return start(server, scenarios, workdir)


def start(what: Load | Server, scenarios: Path, workdir: Path) -> Sipp:
    """Start a client; it is sending, or done, when this returns."""
    if shutil.which("sipp") is None:
        raise SippError("sipp is not in PATH (Debian has it in sip-tester)")
    if what.transport not in expectation(scenarios, what.scenario).transports:
        raise SippError(f"scenario {what.scenario} is not for transport {what.transport!r}")
    attempts = 1 if what.source_port else 3  # someone may take the free port before SIPp does
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{what.scenario}-", dir=workdir))
        shutil.copyfile(scenarios / what.scenario / "scenario.xml", folder / f"{_NAME}.xml")
        port = what.source_port or _free_port(what.source, what.transport)
        sipp = Sipp(command(what, port, scenarios), folder, port, getattr(what, "timeout", None))
        try:
            sipp.wait_for_start()
        except SippError as error:
            attempts -= 1
            if not attempts or "bind" not in str(error):
                raise
        else:
            return sipp


def _free_port(ip: str, transport: str) -> int:
    """Let the system choose: by itself SIPp takes 5060 or the next, which others are to have."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    try:
        with socket.socket(family, kind) as one:
            one.bind((ip, 0))
            return int(one.getsockname()[1])
    except OSError as error:
        raise SippError(f"cannot bind {ip}: {error}") from error


class Sipp:
    """A running SIPp; a context manager that ends it."""

    def __init__(self, words: list[str], folder: Path, port: int, timeout: float | None) -> None:
        self.folder, self.port, self._timeout = folder, port, timeout
        with (folder / "out.txt").open("wb") as out, (folder / "err.txt").open("wb") as err:
            self._process = subprocess.Popen(
                words, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True,  # ^C is for us; we end SIPp
            )  # fmt: skip
        self.pid = self._process.pid
        self._stat = folder / "stat.csv"
        self._counts = folder / f"{_NAME}_{self.pid}_counts.csv"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def wait_for_start(self) -> None:
        """Return once its sockets are bound: then SIPp writes its first line of numbers."""
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            status = self._process.poll()  # before the look at the numbers: it may be that quick
            first = next(_rows(self._stat), None)
            if first and first["FatalErrors(C)"] == "0":  # else it wrote them when it gave up
                return
            if status is not None:
                raise self._error(f"ended at once with status {status}")
            if time.monotonic() > deadline:
                self._end()
                raise self._error(f"did not start within {_START_TIMEOUT:g} s")
            time.sleep(0.02)

    def wait(self, timeout: float | None = None) -> Result:
        """Wait until all calls ended, well or not."""
        limit = timeout or self._timeout
        try:
            status = self._process.wait(limit)
        except subprocess.TimeoutExpired:
            self._end()
            raise self._error(f"did not end within {limit} s") from None
        if status not in (0, 1):  # 1: a call failed
            raise self._error(f"ended with status {status}")
        return self._result()

    def stop(self, grace: float = 6.0) -> Result:
        """End it: no new calls, ``grace`` seconds for the open ones, then by force."""
        if self._process.poll() is not None:
            return self.wait()
        # Never SIGUSR1 twice: SIPp would forget its open calls, and wait for them for ever.
        self._end((signal.SIGUSR1, grace))
        return self._result()

    def _end(self, *first: tuple[signal.Signals, float]) -> None:
        for number, seconds in (*first, (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
            if self._process.poll() is None:
                self._process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(seconds)

    def _result(self) -> Result:
        try:
            return read_result(self._stat, self._counts, self._process.returncode)
        except (ValueError, KeyError, IndexError) as error:
            raise self._error(f"left no numbers ({error!r})") from error

    def _error(self, what: str) -> SippError:
        logged = _LOGGED.findall((self.folder / "err.txt").read_text("utf-8", "replace"))
        return SippError(f"sipp {what}" + (f": {logged[-1]}" if logged else ""))


def read_result(stat: Path, counts: Path, exit_status: int) -> Result:
    """Read the CSV files of a run: the last line of each has the totals."""
    reports, count = list(_rows(stat)), list(_rows(counts))[-1]
    last = reports[-1]
    sent = received = 0
    for name, value in count.items():
        message, _, kind = name.rpartition("_")
        if kind == "Sent" or (kind == "Retrans" and f"{message}_Sent" in count):
            sent += int(value)
        elif kind in {"Recv", "Retrans", "Unexp"}:
            received += int(value)
    # What came for calls that are over, and requests that SIPp answers by itself.
    others = ("OutOfCallMsgs(C)", "DeadCallMsgs(C)", "AutoAnswered(C)")
    received += sum(int(last[name]) for name in others)
    calls = last["TotalCallCreated"]
    created = next(row["CurrentTime"] for row in reports if row["TotalCallCreated"] == calls)
    # SIPp writes date, time, and the seconds since 1970.
    moments = (last["StartTime"], created, last["CurrentTime"])
    began, sending, ended = (float(text.rsplit("\t", 1)[-1]) for text in moments)
    times = _rows(counts.with_name(counts.name.replace("_counts", "_rtt")))
    return Result(
        sent,
        received,
        int(calls),
        int(last["SuccessfulCall(C)"]),
        int(last["FailedCall(C)"]),
        ended - began,
        sending - began,
        exit_status,
        tuple(float(row["response_time_ms"]) / 1000 for row in times if row["rtd_no"] == "1"),
    )


def _rows(path: Path) -> Iterator[Mapping[str, str]]:
    """Give the whole lines of a CSV file; none while it does not exist."""
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            whole = (line for line in file if line.endswith("\n"))
            yield from csv.DictReader(whole, delimiter=";")
