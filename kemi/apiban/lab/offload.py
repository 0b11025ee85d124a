"""The firewall client beside the lab's Kamailio: its start, its end, and what it drops."""

from __future__ import annotations

import json
import time
from typing import Any, Final

from apiban.lab.command import LabError
from apiban.lab.services import wait_for
from apiban.lab.situation import Step
from apiban.lab.stage import Stage

__all__ = ["FIREWALL", "await_offload", "end_offload", "offload"]

FIREWALL: Final = "firewall"

_REPORT: Final = "/run/apiban/firewall.json"
_CLIENT: Final = "python3 -m apiban.cli firewall"
# Longer than Kamailio's native code keeps counts to itself.
_STILL: Final = 2.0


def offload(stage: Stage, step: Step) -> str:
    """Start the client, in the network that Kamailio has now."""
    # A container that shares another's network keeps the one that this had at its start.
    stage.services.do("restart", FIREWALL, "-t", "1")
    stage.services.run(FIREWALL, "sh", "-c", f"rm -f {_REPORT}; {_CLIENT} run >/tmp/log 2>&1 &")
    stage.wait(step, lambda: bool(_report(stage)), "the firewall client's report")
    return ""


def end_offload(stage: Stage, _step: Step) -> str:
    """End the client, and take out what it put into the kernel."""
    stage.services.do("restart", FIREWALL, "-t", "1")
    stage.services.run(FIREWALL, "sh", "-c", f"{_CLIENT} flush")
    return ""


def await_offload(stage: Stage, step: Step) -> str:
    """Wait until a source is in the kernel, and so many more packets were dropped there.

    Kamailio must drop none meanwhile.
    """
    source = stage.services.address(step.values["source"])

    def is_in() -> bool:
        return any(one["source"] == source for one in _report(stage).get("flooding", ()))

    stage.wait(step, is_in, f"{source} in the kernel")
    took = time.time() - stage.mark
    _await_still(stage, step.within)
    kamailio, kernel = stage.node.counts().dropped, _dropped(stage)
    wanted = kernel + int(step.values["more"])
    stage.wait(step, lambda: _dropped(stage) >= wanted, f"{wanted} drops by the kernel")
    since = _dropped(stage) - kernel
    more = stage.node.counts().dropped - kamailio
    if more:
        raise LabError(f"Kamailio dropped {more} packets while the kernel dropped {since}")
    return (
        f"in the kernel after {took:.1f} s; {since:,} drops there, and none by Kamailio meanwhile"
    )


def _await_still(stage: Stage, within: float) -> None:
    """Wait until Kamailio has counted what came before."""
    last, since = -1, time.monotonic()

    def still() -> bool:
        nonlocal last, since
        dropped = stage.node.counts().dropped
        if dropped != last:
            last, since = dropped, time.monotonic()
        return time.monotonic() - since >= _STILL

    wait_for(still, "the end of Kamailio's drops", within)


def _dropped(stage: Stage) -> int:
    return int(_report(stage).get("dropped_ipv4", 0))


def _report(stage: Stage) -> dict[str, Any]:
    """Give what the client says of itself; nothing while it has not."""
    try:
        found: dict[str, Any] = json.loads(stage.services.run(FIREWALL, "cat", _REPORT))
    except (LabError, ValueError):
        return {}
    return found
