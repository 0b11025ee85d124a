"""What a situation's steps can do, by name; docs/lab.md has them all.

An action gives a text for the table, or an empty one, and raises ``LabError`` when what it waits
for does not come.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from apiban.lab.command import LabError
from apiban.lab.connections import await_tcp, hold_connections
from apiban.lab.metrics import await_metric, remember_metric
from apiban.lab.node import KAMAILIO, Event
from apiban.lab.offload import await_offload, end_offload, offload
from apiban.lab.proxy import MODE, MODES
from apiban.lab.situation import Step
from apiban.lab.stage import Stage

__all__ = ["ACTIONS", "VALUES", "act", "matches"]

_numbers = itertools.count(1)
_STILL: Final = 1.0  # seconds without an answer that are taken for silence

# Puts as many addresses as are asked for into the node's store, a page at a time, as a sync would.
_IMPORT: Final = """
import sys, time
from pathlib import Path
from apiban.address import Network, parse_network
from apiban.store import FeedState, Store
count, name, now = int(sys.argv[1]), sys.argv[2], time.time()
first = int.from_bytes(bytes((20, 0, 0, 1)), "big")
with Store(Path("/var/lib/apiban/store.db")) as store:
    pages = [[parse_network(one) for one in sys.argv[3:]]]
    for begin in range(0, count, 5000):
        pages.append([Network(4, one, one) for one in
                (first + 16 * number for number in range(begin, min(begin + 5000, count)))])
    for page in pages:
        store.record_page(name, page, listed=now, expires=now + 3600, state=FeedState(name))
"""
_FORGET: Final = """
import sys, time
from pathlib import Path
from apiban.store import Store
with Store(Path("/var/lib/apiban/store.db")) as store:
    print(store.remove_expired(sys.argv[1], until=time.time() + 7200, now=time.time()))
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
    return _timed(step, time.time() - stage.mark)


def _await_silence(stage: Stage, step: Step) -> str:
    """Wait until what a load sends has had no answer for a while; tell when the last was seen."""
    name = step.values["load"]
    load = stage.load(name)
    last, since, sent = -1, time.time(), 0

    def still() -> bool:
        nonlocal last, since, sent
        seen = load.look()
        if seen is None or load.over:
            raise LabError(f"{name}: it sends nothing any more")
        if seen.messages_received != last:
            last, since, sent = seen.messages_received, time.time(), seen.messages_sent
        return bool(time.time() - since >= _STILL and seen.messages_sent > sent)

    stage.wait(step, still, f"silence for {name}")
    stage.silent[name] = last
    return _timed(step, since - stage.mark)


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
    return _timed(step, found[count - 1].at - stage.mark)


def _timed(step: Step, seconds: float) -> str:
    return f"{step.values['note']} {seconds:.2f} s" if "note" in step.values else ""


# The feed and the way to it --------------------------------------------------------------------


def _networks(stage: Stage, step: Step) -> list[str]:
    return [stage.filled(one) for one in step.values.get("networks", ())]


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
    words = ("python3", "-c", _IMPORT, count, "lab", *_networks(stage, step))
    stage.services.run(KAMAILIO, *words, timeout=step.within)
    return f"{count} entries imported into the store in {time.monotonic() - began:.1f} s"


def _forget(stage: Stage, step: Step) -> str:
    stage.services.run(KAMAILIO, "python3", "-c", _FORGET, "lab", timeout=step.within)
    return ""


def _action(work: Callable[[Stage, Step], str], *values: str, changes: bool = True) -> Action:
    return Action(work, frozenset(values), changes)


ACTIONS: Final[Mapping[str, Action]] = {
    "start": _action(_start, "load", changes=False),
    "await-end": _action(_await_end, "load", changes=False),
    "await-drops": _action(_await_drops, "more", changes=False),
    "await-answers": _action(_await_answers, "load", "note", changes=False),
    "await-silence": _action(_await_silence, "load", "note", changes=False),
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
    "import": _action(_import, "count", "networks"),
    "forget": _action(_forget),
    "hold-connections": _action(hold_connections, "sources"),
    "await-tcp": _action(await_tcp, "source", "served", "note", changes=False),
    "offload": _action(offload),
    "await-offload": _action(await_offload, "source", "more", changes=False),
    "end-offload": _action(end_offload),
    "remember-metric": _action(remember_metric, "query", changes=False),
    "await-metric": _action(await_metric, "query", "least", "more", changes=False),
}
VALUES: Final = {name: action.values for name, action in ACTIONS.items()}
