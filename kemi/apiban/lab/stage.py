"""One situation while it is played: its loads, its clock, what was noted, and the node."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Mapping

from apiban.lab.command import LabError
from apiban.lab.loads import Running
from apiban.lab.node import KAMAILIO, Event, Node
from apiban.lab.services import Services, wait_for
from apiban.lab.situation import Plan, Step

__all__ = ["Stage"]


class Stage:
    """What the actions work on."""

    def __init__(self, services: Services, plans: Mapping[str, Plan]) -> None:
        self.services = services
        self.node = Node(services)
        self.running: dict[str, Running] = {}
        self.silent: dict[str, int] = {}  # a load's answers when it was found to be silent
        self.notes: list[str] = []
        self.began = time.time()
        self.mark = self.began  # when the last action that changed something began
        self.held: dict[str, subprocess.Popen[bytes]] = {}  # who holds connections, by service
        self.metrics: dict[str, float] = {}  # what was remembered, by query
        self._plans = plans
        self._dropped = -self.node.counts().dropped

    def start(self, *names: str) -> None:
        """Start loads, and wait until they send."""
        for name in names:
            self.running[name] = Running(self.services, self._plans[name])
        for name in names:
            self.running[name].wait_for_start()

    def load(self, name: str) -> Running:
        """Give a load that was started."""
        if name not in self.running:
            raise LabError(f"{name}: it was not started")
        return self.running[name]

    def dropped(self) -> int:
        """Give what the node dropped since the beginning, but for what a restart made forget."""
        return self._dropped + self.node.counts().dropped

    def before_restart(self) -> None:
        """Keep the counts, which begin anew with each start of Kamailio."""
        self._dropped += self.node.counts().dropped

    def events(self) -> list[Event]:
        """Give the node's log since the beginning."""
        return self.node.events(self.began)

    def end(self) -> None:
        """End whatever still runs."""
        for load in self.running.values():
            load.kill()
        for service, process in self.held.items():
            with contextlib.suppress(LabError):
                self.services.run(service, "sh", "-c", 'kill "$(cat /tmp/held)"')
            process.kill()
            process.wait()

    def filled(self, text: str) -> str:
        """Put addresses in the place of ``{service}``, three numbers in that of ``{net4}``."""
        text = text.replace("{net4}", self.services.address(KAMAILIO).rpartition(".")[0])
        for name in self.services.names():
            if f"{{{name}}}" in text:
                text = text.replace(f"{{{name}}}", self.services.address(name))
        return text

    def wait(self, step: Step, condition: Callable[[], bool], what: str) -> float:
        """Wait within the step's time."""
        return wait_for(condition, what, step.within)
