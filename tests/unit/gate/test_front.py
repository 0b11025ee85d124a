"""The front: what is put in, how much of it, and when it is emptied."""

from __future__ import annotations

import pytest
from apiban.gate import DROP, PASS, Board, Front, Sweeper
from apiban.gate.board import CHANGES, FRONT
from apiban.gate.front import FRONT_SECONDS, STATISTICS, TABLE
from apiban.trial.kamailio import CONFIGURATION
from hypothesis import given
from hypothesis import strategies as st
from kamailio_kemi_stubs.fake import FakeKsr

from tests.support.clock import ManualClock

DROPPED, PASSED = (f"$stat({name})" for name, _ in STATISTICS)


class Table:
    """Kamailio's hash table, behind a fake KSR."""

    def __init__(self) -> None:
        self.ksr = FakeKsr("5.6")
        self.board = Board.unnamed(now=0)
        self.clock = ManualClock()
        self.entries: dict[str, int] = {}
        self.full = False
        self.resets = 0
        self.ksr.on("htable.sht_seti", self._set)
        self.ksr.on("htable.sht_rm", self._remove)
        self.ksr.on("htable.sht_reset", self._reset)
        self.front = Front(self.ksr, self.board, uptime=self.clock.uptime)
        self.sweeper = Sweeper(self.ksr, self.board, uptime=self.clock.uptime)
        self.sweeper.tick()

    def put(self, source: str, verdict: int = DROP, changes: int | None = None) -> None:
        """Put a verdict that holds now, or held earlier."""
        now = self.board.words[CHANGES]
        self.front.put(source, verdict, changes=now if changes is None else changes)

    def _set(self, table: str, key: str, value: int) -> int:
        assert table == TABLE
        if self.full:
            return -1
        self.entries[key] = value
        return 1

    def _remove(self, table: str, key: str) -> int:
        assert table == TABLE
        del self.entries[key]
        return 1

    def _reset(self, table: str) -> int:
        assert table == TABLE
        self.entries.clear()
        self.resets += 1
        return 1


def test_verdicts_are_put_in() -> None:
    """Both kinds, by the source's text."""
    table = Table()
    table.put("192.0.2.1", DROP)
    table.put("2001:db8::1", PASS)
    assert table.entries == {"192.0.2.1": 2, "2001:db8::1": 1}


def test_verdict_of_before_a_change_does_not_stay() -> None:
    """A worker that was slow finds that the table was emptied meanwhile."""
    table = Table()
    old = table.board.words[CHANGES]
    table.board.announce(7)
    table.put("192.0.2.1", changes=old)
    assert table.entries == {}


def test_each_change_empties_it_once() -> None:
    """A new list, and new settings; between them it is left alone."""
    table = Table()
    table.put("192.0.2.1")
    table.sweeper.tick()
    for change in (lambda: table.board.announce(8), table.board.announce_settings):
        table.put("192.0.2.1")
        table.sweeper.tick()
        assert table.entries
        resets = table.resets
        change()
        table.sweeper.tick()
        table.sweeper.tick()
        assert table.entries == {}
        assert table.resets == resets + 1


def test_nothing_is_asked_of_kamailio_without_a_front() -> None:
    """A configuration without the table has no such table to empty, and no such statistics."""
    table = Table()
    table.board.announce(3)
    table.sweeper.tick()
    assert table.ksr.calls == []


@pytest.mark.parametrize(("verdict", "most"), [(DROP, 2048), (PASS, 1024)])
def test_allowance_of_all_workers_bounds_what_is_put_in(verdict: int, most: int) -> None:
    """Forged sources fill no memory, whichever worker meets them; half is kept for the listed."""
    table = Table()
    other = Front(table.ksr, table.board, uptime=table.clock.uptime)
    for number in range(3000):
        table.put(f"source {number}", verdict)
        other.put(f"other {number}", verdict, changes=table.board.words[CHANGES])
    assert len(table.entries) == most
    if verdict == PASS:
        table.put("a listed one", DROP)
        assert "a listed one" in table.entries


def test_emptied_every_half_minute() -> None:
    """Whatever is in it; and there is room again."""
    table = Table()
    for number in range(3000):
        table.put(f"source {number}")
    table.clock.tick(FRONT_SECONDS - 0.5)
    table.sweeper.tick()
    assert len(table.entries) == 2048
    table.clock.tick(0.5)
    table.sweeper.tick()
    assert table.entries == {}
    table.put("192.0.2.1")
    assert table.entries


def test_no_memory_means_a_pause() -> None:
    """Each refusal is an ERROR of Kamailio's: one in half a minute, not one a packet."""
    table = Table()
    table.full = True
    for _ in range(10):
        table.put("192.0.2.1")
    assert len(table.ksr.calls) == 1
    table.full = False
    table.clock.tick(FRONT_SECONDS)
    table.sweeper.tick()
    table.put("192.0.2.1")
    assert table.entries


def test_nothing_is_put_in_while_nobody_empties_it() -> None:
    """A rtimer process that stands still, or runs older code, would leave it as it is."""
    table = Table()
    table.clock.tick(1.1)
    table.put("192.0.2.1")
    assert table.entries == {}
    table.sweeper.tick()
    table.put("192.0.2.1")
    assert table.entries


def test_source_is_met_the_second_time() -> None:
    """In one window; one that was met is not forgotten because of a few others."""
    table = Table()
    front = table.front
    assert [front.has_met("192.0.2.1") for _ in range(3)] == [False, True, True]
    assert not front.has_met("192.0.2.2")
    assert front.has_met("192.0.2.1")
    table.clock.tick(FRONT_SECONDS)
    table.sweeper.tick()
    assert not front.has_met("192.0.2.1")


def test_configuration_has_the_table_and_the_statistics() -> None:
    """By their names, with the time that the gate reckons with; nobody resets the counts."""
    text = (CONFIGURATION.parent / "apiban-include.cfg").read_text(encoding="utf-8")
    assert f'"htable", "{TABLE}=>size=12;autoexpire={FRONT_SECONDS:g};"' in text
    for name, _ in STATISTICS:
        assert f'"statistics", "variable", "{name}/no_reset"' in text
        assert f'update_stat("{name}", "+1")' in text


@given(st.lists(st.integers(0, 3 * 2**30), min_size=1, max_size=8))
def test_native_counts_reach_the_board_over_the_wrap_of_32_bits(steps: list[int]) -> None:
    """Kamailio's statistics begin again at 0 after 2**32; the board's words do not."""
    table = Table()
    table.board.words[FRONT] = 1
    total = 0
    for step in steps:
        total += step
        signed = (total + 2**31) % 2**32 - 2**31  # as a C int shows it
        table.ksr.variables = {DROPPED: signed, PASSED: total % 2**32}
        table.sweeper.tick()
        assert table.board.front().dropped == table.board.total().dropped == total
        assert table.board.front().passed == total


def test_counts_go_on_after_a_reload() -> None:
    """A new sweeper of new code goes on where the board's words are."""
    table = Table()
    table.board.words[FRONT] = 1
    table.ksr.variables = {DROPPED: 2**32 - 5, PASSED: 7}
    table.sweeper.tick()
    table.ksr.variables = {DROPPED: 5, PASSED: 7}
    Sweeper(table.ksr, table.board, uptime=table.clock.uptime).tick()
    assert table.board.total().dropped == 2**32 + 5
    assert table.board.total().passed == 7


def test_statistic_that_is_not_there_counts_nothing() -> None:
    """Null leaves the board alone."""
    table = Table()
    table.board.words[FRONT] = 1
    table.sweeper.tick()
    assert table.board.total().dropped == 0
