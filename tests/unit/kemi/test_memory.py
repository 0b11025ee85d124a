"""The tables that all workers share: bounded, aged by a clock of the test's."""

from __future__ import annotations

import mmap
import os

import pytest
from apiban.errors import BoardError
from apiban.kemi.memory import TABLES, Memory, Pages, Table

from tests.support.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """Give a clock."""
    return ManualClock()


def _table(clock: ManualClock, entries: int = 64, lasts: float = 100.0) -> Table:
    words = memoryview(bytearray(entries * 16)).cast("Q")
    return Table(words, lasts=lasts, uptime=clock.uptime)


def test_what_was_put_is_known_for_its_time(clock: ManualClock) -> None:
    """And no longer; nor what was forgotten."""
    table = _table(clock)
    assert table.put("a", 7)
    assert table.get("a") == 7
    assert table.get("b") is None
    clock.tick(99)
    assert table.get("a") == 7
    assert table.get("a", within=50) is None
    clock.tick(1)
    assert table.get("a") is None
    table.put("b")
    assert table.forget("b")
    assert not table.forget("b")
    assert table.get("b") is None


def test_it_never_grows(clock: ManualClock) -> None:
    """The oldest goes for a new one, unless it is to be kept."""
    table = _table(clock, entries=4)
    for number in range(4):
        table.put(f"old-{number}")
        clock.tick(1)
    assert not table.put("new", keep=True)
    assert table.get("new") is None
    assert table.put("new")
    assert table.get("old-0") is None
    assert [table.get(f"old-{number}") for number in (1, 2, 3)] == [1, 1, 1]
    assert table.put("old-1", 2, keep=True)  # one's own place is no other's
    assert table.get("old-1") == 2
    clock.tick(100)
    assert table.put("later", keep=True)


def test_counts_begin_anew_with_each_window(clock: ManualClock) -> None:
    """The window begins with the first one."""
    table = _table(clock)
    assert [table.count("a", window=10) for _ in range(3)] == [1, 2, 3]
    table.uncount("a")
    clock.tick(9)
    assert table.count("a", window=10) == 3
    clock.tick(1)
    assert table.count("a", window=10) == 1
    table.uncount("b")
    assert table.get("b") is None


def test_processes_share_it() -> None:
    """What a forked process puts is known here, and after a reload."""
    clock = ManualClock()
    pages = Pages()
    memory = Memory(pages, uptime=clock.uptime)
    child = os.fork()
    if not child:
        memory.calls.put("a call", 3)
        os._exit(0)
    os.waitpid(child, 0)
    again = Memory(Pages(pages.mapped), uptime=clock.uptime)
    assert memory.calls.get("a call") == again.calls.get("a call") == 3
    for name in TABLES:
        if name != "calls":
            assert getattr(memory, name).get("a call") is None


def test_other_memory_is_refused() -> None:
    """An earlier code's layout, as after a reload of new code."""
    with pytest.raises(BoardError, match="restart Kamailio"):
        Pages(mmap.mmap(-1, 4096))
