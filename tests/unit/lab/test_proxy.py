"""The proxy passes answers on, or makes a lie of them."""

from __future__ import annotations

import json

import pytest
from apiban.errors import FeedInvalid
from apiban.feed.answer import EndOfList, Page, read_page
from apiban.lab.proxy import twisted

LISTED = ["172.30.77.66", "172.30.77.67", *(f"198.51.100.{number}" for number in range(1, 9))]
PAGE = json.dumps({"ipaddress": LISTED, "ID": "1007"}).encode()


def read(mode: str, status: int = 200, body: bytes = PAGE) -> list[str] | None:
    """Give what the node's own client makes of the answer; None at the end of the list."""
    answer = read_page(*twisted(mode, status, body, ("0.0.0.0/0", "172.30.77.20")))
    if isinstance(answer, EndOfList):
        return None
    assert isinstance(answer, Page)
    return [str(one) for one in answer.networks]


def test_honest_and_slow_change_nothing() -> None:
    """The answer is the feed's own, whatever it is."""
    assert read("honest") == LISTED
    assert twisted("slow", 403, b"x") == (403, b"x")


def test_garbage_is_no_answer() -> None:
    """The client refuses it."""
    with pytest.raises(FeedInvalid):
        read("garbage")


def test_empty_is_the_end_of_the_list() -> None:
    """It is a well-formed answer, which makes it a lie."""
    assert read("empty") is None


def test_half_lets_the_first_vanish() -> None:
    """More than half is gone, the attackers with it."""
    rest = read("half")
    assert rest is not None
    assert rest == LISTED[-len(rest) :]
    assert 0 < len(rest) < len(LISTED) / 2


def test_everything_adds_everybody() -> None:
    """The whole of IPv4 and the node's own friends are listed beside the others."""
    assert read("everything") == [*LISTED, "0.0.0.0/0", "172.30.77.20"]
    end = json.dumps({"ipaddress": ["no new bans"], "ID": "none"}).encode()
    assert read("everything", 400, end) is None
