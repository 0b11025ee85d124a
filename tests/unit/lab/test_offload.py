"""What the kernel must drop and Kamailio must not, with containers played by the test."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from apiban.lab import offload
from apiban.lab.command import LabError
from apiban.lab.offload import await_offload
from apiban.lab.services import wait_for
from apiban.lab.situation import Step
from apiban.lab.stage import Stage


class _Play:
    """A stage whose client and Kamailio count on at each look."""

    def __init__(self, *, listed: str, kernel: int, kamailio: Callable[[int], int]) -> None:
        self.mark = time.time()
        self.services = self
        self.node = self
        self._listed, self._step, self._kamailio = listed, kernel, kamailio
        self._kernel = 0

    def address(self, service: str) -> str:
        return service

    def run(self, _service: str, *_: str) -> str:
        self._kernel += self._step
        return json.dumps({"flooding": [{"source": self._listed}], "dropped_ipv4": self._kernel})

    def counts(self) -> Any:
        return SimpleNamespace(dropped=self._kamailio(self._kernel))

    def wait(self, step: Step, condition: Callable[[], bool], what: str) -> float:
        return wait_for(condition, what, step.within, every=0.001)


_STEP = Step("await-offload", {"source": "attacker", "more": 50}, 0.5)


@pytest.fixture(autouse=True)
def _soon_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "_STILL", 0.0)


def _stage(**values: Any) -> Stage:
    return cast("Stage", _Play(**{"listed": "attacker", "kernel": 10, **values}))


def test_drops_of_the_kernel_are_told() -> None:
    """With their number, when Kamailio counts none."""
    assert "drops there, and none by Kamailio" in await_offload(_stage(kamailio=lambda _: 7), _STEP)


def test_what_kamailio_drops_meanwhile_is_a_failure() -> None:
    """The source is in the kernel by then: all of it should stop there."""
    with pytest.raises(LabError, match="Kamailio dropped"):
        await_offload(_stage(kamailio=lambda kernel: kernel // 20), _STEP)


@pytest.mark.parametrize("change", [{"listed": "accomplice"}, {"kernel": 0}])
def test_what_does_not_come_is_a_failure(change: dict[str, Any]) -> None:
    """The source in the kernel, and its drops there."""
    with pytest.raises(LabError, match="not within"):
        await_offload(_stage(kamailio=lambda _: 7, **change), _STEP)
