"""When the newly banned are cut off."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from apiban.firewall import cutting
from apiban.firewall.conntrack import Cut
from apiban.firewall.cutting import Cutting
from apiban.firewall.elements import Block
from apiban.firewall.rules import Port
from apiban.firewall.trouble import Troubles

from tests.support.clock import ManualClock
from tests.support.log import MemoryLog


def test_what_is_collected_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound all that the kernel bans is cut off, once."""
    monkeypatch.setattr(cutting, "_MOST", 3)
    calls: list[set[Block]] = []

    def cut(
        blocks: Collection[Block], *, allowed: Collection[Block], ports: tuple[Port, ...]
    ) -> Cut:
        assert not allowed
        assert not ports
        calls.append(set(blocks))
        return Cut(1)

    clock = ManualClock()
    made = Cutting(cut, clock=clock, troubles=Troubles(MemoryLog()))
    banned = {(4, number, number): 9 for number in range(10)}
    made.collect([(4, 1, 1), (4, 99, 99)])
    made.look(banned, allowed=(), ports=())
    assert calls == [{(4, 1, 1)}]
    for number in range(5):
        made.collect([(4, number, number)])
    for _ in range(2):
        clock.tick(10)
        made.look(banned, allowed=(), ports=())
    assert calls[1:] == [set(banned)]
    assert made.removed == 2
