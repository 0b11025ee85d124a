"""The lab's Kamailio as seen from outside: its counters, its log, its control socket."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from apiban.gate.board import Counts
from apiban.lab.command import LabError, run
from apiban.lab.services import Services
from apiban.log import PREFIX

__all__ = ["KAMAILIO", "SETTINGS", "Event", "Node", "read_events"]

KAMAILIO: Final = "kamailio"
SETTINGS: Final = "/etc/apiban/apiban.toml"
_CONTROL: Final = "unix:/tmp/kamailio_ctl"
_STAMP: Final = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d+)Z (.*)$")


@dataclass(frozen=True, slots=True)
class Event:
    """A line of ours in the log: seconds since 1970, and the text from ``event=`` on."""

    at: float
    text: str


def read_events(log: str) -> list[Event]:
    """Read what ``docker logs -t`` printed."""
    events = []
    for line in log.splitlines():
        found = _STAMP.match(line)
        _, prefix, rest = line.partition(PREFIX)
        if found and prefix:
            moment = datetime.fromisoformat(found[1]).replace(tzinfo=UTC).timestamp()
            events.append(Event(moment + float(f"0.{found[2]}"), rest))
    return events


class Node:
    """Kamailio with the module; restarts are between the calls, never hidden by them."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def counts(self) -> Counts:
        """Give what all its processes counted since its start."""
        return Counts(**self._board()["total"])

    def worker(self) -> int:
        """Give the process id, inside the container, of a SIP worker."""
        return int(self._board()["workers"][0]["pid"])

    def generation(self) -> int:
        """Give the number of the list in force."""
        return int(self._board()["generation"])

    def events(self, since: float) -> list[Event]:
        """Give its log's events of a moment and later."""
        text = run(
            [
                *("sh", "-c", 'exec "$@" 2>&1', "sh"),
                *(*self._services.docker, "logs", "-t", "--since", f"{max(0.0, since - 1):.3f}"),
                self._services.id(KAMAILIO),
            ]
        )
        return [event for event in read_events(text) if event.at >= since]

    def rpc(self, *words: str) -> str:
        """Send a command to its control socket, and give the answer.

        Raises:
            LabError: it refused, or did not answer.

        """
        said = self._services.run(KAMAILIO, "kamcmd", "-s", _CONTROL, *words)
        if said.startswith("error:"):
            raise LabError(f"kamcmd {' '.join(words)}: {said.strip()}")
        return said

    def write_settings(self, text: str) -> None:
        """Put a settings file in place; the environment's settings stay above it."""
        script = f'umask 077 && cat > "{SETTINGS}.new" && mv "{SETTINGS}.new" "{SETTINGS}"'
        self._services.run(KAMAILIO, "sh", "-c", script, text=text)

    def _board(self) -> Any:
        return json.loads(self._services.run(KAMAILIO, "python3", "-m", "apiban.gate"))
