from __future__ import annotations

import signal

import pytest
from apiban.ticks import run_service

from tests.support.log import MemoryLog


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_service_ends_by_a_signal(number: signal.Signals) -> None:
    """The tick under way is ended first, none comes after it, and the handlers are as before."""
    done: list[str] = []
    before = signal.getsignal(number)

    def tick() -> None:
        done.append("begun")
        signal.raise_signal(number)
        done.append("ended")

    run_service(tick, every=60, effect="", log=MemoryLog())
    assert done == ["begun", "ended"]
    assert signal.getsignal(number) is before


def test_service_goes_on_after_a_fault() -> None:
    """It is said once in a minute, without the error's own text."""
    log, ticks = MemoryLog(), 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 3:
            signal.raise_signal(signal.SIGTERM)
        raise ValueError("sesame")

    run_service(tick, every=0.001, effect="it goes on", log=log)
    assert ticks == 3
    assert len(log.fields("fault")) == 1
    assert "sesame" not in str(log.fields("fault"))
