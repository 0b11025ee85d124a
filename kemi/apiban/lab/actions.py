"""What a situation's steps can do, by name; docs/lab.md has them all.

An action gives a text for the table, or an empty one, and raises ``LabError`` when what it waits
for does not come.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from apiban.lab.command import LabError
from apiban.lab.node import KAMAILIO, Event
from apiban.lab.proxy import MODE, MODES
from apiban.lab.services import wait_for
from apiban.lab.situation import Step
from apiban.lab.stage import Stage

__all__ = ["ACTIONS", "VALUES", "act", "matches"]

_numbers = itertools.count(1)
_STILL: Final = 1.0  # seconds without an answer that are taken for silence

# Puts as many addresses as are asked for into the node's store, a page at a time, as a sync would.
_IMPORT: Final = """
import sys, time
from pathlib import Path
from apiban.address import Network
from apiban.store import FeedState, Store
count, name, now = int(sys.argv[1]), sys.argv[2], time.time()
first = int.from_bytes(bytes((20, 0, 0, 1)), "big")
with Store(Path("/var/lib/apiban/store.db")) as store:
    for begin in range(0, count, 5000):
        page = [Network(4, one, one) for one in
                (first + 16 * number for number in range(begin, min(begin + 5000, count)))]
        store.record_page(name, page, listed=now, expires=now + 3600, state=FeedState(name))
"""
_FORGET: Final = """
import sys, time
from pathlib import Path
from apiban.store import Store
with Store(Path("/var/lib/apiban/store.db")) as store:
    print(store.remove_expired(sys.argv[1], until=time.time() + 7200, now=time.time()))
"""
_HOLD: Final = (
    "echo $$ > /tmp/held; for ((i = 0; i < $2; i++)); do"
    ' { exec {one}<>"/dev/tcp/$1/5060"; } 2> /dev/null || break; done; exec sleep 600'
)
_PROBE: Final = (
    'exec 3<>"/dev/tcp/$1/5060" && printf "OPTIONS sip:$1 SIP/2.0\\r\\nVia: SIP/2.0/TCP $2:9;'
    "branch=z9hG4bK$3\\r\\nFrom: <sip:probe@$2>;tag=$3\\r\\nTo: <sip:$1>\\r\\nCall-ID: $3@$2\\r\\n"
    'CSeq: 1 OPTIONS\\r\\nMax-Forwards: 70\\r\\nContent-Length: 0\\r\\n\\r\\n" >&3'
    ' && read -t 2 -r line <&3 && [[ $line == "SIP/2.0 "* ]]'
)
_QUERY: Final = """
import sys, urllib.parse, urllib.request
url = "http://prometheus:9090/api/v1/query?" + urllib.parse.urlencode({"query": sys.argv[1]})
print(urllib.request.urlopen(url, timeout=5).read().decode())
"""


@dataclass(frozen=True, slots=True)
class Action:
    """What is done, and the values that a step may give it."""

    work: Callable[[Stage, Step], str]
    values: frozenset[str]
    changes: bool = True  # whether events are waited for from its beginning on


def act(stage: Stage, step: Step) -> None:
    """Do a step; its note goes to the stage."""
    action = ACTIONS[step.do]
    if action.changes:
        stage.mark = time.time()
    note = action.work(stage, step)
    if note:
        stage.notes.append(note)


def matches(event: Event, name: str, has: str, least: Mapping[str, float]) -> bool:
    """Tell whether an event has this name, this text, and fields of at least these numbers."""
    head, _, rest = f"{event.text} ".partition(" ")
    if head != f"event={name}" or has not in rest:
        return False
    return all(
        (found := re.search(rf"\b{re.escape(field)}=(-?[\d.]+)", rest)) is not None
        and float(found[1]) >= number
        for field, number in least.items()
    )


# Loads and what is seen of them ----------------------------------------------------------------


def _start(stage: Stage, step: Step) -> str:
    stage.start(step.values["load"])
    return ""


def _await_end(stage: Stage, step: Step) -> str:
    load = stage.load(step.values["load"])
    stage.wait(step, lambda: load.over, f"the end of {load.plan.name}")
    return ""


def _await_drops(stage: Stage, step: Step) -> str:
    """Wait until so many more packets were dropped."""
    wanted = stage.node.counts().dropped + int(step.values["more"])
    stage.wait(step, lambda: stage.node.counts().dropped >= wanted, f"{wanted} drops")
    return ""


def _await_answers(stage: Stage, step: Step) -> str:
    name = step.values["load"]
    load, before = stage.load(name), stage.silent.pop(name, 0)
    stage.wait(
        step,
        lambda: (seen := load.look()) is not None and seen.messages_received > before,
        f"answers to {name}",
    )
    return ""


def _await_silence(stage: Stage, step: Step) -> str:
    """Wait until what a load sends has had no answer for a while."""
    name = step.values["load"]
    load = stage.load(name)
    last, since, sent = -1, time.monotonic(), 0

    def still() -> bool:
        nonlocal last, since, sent
        seen = load.look()
        if seen is None or load.over:
            raise LabError(f"{name}: it sends nothing any more")
        if seen.messages_received != last:
            last, since, sent = seen.messages_received, time.monotonic(), seen.messages_sent
        return bool(time.monotonic() - since >= _STILL and seen.messages_sent > sent)

    stage.wait(step, still, f"silence for {name}")
    stage.silent[name] = last
    return ""


def _await_event(stage: Stage, step: Step) -> str:
    """Wait for events in the node's log since the last change; tell how long the first took."""
    values = step.values
    name, has = values["event"], stage.filled(values.get("has", ""))
    least, count = values.get("least", {}), int(values.get("count", 1))
    found: list[Event] = []

    def seen() -> bool:
        events = stage.node.events(stage.mark)
        found[:] = [one for one in events if matches(one, name, has, least)]
        if "then" in values and found:
            later = [one for one in events if one.at >= found[0].at]
            found[:] = [one for one in later if matches(one, values["then"], "", {})]
        return len(found) >= count

    stage.wait(step, seen, f"event={name} {has}".strip())
    return f"{values['note']} {found[count - 1].at - stage.mark:.2f} s" if "note" in values else ""


# The feed and the way to it --------------------------------------------------------------------


def _networks(stage: Stage, step: Step) -> list[str]:
    return [stage.filled(one) for one in step.values["networks"]]


def _list(stage: Stage, step: Step) -> str:
    stage.services.run("feed", "apiban", "feed", "list", *_networks(stage, step))
    return ""


def _delist(stage: Stage, step: Step) -> str:
    """Take networks off the list; they may be listed again at once."""
    stage.services.run("feed", "apiban", "feed", "delist", "--for", "1s", *_networks(stage, step))
    return ""


def _kill(stage: Stage, step: Step) -> str:
    for service in step.values["services"]:
        stage.services.do("kill", service)
    return ""


def _run(stage: Stage, step: Step) -> str:
    """Start what was killed, one after the other, each when the one before is healthy."""
    for service in step.values["services"]:
        stage.services.do("start", service)
        well = partial(_is_well, stage, service)
        stage.wait(step, well, f"a healthy {service}")
    return ""


def _is_well(stage: Stage, service: str) -> bool:
    return stage.services.state(service).well


def _lie(stage: Stage, step: Step) -> str:
    mode = step.values["mode"]
    if mode not in MODES:
        raise LabError(f"lie: there is no mode {mode!r}; there are: {', '.join(MODES)}")
    stage.services.run("proxy", "sh", "-c", f"echo {mode} > {MODE}")
    return ""


# Kamailio --------------------------------------------------------------------------------------


def _restart_kamailio(stage: Stage, _step: Step) -> str:
    stage.before_restart()
    stage.services.do("restart", KAMAILIO, "-t", "5")
    return ""


def _kill_worker(stage: Stage, step: Step) -> str:
    """Kill a SIP worker, and wait until Docker has brought Kamailio back."""
    before = stage.services.state(KAMAILIO)
    pid = stage.node.worker()
    stage.before_restart()
    stage.services.run(KAMAILIO, "sh", "-c", f"kill -KILL {pid}")
    stage.wait(
        step,
        lambda: (now := stage.services.state(KAMAILIO)).running and now.started != before.started,
        "Kamailio's end and its restart",
    )
    return ""


def _await_well(stage: Stage, step: Step) -> str:
    service = step.values.get("service", KAMAILIO)
    stage.wait(step, lambda: _is_well(stage, service), f"a healthy {service}")
    return ""


def _reload(stage: Stage, _step: Step) -> str:
    stage.node.rpc("app_python.reload")
    return ""


def _settings(stage: Stage, step: Step) -> str:
    """Write the settings file; the feed's part is another each time: it is asked at once."""
    allowed = [stage.filled(one) for one in step.values.get("allow", ())]
    stage.node.write_settings(
        f"[feed]\nretry_unauthorized = {900 + next(_numbers)}\n[allow]\nnetworks = {allowed!r}\n"
    )
    return ""


def _import(stage: Stage, step: Step) -> str:
    began = time.monotonic()
    count = str(step.values["count"])
    stage.services.run(KAMAILIO, "python3", "-c", _IMPORT, count, "lab", timeout=step.within)
    return f"{count} entries imported into the store in {time.monotonic() - began:.1f} s"


def _forget(stage: Stage, step: Step) -> str:
    stage.services.run(KAMAILIO, "python3", "-c", _FORGET, "lab", timeout=step.within)
    return ""


# TCP connections -------------------------------------------------------------------------------


def _tcp(stage: Stage, name: str) -> int:
    found = re.search(rf"{name}: (\d+)", stage.node.rpc("core.tcp_info"))
    if found is None:
        raise LabError(f"Kamailio says nothing of its {name}")
    return int(found[1])


def _hold_connections(stage: Stage, step: Step) -> str:
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


def _await_tcp(stage: Stage, step: Step) -> str:
    """Wait until a new connection is served, or is not, as the step has it."""
    source, served = step.values["source"], bool(step.values["served"])
    addresses = [stage.services.address(one) for one in (KAMAILIO, source)]

    def probe() -> bool:
        try:
            words = ("bash", "-c", _PROBE, "bash", *addresses, f"p{next(_numbers)}")
            stage.services.run(source, *words, timeout=10)
        except LabError:
            return not served
        return served

    took = stage.wait(step, probe, f"TCP {'served' if served else 'refused'}")
    return f"{step.values['note']} {took:.1f} s" if "note" in step.values else ""


# Prometheus ------------------------------------------------------------------------------------


def _await_metric(stage: Stage, step: Step) -> str:
    """Wait until a query gives at least a number, for each of its series."""
    query, least = step.values["query"], float(step.values["least"])
    found: list[float] = []

    def seen() -> bool:
        try:
            text = stage.services.run("feed", "python3", "-c", _QUERY, query, timeout=10)
        except LabError:
            return False
        found[:] = [float(one["value"][1]) for one in json.loads(text)["data"]["result"]]
        return bool(found) and min(found) >= least

    wait_for(seen, f"{query} >= {least:g}", step.within)
    return f"{query} = {min(found):g}"


def _action(work: Callable[[Stage, Step], str], *values: str, changes: bool = True) -> Action:
    return Action(work, frozenset(values), changes)


ACTIONS: Final[Mapping[str, Action]] = {
    "start": _action(_start, "load", changes=False),
    "await-end": _action(_await_end, "load", changes=False),
    "await-drops": _action(_await_drops, "more", changes=False),
    "await-answers": _action(_await_answers, "load", changes=False),
    "await-silence": _action(_await_silence, "load", changes=False),
    "await-event": _action(
        _await_event, "event", "has", "least", "count", "then", "note", changes=False
    ),
    "list": _action(_list, "networks"),
    "delist": _action(_delist, "networks"),
    "kill": _action(_kill, "services"),
    "run": _action(_run, "services"),
    "lie": _action(_lie, "mode"),
    "restart-kamailio": _action(_restart_kamailio),
    "kill-worker": _action(_kill_worker),
    "await-well": _action(_await_well, "service", changes=False),
    "reload": _action(_reload),
    "settings": _action(_settings, "allow"),
    "import": _action(_import, "count"),
    "forget": _action(_forget),
    "hold-connections": _action(_hold_connections, "sources"),
    "await-tcp": _action(_await_tcp, "source", "served", "note", changes=False),
    "await-metric": _action(_await_metric, "query", "least", changes=False),
}
VALUES: Final = {name: action.values for name, action in ACTIONS.items()}
