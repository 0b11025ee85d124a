"""Real tools against the honeypot: SIPVicious, and our own SIPp scenarios."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from apiban.trial.sipp import SCENARIOS, Load, expectation, start

from tests.support.honeypot import Honeypot, running
from tests.support.node import wait_for

pytestmark = pytest.mark.kamailio

# SIPVicious binds to every address, and the kernel takes this one for loopback.
HERE = "127.0.0.1"


@pytest.fixture
def pot(tmp_path: Path) -> Iterator[Honeypot]:
    """Give a started honeypot at the address that the kernel sends from."""
    with running(tmp_path, host=HERE) as started:
        yield started


def sipvicious(pot: Honeypot, name: str, *words: str) -> str:
    """Run one of its programs; give what it printed."""
    program = Path(sys.executable).with_name(f"sipvicious_{name}")
    if not program.exists():
        pytest.fail(f"{program} is missing: the dev dependencies are not installed")
    done = subprocess.run(
        [program, "-p", str(pot.target[1]), *words, pot.target[0]],
        cwd=pot.folder,
        env={**os.environ, "HOME": str(pot.folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_svmap_finds_the_honeypot_and_stays_unproven(pot: Honeypot) -> None:
    """It sends OPTIONS, and answers no challenge."""
    assert "Asterisk PBX" in sipvicious(pot, "svmap")
    wait_for(lambda: pot.feed.unproven, "the unproven source at the feed")
    assert {(one["source"], one["method"], one["tool"]) for one in pot.feed.unproven} == {
        (HERE, "OPTIONS", "sipvicious")
    }
    assert pot.counts.sightings == 0


def test_svwar_stays_unproven(pot: Honeypot) -> None:
    """It guesses names, and answers no challenge."""
    sipvicious(pot, "svwar", "-e", "100-103")
    wait_for(lambda: pot.feed.unproven, "the unproven source at the feed")
    assert pot.counts.sightings == 0


def test_svcrack_ends_as_a_sighting(pot: Honeypot) -> None:
    """It answers challenges, and finds the weak password."""
    (pot.folder / "words.txt").write_text("alpha\nbeta\ngamma\n1234\n")
    said = sipvicious(pot, "svcrack", "-u", "100", "-d", "words.txt")
    assert "1234" in said
    wait_for(lambda: pot.feed.messages(HERE) == pot.counts.sightings > 0, "its sightings")
    first = pot.feed.of(HERE)[0]
    assert (first["proof"], first["tool"], first["method"]) == ("nonce", "sipvicious", "REGISTER")
    assert first["users"] == ["100"]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("name", "method", "tool"),
    [
        ("register-brute-force", "REGISTER", "sipcli"),
        ("invite-toll-fraud", "INVITE", "vaxsip"),
    ],
)
def test_scenario_ends_as_a_sighting(
    pot: Honeypot, name: str, method: str, tool: str, transport: str
) -> None:
    """As it is expected to, with what it tried."""
    expected = expectation(SCENARIOS, name)
    target = f"{HERE}:{pot.target[1]}"
    attack = Load(name, target, "127.0.1.2", 20, expected.count, transport=transport, timeout=30)
    with start(attack, SCENARIOS, pot.folder) as sipp:
        assert expected.check(sipp.wait()) == ""
    wait_for(lambda: pot.feed.messages() == pot.counts.sightings > 0, "its sightings")
    found = [one for one in pot.feed.of("127.0.1.2") if one["method"] == method]
    assert {one["tool"] for one in found} == {tool}
    assert sum(one["count"] for one in found) >= expected.count
    if method == "INVITE":
        assert found[0]["dialled"] == "900442038070000"
    else:
        assert {user for one in found for user in one["users"]} >= {"100", "1000", "admin"}


def test_malformed_junk_lists_nobody(pot: Honeypot) -> None:
    """It is answered seldom, and breaks nothing."""
    expected = expectation(SCENARIOS, "malformed-junk")
    target = f"{HERE}:{pot.target[1]}"
    attack = Load("malformed-junk", target, "127.0.1.3", 500, expected.count, timeout=30)
    with start(attack, SCENARIOS, pot.folder) as sipp:
        result = sipp.wait()
    assert result.calls_succeeded == expected.count
    assert result.messages_received <= 10
    wait_for(lambda: pot.counts.unproven > expected.count / 2, "most of it counted")
    assert pot.counts.sightings == 0
    assert pot.counts.faults == 0
    assert not [line for line in pot.kamailio.log_lines() if "ERROR" in line]
