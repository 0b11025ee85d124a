"""SIPp in the lab's containers: started, looked at while it runs, ended, and read."""

from __future__ import annotations

import contextlib
import io
import itertools
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from apiban.lab.command import LabError
from apiban.lab.services import Services, wait_for
from apiban.lab.situation import Plan
from apiban.trial.sipp import SCENARIOS, Load, Result, command, read_result

__all__ = ["GRACE", "Outcome", "Running", "problems", "sipp_command"]

INSIDE: Final = Path("/usr/lib/apiban/sipp-scenarios")
_FIRST_PORT: Final = 20000
_START_TIMEOUT: Final = 20.0
GRACE: Final = 12.0  # seconds: a call lasts 8 at most
_UNENDED: Final = 100_000_000  # calls: more than any run makes

# SIPp's folder, the scenario and its users are arguments, never part of the text.
_SCRIPT: Final = (
    'folder=$1 scenario=$2; shift 2; rm -rf "$folder" && mkdir -p "$folder" && cd "$folder"'
    ' && cp "$scenario" sipp-scenario.xml && echo $$ > pid && exec "$@" > out.txt 2> err.txt'
)
_NUMBERS: Final = 'cd "$1" && exec tar -cf - *.csv'
_ports = itertools.count()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A load that is over: what SIPp counted, or why there is nothing."""

    plan: Plan
    result: Result | None
    trouble: str = ""
    received_when_silent: int | None = None  # what had come back when it was found to be silent

    @property
    def rate(self) -> float:
        """Give the calls a second that SIPp made."""
        if self.result is None or self.result.sending <= 0:
            return 0.0
        return self.result.calls_created / self.result.sending


def sipp_command(plan: Plan, target: str, source: str, port: int) -> list[str]:
    """Give SIPp's command line inside a container; addresses are without brackets."""
    address = f"[{target}]:5060" if plan.ipv6 else f"{target}:5060"
    load = Load(
        plan.scenario,
        address,
        source,
        plan.rate,
        plan.count or _UNENDED,
        transport=plan.transport,
    )
    words = command(load, port, SCENARIOS)
    return [word.replace(str(SCENARIOS.resolve()), str(INSIDE)) for word in words]


def problems(outcome: Outcome) -> Iterator[str]:
    """Say what of a load is not as its plan has it."""
    plan, result = outcome.plan, outcome.result
    if result is None:
        yield f"{plan.name}: {outcome.trouble}"
        return
    calls, received = result.calls_created, result.messages_received
    if not calls:
        yield f"{plan.name}: no call was made"
        return
    if result.calls_succeeded < plan.success * calls:
        yield f"{plan.name}: {result.calls_succeeded} of {calls} calls succeeded"
    before = outcome.received_when_silent
    wrong = {
        "none": received > 0,
        "some": received == 0,
        "all": received < plan.success * calls,
        "any": False,
    }[plan.answers]
    if wrong:
        yield f"{plan.name}: {received} answers to {calls} calls, expected: {plan.answers}"
    if before is not None and received > before:
        yield f"{plan.name}: {received - before} answers after it was dropped"
    if outcome.rate < plan.reached * plan.rate:
        yield f"{plan.name}: {outcome.rate:.0f} of {plan.rate} calls a second"


class Running:
    """A SIPp that was started in a container."""

    def __init__(self, services: Services, plan: Plan) -> None:
        self.plan = plan
        self._services = services
        self._folder = f"/tmp/{plan.name}"  # noqa: S108 - in a container of the lab
        target = services.address(plan.target, ipv6=plan.ipv6)
        source = services.address(plan.source, ipv6=plan.ipv6)
        words = sipp_command(plan, target, source, _FIRST_PORT + next(_ports) % 20000)
        scenario = str(INSIDE / plan.scenario / "scenario.xml")
        self._process = services.begin(
            plan.source, "sh", "-c", _SCRIPT, "sh", self._folder, scenario, *words
        )

    def wait_for_start(self) -> None:
        """Return once its sockets are bound, or it has ended."""
        wait_for(
            lambda: self._process.poll() is not None or self.look() is not None,
            f"the start of {self.plan.name}",
            _START_TIMEOUT,
            every=0.1,
        )

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def look(self) -> Result | None:
        """Give what it has counted so far, some tenths of a second old; None before its start."""
        try:
            with tempfile.TemporaryDirectory(prefix="apiban-lab-") as name:
                return self._read(Path(name))
        except (LabError, ValueError, KeyError, IndexError, StopIteration, tarfile.TarError):
            return None

    def end(self) -> None:
        """Let it make no new calls; those that are open end well, or not."""
        if not self.over:
            # Never twice: SIPp would forget its open calls, and wait for them for ever.
            with contextlib.suppress(LabError):
                self._signal("USR1")

    def outcome(self, give_up: float) -> Outcome:
        """Wait for its end, until a moment of the monotonic clock; end it by force after that."""
        trouble = ""
        try:
            self._process.wait(max(0.1, give_up - time.monotonic()))
        except subprocess.TimeoutExpired:
            trouble = "it did not end in time"
            self.kill()
        result = self.look()
        if self._process.returncode not in (0, 1, None) and not trouble:  # 1: a call failed
            trouble = f"SIPp ended with status {self._process.returncode}: {self._last_words()}"
        if trouble:
            return Outcome(self.plan, None, trouble)
        return Outcome(self.plan, result, "" if result else "SIPp left no numbers")

    def kill(self) -> None:
        """End it by force."""
        if not self.over:
            with contextlib.suppress(LabError):
                self._signal("KILL")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        if not self.over:
            self._process.kill()
            self._process.wait()

    def _signal(self, name: str) -> None:
        script = f'kill -{name} "$(cat "$1/pid")"'
        self._services.run(self.plan.source, "sh", "-c", script, "sh", self._folder)

    def _last_words(self) -> str:
        with contextlib.suppress(LabError):
            script = 'tail -n 3 "$1/err.txt"'
            said = self._services.run(
                self.plan.source, "sh", "-c", script, "sh", self._folder
            ).split("\n")
            return " ".join(" ".join(said).split())[-200:]
        return "no word"

    def _read(self, folder: Path) -> Result:
        container = self._services.id(self.plan.source)
        words = [*self._services.docker, "exec", container, "sh", "-c", _NUMBERS, "sh"]
        try:
            done = subprocess.run(
                [*words, self._folder], capture_output=True, timeout=20, check=False
            )
        except subprocess.TimeoutExpired:
            raise LabError("its numbers do not come") from None
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            for member in archive:
                content = archive.extractfile(member)
                name = Path(member.name).name
                if content is not None:
                    kept = "stat.csv" if name == "stat.csv" else f"sipp_{name.split('_')[-1]}"
                    (folder / kept).write_bytes(content.read())
        status = self._process.poll()
        return read_result(folder / "stat.csv", folder / "sipp_counts.csv", status or 0)
