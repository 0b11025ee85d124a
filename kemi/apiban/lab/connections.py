"""What a situation's steps do with TCP connections."""

from __future__ import annotations

import itertools
import re
from typing import Final

from apiban.lab.command import LabError
from apiban.lab.node import KAMAILIO
from apiban.lab.situation import Step
from apiban.lab.stage import Stage

__all__ = ["await_tcp", "hold_connections"]

_numbers = itertools.count(1)

_HOLD: Final = (
    "echo $$ > /tmp/held; for ((i = 0; i < $2; i++)); do"
    ' { exec {one}<>"/dev/tcp/$1/5060"; } 2> /dev/null || break; done; exec sleep 600'
)
# Says what came of it: a status alone may be that of Docker's, which knows nothing of Kamailio.
_PROBE: Final = (
    'trap "" PIPE; if { exec 3<>"/dev/tcp/$1/5060"; } 2> /dev/null'
    ' && printf "OPTIONS sip:$1 SIP/2.0\\r\\nVia: SIP/2.0/TCP $2:9;'
    "branch=z9hG4bK$3\\r\\nFrom: <sip:probe@$2>;tag=$3\\r\\nTo: <sip:$1>\\r\\nCall-ID: $3@$2\\r\\n"
    'CSeq: 1 OPTIONS\\r\\nMax-Forwards: 70\\r\\nContent-Length: 0\\r\\n\\r\\n" >&3'
    ' && read -t 2 -r line <&3 && [[ $line == "SIP/2.0 "* ]]; then echo served; else echo refused;'
    " fi"
)


def hold_connections(stage: Stage, step: Step) -> str:
    """Open idle connections from each source until Kamailio has as many as it takes."""
    most = _tcp(stage, "max_connections")
    target = stage.services.address(KAMAILIO)
    for source in step.values["sources"]:
        words = ("bash", "-c", _HOLD, "bash", target, str(most + 50))
        stage.held[source] = stage.services.begin(source, *words)
    took = stage.wait(
        step, lambda: _tcp(stage, "opened_connections") >= most, f"{most} open connections"
    )
    return f"{most} idle connections, all that Kamailio takes, in {took:.1f} s"


def await_tcp(stage: Stage, step: Step) -> str:
    """Wait until a new connection is served, or is not, as the step has it."""
    source, wanted = step.values["source"], "served" if step.values["served"] else "refused"
    addresses = [stage.services.address(one) for one in (KAMAILIO, source)]

    def probe() -> bool:
        words = ("bash", "-c", _PROBE, "bash", *addresses, f"p{next(_numbers)}")
        said = stage.services.run(source, *words, timeout=10).strip()
        if said not in {"served", "refused"}:
            raise LabError(f"{source}: the probe of TCP says {said!r}")
        return said == wanted

    took = stage.wait(step, probe, f"TCP {wanted}")
    return f"{step.values['note']} {took:.1f} s" if "note" in step.values else ""


def _tcp(stage: Stage, name: str) -> int:
    found = re.search(rf"{name}: (\d+)", stage.node.rpc("core.tcp_info"))
    if found is None:
        raise LabError(f"Kamailio says nothing of its {name}")
    return int(found[1])
