"""What a situation's steps ask of Prometheus."""

from __future__ import annotations

import json
import time
from typing import Final

from apiban.lab.command import LabError
from apiban.lab.situation import Step
from apiban.lab.stage import Stage

__all__ = ["await_metric", "remember_metric"]

_QUERY: Final = """
import sys, urllib.parse, urllib.request
url = "http://prometheus:9090/api/v1/query?" + urllib.parse.urlencode({"query": sys.argv[1]})
print(urllib.request.urlopen(url, timeout=5).read().decode())
"""


def remember_metric(stage: Stage, step: Step) -> str:
    """Keep what a metric is now: what Prometheus has of it from before is waited out."""
    query, now = step.values["query"], time.time()

    def seen() -> bool:
        times, found = _ask(stage, f"timestamp({query})"), _ask(stage, query)
        if times and found and min(times) >= now:
            stage.metrics[query] = min(found)
            return True
        return False

    stage.wait(step, seen, query)
    return ""


def await_metric(stage: Stage, step: Step) -> str:
    """Wait until a query gives at least a number, or so much more, for each of its series."""
    query, more = step.values["query"], step.values.get("more")
    if more is not None and query not in stage.metrics:
        raise LabError(f"{query} was not remembered")
    before = stage.metrics[query] if more is not None else 0.0
    least = before + float(step.values["least"] if more is None else more)
    found: list[float] = []

    def seen() -> bool:
        found[:] = _ask(stage, query)
        return bool(found) and min(found) >= least

    stage.wait(step, seen, f"{query} >= {least:g}")
    return f"{query} = {min(found):g}" + (f", {min(found) - before:g} more" if more else "")


def _ask(stage: Stage, query: str) -> list[float]:
    """Give a query's numbers; none while Prometheus does not answer."""
    try:
        text = stage.services.run("feed", "python3", "-c", _QUERY, query, timeout=10)
    except LabError:
        return []
    return [float(one["value"][1]) for one in json.loads(text)["data"]["result"]]
