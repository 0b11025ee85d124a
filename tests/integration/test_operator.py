"""Ten thousand addresses in one call of the command line, while four workers are flooded."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest
from apiban.trial.sipp import SCENARIOS, Load, Server, serve, start

from tests.support.node import NodeUnderTest, wait_for
from tests.support.sip import Sender

pytestmark = [pytest.mark.kamailio, pytest.mark.timeout(180)]

LISTED = ("127.0.1.5", "127.0.1.6")
MANY = [f"127.{20 + at // 2500}.{at // 250 % 10}.{at % 250 + 1}" for at in range(10_000)]
# From the first to the last of the list: when these are in force, all of it is one snapshot.
PROBES = (MANY[0], MANY[4_999], MANY[-1])


@dataclass
class Probe:
    """Asks from a few sources, again and again, and notes when each was answered."""

    node: NodeUnderTest
    answered: dict[str, float] = field(default_factory=dict)
    silent: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(one,)) for one in PROBES]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, source: str) -> None:
        while not self._end.is_set():
            asked = time.monotonic()
            with Sender(source, self.node.target, "udp") as sender:
                # Kamailio itself answers that, with 483: the upstream has calls alone.
                request = sender.request().replace(b"Max-Forwards: 70", b"Max-Forwards: 0")
                if sender.ask(request, timeout=0.25):
                    self.answered[source] = time.monotonic()
                else:
                    self.silent[source] = asked

    def last_answer(self) -> float:
        """Give when a source was last answered, once each of them asked twice in vain since."""
        wait_for(
            lambda: all(
                self.silent.get(one, 0.0) > self.answered.get(one, 0.0) + 0.5 for one in PROBES
            ),
            "silence for every probe",
            20,
        )
        return max(self.answered.values())

    def first_answer_after(self, moment: float) -> float:
        """Give when the last of the sources was answered again."""
        wait_for(
            lambda: all(self.answered.get(one, 0.0) > moment for one in PROBES),
            "an answer for every probe",
            20,
        )
        return max(self.answered[one] for one in PROBES)


@contextmanager
def under_load(node: NodeUnderTest, work: Path) -> Iterator[Callable[[], tuple[int, int]]]:
    """Flood from two listed sources beside good calls; the callable ends it: (created, failed)."""
    host, port = node.target
    with ExitStack() as stack:
        for source in LISTED:
            load = Load("scanner-options-flood", f"{host}:{port}", source, 1000, 60_000)
            stack.enter_context(start(load, SCENARIOS, work))
        calls = stack.enter_context(
            start(Load("good-call", f"{host}:{port}", "127.0.2.1", 20, 1200), SCENARIOS, work)
        )

        def ended() -> tuple[int, int]:
            result = calls.stop()
            return result.calls_created, result.calls_failed

        yield ended


def apiban(node: NodeUnderTest, *words: str, text: str = "") -> dict[str, object]:
    """Run a verb with --json, and give what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "apiban.cli", *words, "--json"],
        env=node.environ(),
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    return said


def test_ten_thousand_at_once_beside_calls(
    make_node: Callable[..., NodeUnderTest], tmp_path: Path
) -> None:
    """They are banned, then allowed, each in one call and within a second; no good call fails."""
    node = make_node(LISTED, workers=4)
    text = "\n".join(MANY) + "\n"
    with ExitStack() as stack:
        upstream = stack.enter_context(
            serve(Server("upstream-uas", "127.0.6.1"), SCENARIOS, tmp_path)
        )
        node.write_settings(edge__upstreams=[f"sip:127.0.6.1:{upstream.port}"])
        node.start()
        ended = stack.enter_context(under_load(node, tmp_path))
        probe = stack.enter_context(Probe(node))
        wait_for(lambda: len(probe.answered) == len(PROBES), "a first answer for every probe")
        generation = node.board.generation
        said = apiban(node, "ban", "-", text=text)
        done = time.monotonic()
        banned_after = probe.last_answer() - done
        one_snapshot = node.board.generation - generation
        apiban(node, "unban", "-", text=text)
        unbanned_after = probe.first_answer_after(time.monotonic()) - done
        apiban(node, "ban", "-", text=text)
        probe.last_answer()
        apiban(node, "allow", "add", "-", text=text)
        done_allowing = time.monotonic()
        allowed_after = probe.first_answer_after(done_allowing) - done_allowing
        created, failed = ended()
    assert said["new"] == len(MANY)
    assert created > 50
    assert failed == 0
    assert banned_after < 1.0
    assert allowed_after < 1.0
    assert unbanned_after > 0
    assert one_snapshot >= 1
