"""What was answered is reported, whoever is down or dies meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.honeypot import Honeypot, Tool, nonce_in, running
from tests.support.node import wait_for

pytestmark = pytest.mark.kamailio


class Load:
    """Tools that guess all the time, each from an address of its own; they count the answers."""

    def __init__(self, pot: Honeypot, tools: int = 3) -> None:
        self.answered = dict.fromkeys((f"127.0.1.{30 + n}" for n in range(tools)), 0)
        self._pot = pot
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._guess, args=(at,)) for at in self.answered]
        for thread in self._threads:
            thread.start()

    def _guess(self, source: str) -> None:
        with Tool(source, self._pot.target) as tool:
            nonce = ""
            while not self._stop.is_set():
                with contextlib.suppress(OSError):
                    tool.send(tool.answer_to(nonce) if nonce else tool.request("REGISTER"))
                    answer = tool.receive(1)
                    if nonce and b" 401 " in answer:
                        self.answered[source] += 1
                    nonce = nonce_in(answer) if answer else ""

    @property
    def least(self) -> int:
        """How many guesses of the slowest tool were answered."""
        return min(self.answered.values())

    def stop(self) -> None:
        """End, with all answers counted."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def load(pot: Honeypot) -> Iterator[Load]:
    """Give a running load, and end it."""
    running_load = Load(pot)
    try:
        yield running_load
    finally:
        running_load.stop()


def all_arrived(pot: Honeypot, guesses: Load) -> None:
    """Wait until the feed has as many messages of each tool as were answered, or more."""
    for source, answered in guesses.answered.items():
        assert answered > 0
        wait_for(lambda s=source, n=answered: pot.feed.messages(s) >= n, f"all of {source}", 20)


def test_feed_that_is_down_loses_nothing(tmp_path: Path) -> None:
    """What comes meanwhile is delivered when it is back, exactly once."""
    with running(tmp_path) as pot:
        pot.feed.stop()
        with load(pot) as guesses:
            wait_for(lambda: guesses.least > 60, "guesses")
            wait_for(lambda: pot.events("report-trouble"), "the line about the feed")
        assert pot.feed.sightings == []
        pot.feed.start()
        all_arrived(pot, guesses)
        wait_for(lambda: pot.events("report"), "the line about its return")
        assert pot.feed.messages() == pot.counts.sightings
        assert len(pot.events("report-trouble")) == 1


def test_refused_key_is_said_and_mended(tmp_path: Path) -> None:
    """A new key in the settings takes effect at once."""
    with running(tmp_path) as pot:
        pot.feed.answer = lambda _: (403, {"ipaddress": "none", "ID": "unauthorized"})
        with Tool("127.0.1.9", pot.target) as tool:
            tool.prove()
        wait_for(lambda: pot.events("report-denied"), "the refusal in the log")
        pot.feed.answer = pot.feed.settle
        pot.write_settings(report__key="another-key")
        wait_for(lambda: pot.feed.messages() == 1, "the sighting")
        assert "Bearer another-key" in pot.feed.authorizations


def test_killed_reporter_loses_nothing(tmp_path: Path) -> None:
    """Kamailio goes on, and starts another one."""
    with running(tmp_path) as pot, load(pot) as guesses:
        killed = set()
        for _ in range(3):
            wait_for(
                lambda: set(pot.processes("reporter")) - killed and pot.feed.bodies, "a reporter"
            )
            seen = guesses.least
            for pid in set(pot.processes("reporter")) - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            wait_for(lambda n=seen: guesses.least > n + 15, "more guesses")
        guesses.stop()
        all_arrived(pot, guesses)
        assert pot.kamailio.running
        assert pot.feed.messages() == pot.counts.sightings
        assert len(pot.events("report-ended")) == 3


def test_killed_kamailio_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    """All of its processes at once, under load; what they had queued comes after the restart."""
    with running(tmp_path) as pot:
        pot.feed.stop()  # so that all of it has to survive in the file
        with load(pot) as guesses:
            wait_for(lambda: guesses.least > 100, "guesses")
            for pid in pot.processes("kamailio") + pot.processes("reporter"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        pot.kamailio.stop()
        pot.feed.start()
        pot.kamailio.start()
        all_arrived(pot, guesses)
        assert len({body["queue"] for body in pot.feed.bodies}) == 1


def test_nonce_outlives_a_restart(tmp_path: Path) -> None:
    """A challenge of before is answered after."""
    with running(tmp_path) as pot, Tool("127.0.1.9", pot.target) as tool:
        nonce = nonce_in(tool.ask(tool.request("REGISTER")))
        pot.kamailio.stop()
        pot.kamailio.start()
        assert b" 200 OK" in tool.ask(tool.answer_to(nonce, "1234"))
        wait_for(lambda: pot.feed.messages() == 1, "the sighting")


def test_reload_under_load(tmp_path: Path) -> None:
    """New code takes over in each process; nothing is lost, and the bounds go on."""
    with running(tmp_path, settings={"answers.window": 3600}) as pot:
        with Tool("127.0.1.9", pot.target) as prober:
            for _ in range(10):
                prober.ask()
            with load(pot) as guesses:
                for _ in range(5):
                    seen = guesses.least
                    pot.kamailio.rpc("app_python.reload")
                    wait_for(lambda n=seen: guesses.least > n + 15, "more guesses")
            assert prober.ask(timeout=0.3) == b""
        all_arrived(pot, guesses)
        wait_for(lambda: pot.feed.messages() == pot.counts.sightings, "every message once")
        assert any("again=yes" in line for line in pot.events("honeypot-start"))
        assert pot.counts.faults == 0


def test_settings_of_the_bounds_apply_with_a_reload(tmp_path: Path) -> None:
    """And bad ones leave the running code at work."""
    with running(tmp_path, workers=1) as pot, Tool("127.0.1.9", pot.target) as tool:
        assert tool.ask()
        pot.write_settings(answers__per_source=-1)
        pot.kamailio.rpc("app_python.reload")
        assert tool.ask()
        wait_for(lambda: pot.events("reload-failed"), "the refusal")
        pot.write_settings(answers__per_source=0)
        pot.kamailio.rpc("app_python.reload")
        wait_for(lambda: tool.ask(timeout=0.5) == b"", "silence", 5)
