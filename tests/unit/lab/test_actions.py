"""Log lines are found by their event, their text and their numbers."""

from __future__ import annotations

import pytest
from apiban.lab.actions import matches
from apiban.lab.node import Event, read_events

LOG = """\
2026-11-22T07:32:50.091009707Z  0(1) NOTICE: <core> [core/kemi.c:126]: sr(): apiban: event=start \
version=0.1.0 mode=enforce generation=56 ranges=3 key=set
2026-11-22T07:32:50.542934268Z 13(19) NOTICE: <core>: nothing of ours
not a line of Docker's apiban: event=fault
2026-11-22T07:32:51.000000001Z apiban: event=pass-held number=2 total=104
"""


def test_events_are_read_with_their_time() -> None:
    """Only our own lines count, from the event on, with Docker's time as seconds since 1970."""
    start, held = read_events(LOG)
    assert start.text.startswith("event=start version=0.1.0")
    assert held.text == "event=pass-held number=2 total=104"
    assert held.at - start.at == pytest.approx(0.909, abs=0.001)
    assert start.at == pytest.approx(1795332770.091, abs=0.001)


@pytest.mark.parametrize(
    ("name", "has", "least", "found"),
    [
        ("published", "", {}, True),
        ("published", "mode=enforce", {"ipv4": 250000}, True),
        ("published", "", {"ipv4": 250002}, False),
        ("published", "", {"ipv6": 1, "ipv4": 1}, False),
        ("published", "", {"ipv5": 0}, False),
        ("published", "mode=off", {}, False),
        ("publish", "", {}, False),
    ],
)
def test_matches(name: str, has: str, least: dict[str, float], found: bool) -> None:  # noqa: FBT001
    """The whole name counts, the text, and every field's number."""
    event = Event(0.0, "event=published generation=7 ipv4=250001 ipv6=0 mode=enforce")
    assert matches(event, name, has, least) is found
