"""The lab's containers, by the names of their services."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from apiban.lab.command import LabError, run

__all__ = ["Services", "State", "wait_for"]

LOOK_EVERY: Final = 0.2


@dataclass(frozen=True, slots=True)
class State:
    """How a container is."""

    running: bool
    health: str  # "healthy", ...; "" where none is looked at
    started: str  # changes with each start

    @property
    def well(self) -> bool:
        """Whether it runs, and is healthy if that is looked at."""
        return self.running and self.health in {"", "healthy"}


class Services:
    """Runs commands in containers, and looks at them."""

    def __init__(self, docker: Sequence[str], project: str) -> None:
        self.docker = tuple(docker)
        self._label = f"label=com.docker.compose.project={project}"
        self._ids: dict[str, str] = {}
        self._addresses: dict[tuple[str, bool], str] = {}

    def names(self) -> list[str]:
        """Give the services that have a container."""
        text = run(
            [
                *(*self.docker, "ps", "-a", "--no-trunc", "--filter", self._label),
                *("--format", '{{.Label "com.docker.compose.service"}} {{.ID}}'),
            ]
        )
        self._ids = dict(line.split() for line in text.splitlines())
        return sorted(self._ids)

    def id(self, service: str) -> str:
        """Give a service's container.

        Raises:
            LabError: there is none.

        """
        if service not in self._ids and service not in self.names():
            raise LabError(f"there is no container of {service}: bin/lab up")
        return self._ids[service]

    def run(
        self,
        service: str,
        *words: str,
        text: str | None = None,
        user: str | None = None,
        timeout: float = 60.0,
    ) -> str:
        """Run a command in a container, and give what it printed."""
        as_user = ["-u", user] if user else []
        command = [*self.docker, "exec", "-i", *as_user, self.id(service), *words]
        return run(command, text=text, timeout=timeout)

    def begin(self, service: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a command in a container; the process here ends with it, with its status."""
        return subprocess.Popen(
            [*self.docker, "exec", self.id(service), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # ^C is for us; we end it
        )

    def do(self, action: str, service: str, *options: str) -> None:
        """Do something to a container: start, kill, restart."""
        run([*self.docker, action, *options, self.id(service)])

    def state(self, service: str) -> State:
        """Look how it is."""
        seen = self._inspect(service)
        state = seen["State"]
        return State(
            bool(state["Running"]),
            str(state.get("Health", {}).get("Status", "")),
            str(state["StartedAt"]),
        )

    def address(self, service: str, *, ipv6: bool = False) -> str:
        """Give its address in the lab's network, without brackets."""
        if (service, ipv6) not in self._addresses:
            (network,) = self._inspect(service)["NetworkSettings"]["Networks"].values()
            # What it was given, not what it has: a stopped container has none.
            given = network["IPAMConfig"] or {}
            for six, name in ((False, "IPv4Address"), (True, "IPv6Address")):
                self._addresses[service, six] = given.get(name, "")
        address = self._addresses[service, ipv6]
        if not address:
            raise LabError(f"{service} has no address of {'IPv6' if ipv6 else 'IPv4'}")
        return address

    def _inspect(self, service: str) -> Any:
        return json.loads(run([*self.docker, "inspect", self.id(service)]))[0]


def wait_for(
    condition: Callable[[], bool], what: str, within: float, *, every: float = LOOK_EVERY
) -> float:
    """Wait until a condition holds; give the seconds that it took.

    Raises:
        LabError: it does not hold within the time.

    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within:
            raise LabError(f"{what}: not within {within:g} s")
        time.sleep(every)
    return time.monotonic() - began
