from __future__ import annotations

import signal
import subprocess
import sys

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


_SPEAKS = """
from apiban.ticks import run, say
run(lambda: say("sync-start", pid=1), effect="it goes on")
say("sync-start", pid=2)
"""


def test_process_whose_keeper_let_go_ends_well() -> None:
    """It answers to nobody what ticks are left, does what is to be done at its end, and ends."""
    with subprocess.Popen(
        [sys.executable, "-c", _SPEAKS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        child.stdin.write(b"." * 3)
        child.stdin.close()
        assert child.wait(20) == 0
        assert child.stderr.read() == b""
