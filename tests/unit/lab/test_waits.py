"""What the steps wait for: connections, Prometheus' numbers, with containers played by the test."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from apiban.lab.command import LabError
from apiban.lab.connections import await_tcp
from apiban.lab.metrics import await_metric, remember_metric
from apiban.lab.services import wait_for
from apiban.lab.situation import Step
from apiban.lab.stage import Stage

Answer = Callable[[tuple[str, ...]], str]


class Containers:
    """Answers each command in a container as the test says."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def address(self, service: str) -> str:
        """Give a name in place of an address."""
        return service

    def run(self, _service: str, *words: str, **_: Any) -> str:
        """Answer a command."""
        return self._answer(words)


class Play:
    """As much of a stage as these steps use."""

    def __init__(self, answer: Answer) -> None:
        self.services = Containers(answer)
        self.metrics: dict[str, float] = {}

    def wait(self, step: Step, condition: Callable[[], bool], what: str) -> float:
        """Wait within the step's time."""
        return wait_for(condition, what, step.within, every=0.01)


def _stage(answer: Answer) -> Stage:
    return cast("Stage", Play(answer))


def _tcp(*, served: bool) -> Step:
    return Step("await-tcp", {"source": "caller", "served": served}, 0.05)


@pytest.mark.parametrize(("said", "served"), [("served\n", True), ("refused\n", False)])
def test_a_connection_is_what_the_probe_says(said: str, served: bool) -> None:  # noqa: FBT001
    """What it says is taken; the contrary does not come."""
    await_tcp(_stage(lambda _: said), _tcp(served=served))
    with pytest.raises(LabError, match="not within"):
        await_tcp(_stage(lambda _: said), _tcp(served=not served))


def test_a_probe_that_did_not_run_is_no_refusal() -> None:
    """Docker's failure, or no word, is not taken for Kamailio's."""

    def fails(_: tuple[str, ...]) -> str:
        raise LabError("no container")

    with pytest.raises(LabError, match="no container"):
        await_tcp(_stage(fails), _tcp(served=False))
    with pytest.raises(LabError, match="the probe of TCP says ''"):
        await_tcp(_stage(lambda _: ""), _tcp(served=False))


def test_an_increase_is_counted_from_what_was_remembered() -> None:
    """What was there before does not count; what was scraped before is not remembered."""
    now, value = time.time() - 10, 7.0

    def answer(words: tuple[str, ...]) -> str:
        number = now if words[-1].startswith("timestamp(") else value
        return json.dumps({"data": {"result": [{"value": [0, str(number)]}]}})

    stage = _stage(answer)
    remember, more = Step("", {"query": "q"}, 0.05), Step("", {"query": "q", "more": 3}, 0.05)
    with pytest.raises(LabError, match="q was not remembered"):
        await_metric(stage, more)
    with pytest.raises(LabError, match="not within"):
        remember_metric(stage, remember)
    now = time.time() + 60
    remember_metric(stage, remember)
    with pytest.raises(LabError, match="q >= 10: not within"):
        await_metric(stage, more)
    value = 10.0
    assert await_metric(stage, more) == "q = 10, 3 more"
    assert await_metric(stage, Step("", {"query": "q", "least": 10}, 0.05)) == "q = 10"
