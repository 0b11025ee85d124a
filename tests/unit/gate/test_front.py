"""The front: what is put in, how much of it, and when it is emptied."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from apiban.gate import DROP, PASS, Board, Front, Hits, Sweeper
from apiban.gate.board import CHANGES, FRONT
from apiban.gate.front import COUNT_BITS, FRONT_SECONDS, STATISTICS, TABLE
from apiban.snapshot import Origin
from apiban.trial.kamailio import CONFIGURATION
from hypothesis import given
from hypothesis import strategies as st
from kamailio_kemi_stubs.fake import FakeKsr

from tests.support.clock import ManualClock

DROPPED, LOCAL, DETECTOR, PASSED = (f"$stat({name})" for name, _ in STATISTICS)


class Table:
    """Kamailio's hash table, behind a fake KSR."""

    def __init__(self) -> None:
        self.ksr = FakeKsr("5.6")
        self.board = Board.unnamed(now=0)
        self.clock = ManualClock()
        self.entries: dict[str, int] = {}
        self.full = False
        self.emptied = 0
        self.meanwhile: Callable[[], object] = lambda: None  # what a worker does before it ends
        self.hits = Hits.unnamed(now=0)
        self.at: list[str] | None = None  # what the iterator has before it
        self.locked: list[str] = []
        self.ksr.on("htable.sht_lock", self._lock)
        self.ksr.on("htable.sht_unlock", self._unlock)
        self.ksr.on("htable.sht_is_null", self._is_null)
        self.ksr.on("htable.sht_seti", self._set)
        self.ksr.on("htable.sht_rm", self._remove)
        self.ksr.on("htable.sht_reset", self._reset)
        self.ksr.on("htable.sht_iterator_start", self._start)
        self.ksr.on("htable.sht_iterator_next", self._next)
        self.ksr.on("htable.sht_iterator_rm", self._remove_this)
        self.ksr.on("htable.sht_iterator_end", self._end)
        self.ksr.on("pv.get", self._get)
        self.front = Front(self.ksr, self.board, uptime=self.clock.uptime)
        self.sweeper = self.new_sweeper()
        self.sweeper.tick()

    def new_sweeper(self, previous: Sweeper | None = None) -> Sweeper:
        """Give a sweeper, as a start or a reload makes it."""
        return Sweeper(
            self.ksr,
            self.board,
            self.hits,
            now=self.clock.now,
            uptime=self.clock.uptime,
            previous=previous,
        )

    def put(
        self,
        source: str,
        verdict: int = DROP,
        changes: int | None = None,
        origin: Origin = Origin.FEED,
    ) -> bool:
        """Put a verdict that holds now, or held earlier."""
        now = self.board.words[CHANGES]
        return self.front.put(source, verdict, origin, changes=now if changes is None else changes)

    def come(self, source: str, times: int = 1) -> None:
        """Let messages come from a source that native code answers for."""
        self.entries[source] += times

    def dropped(self, source: str) -> int:
        """Give what the hits tell of a source."""
        hit = self.hits.of(source)
        return 0 if hit is None else hit.dropped

    def sweep(self, seconds: float = 1.0) -> None:
        """Let time go by, and the sweeper look."""
        self.clock.tick(seconds)
        self.sweeper.tick()

    def _lock(self, table: str, key: str) -> int:
        assert table == TABLE
        assert not self.locked
        self.locked.append(key)
        return 1

    def _unlock(self, table: str, key: str) -> int:
        assert table == TABLE
        self.locked.remove(key)
        return 1

    def _is_null(self, table: str, key: str) -> int:
        assert table == TABLE
        assert self.locked == [key]
        return -1 if key in self.entries else 1

    # Kamailio's iterator: removing an entry goes on to the next one, as ``next`` does.

    def _start(self, _name: str, table: str) -> int:
        assert table == TABLE
        assert self.at is None, "the lock of a slot is held for ever"
        self.at = ["", *self.entries]
        return 1

    def _next(self, _name: str) -> int:
        assert self.at is not None
        del self.at[0]
        return 1 if self.at else -1

    def _remove_this(self, name: str) -> int:
        assert self.at
        del self.entries[self.at[0]]
        return 1 if self._next(name) > 0 else -2

    def _end(self, _name: str) -> int:
        self.at = None
        self.emptied += not self.entries
        self.meanwhile()
        return 1

    def _get(self, name: str) -> object:
        if name.startswith("$shtit"):
            assert self.at
            return self.at[0] if "key" in name else self.entries[self.at[0]]
        return self.ksr.variables.get(name)

    def _set(self, table: str, key: str, value: int) -> int:
        assert table == TABLE
        assert self.locked == [key]
        if self.full:
            return -1
        self.entries[key] = value
        return 1

    def _remove(self, table: str, key: str) -> int:
        assert table == TABLE
        self.entries.pop(key, None)
        return 1

    def _reset(self, table: str) -> int:
        assert table == TABLE
        self.entries.clear()
        self.emptied += 1
        return 1


def test_verdicts_are_put_in() -> None:
    """Both kinds, by the source's text, a drop with its ban's origin; each counts from 0."""
    table = Table()
    assert table.put("2001:db8::1", PASS)
    for origin in Origin:
        assert table.put(f"192.0.2.{origin:d}", DROP, origin=origin)
    values = [number >> COUNT_BITS for number in table.entries.values()]
    assert values == [PASS, DROP, DROP + 1, DROP + 2]
    assert not any(number & (1 << COUNT_BITS) - 1 for number in table.entries.values())
    assert max(table.entries.values()) + (1 << COUNT_BITS) <= 2**31  # an int of Kamailio's


def test_verdict_that_another_worker_put_in_is_left_alone() -> None:
    """Its count would begin anew."""
    table = Table()
    table.put("192.0.2.1")
    table.come("192.0.2.1", 5)
    assert table.put("192.0.2.1")
    assert table.entries["192.0.2.1"] == (DROP << COUNT_BITS) + 5


def test_verdict_of_before_a_change_does_not_stay() -> None:
    """A worker that was slow finds that the table was emptied meanwhile."""
    table = Table()
    old = table.board.words[CHANGES]
    table.board.announce(7)
    assert not table.put("192.0.2.1", changes=old)
    assert table.entries == {}


def test_slot_is_unlocked_whatever_happens() -> None:
    """All workers would stand still at the next message that falls into it."""
    table = Table()
    assert table.put("192.0.2.1")
    assert table.put("192.0.2.1")
    assert not table.put("192.0.2.2", changes=-1)
    table.full = True
    assert not table.put("192.0.2.3")
    table.ksr.on("htable.sht_seti", lambda *_: int("no"))
    table.sweep(FRONT_SECONDS)
    with pytest.raises(ValueError, match="no"):
        table.put("192.0.2.4")
    assert table.locked == []


def test_each_change_empties_it_once() -> None:
    """A new list, and new settings; between them it is left alone."""
    table = Table()
    table.put("192.0.2.1")
    table.sweeper.tick()
    for change in (lambda: table.board.announce(8), table.board.announce_settings):
        table.put("192.0.2.1")
        table.sweeper.tick()
        assert table.entries
        emptied = table.emptied
        change()
        table.sweeper.tick()
        table.sweeper.tick()
        assert table.entries == {}
        assert table.emptied == emptied + 1


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
        other.put(f"other {number}", verdict, 0, changes=table.board.words[CHANGES])
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
    assert len(table.ksr.calls_of("htable.sht_seti")) == 1
    table.full = False
    table.clock.tick(FRONT_SECONDS)
    table.sweeper.tick()
    table.put("192.0.2.1")
    assert table.entries


def test_nothing_is_put_in_while_nobody_empties_it() -> None:
    """A rtimer process that stands still, or runs older code, would leave it as it is."""
    table = Table()
    table.clock.tick(1.1)
    assert not table.put("192.0.2.1")
    assert table.entries == {}
    table.sweeper.tick()
    table.put("192.0.2.1")
    assert table.entries


@pytest.mark.parametrize("ask", ["put", "has_met"])
def test_entry_that_was_too_long_in_is_taken_out_while_nobody_empties_it(ask: str) -> None:
    """Kamailio 6.0 gives an expired entry a second life when it is asked for."""
    table = Table()
    table.put("192.0.2.1")
    assert not table.front.has_met("192.0.2.1")
    table.clock.tick(31)
    if ask == "put":
        table.put("192.0.2.1")
    else:
        assert not table.front.has_met("192.0.2.1")
    assert table.entries == {}


def test_full_table_that_nobody_empties_is_noticed() -> None:
    """A flood that it has no room for does not ask the time with each packet, but soon does."""
    table = Table()
    for number in range(3000):
        table.put(f"source {number}")
    table.clock.tick(31)
    for _ in range(40):
        table.put("source 7")
    assert "source 7" not in table.entries
    assert 20 < len(table.ksr.calls_of("htable.sht_rm")) <= 40


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
    assert f'"htable", "{TABLE}=>size=12;autoexpire={FRONT_SECONDS:g};updateexpire=0;"' in text
    for name, _ in STATISTICS:
        assert f'"statistics", "variable", "{name}/no_reset"' in text
        assert f'update_stat("{name}", "+1")' in text
    assert f"switch ($shtinc({TABLE}=>$rcv(srcip)) >> {COUNT_BITS})" in text
    cases = re.findall(r'case (\d):\s+update_stat\("(\w+)", "\+1"\);\s+(drop|return 1);', text)
    names = ["apiban_front_dropped", "apiban_front_dropped_local", "apiban_front_dropped_detector"]
    drops = [(str(DROP + origin), names[origin], "drop") for origin in Origin]
    assert sorted(cases) == [(str(PASS), "apiban_front_passed", "return 1"), *drops]


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
    table.new_sweeper().tick()
    assert table.board.total().dropped == 2**32 + 5
    assert table.board.total().passed == 7


def test_native_drops_are_counted_by_origin() -> None:
    """Each statistic has a word of its own, and the drops are their sum."""
    table = Table()
    table.board.words[FRONT] = 1
    table.ksr.variables = {DROPPED: 100, LOCAL: 20, DETECTOR: 3, PASSED: 7}
    table.sweeper.tick()
    counts = table.board.front()
    assert (counts.dropped, counts.dropped_local, counts.dropped_detector) == (123, 20, 3)
    assert counts.passed == 7


def test_statistic_that_is_not_there_counts_nothing() -> None:
    """Null leaves the board alone."""
    table = Table()
    table.board.words[FRONT] = 1
    table.sweeper.tick()
    assert table.board.total().dropped == 0


# The sources' counts ---------------------------------------------------------------------------


@pytest.mark.parametrize("origin", list(Origin))
def test_what_native_code_dropped_is_counted_for_its_source(origin: Origin) -> None:
    """Within a second or so, each message once, with the origin of the ban."""
    table = Table()
    table.put("192.0.2.1", origin=origin)
    table.come("192.0.2.1", 5)
    table.sweep()
    assert table.dropped("192.0.2.1") == 5
    table.sweep()
    table.come("192.0.2.1", 2)
    table.sweep()
    hit = table.hits.of("192.0.2.1")
    assert hit is not None
    assert (hit.dropped, hit.origin, hit.exact) == (7, origin, True)


def test_table_is_read_once_a_second() -> None:
    """Five ticks a second are one reading; who passes is counted nowhere."""
    table = Table()
    table.put("192.0.2.1", PASS)
    for _ in range(20):
        table.come("192.0.2.1")
        table.sweep(0.2)
    assert len(table.ksr.calls_of("htable.sht_iterator_start")) in {4, 5}
    assert table.hits.all() == []


@pytest.mark.parametrize("why", ["time", "list"])
def test_emptying_loses_no_count(why: str) -> None:
    """What came since the last reading is taken out together with the entry."""
    table = Table()
    for number in range(3):
        table.put(f"192.0.2.{number}")
        table.come(f"192.0.2.{number}", 5)
    table.sweep()
    for number in range(3):
        table.come(f"192.0.2.{number}", number)
    if why == "list":
        table.board.announce(9)
    table.sweep(FRONT_SECONDS if why == "time" else 0.1)
    assert table.entries == {}
    assert [table.dropped(f"192.0.2.{number}") for number in range(3)] == [5, 6, 7]
    table.put("192.0.2.2")
    table.come("192.0.2.2", 3)
    table.sweep()
    assert table.dropped("192.0.2.2") == 10


def test_what_is_put_in_while_it_is_emptied_stays() -> None:
    """A worker is faster than the sweeper: its verdict is of after the change, and is counted."""
    table = Table()
    table.put("192.0.2.1")
    table.come("192.0.2.1", 5)
    table.meanwhile = lambda: table.put("192.0.2.1")
    table.board.announce(9)
    table.sweep(0.1)
    table.come("192.0.2.1", 7)
    table.meanwhile = lambda: None
    table.sweep()
    assert table.dropped("192.0.2.1") == 12


def test_entry_that_begins_anew_is_counted_anew() -> None:
    """A worker took it out and put it in again between two readings."""
    table = Table()
    table.put("192.0.2.1")
    table.come("192.0.2.1", 5)
    table.sweep()
    del table.entries["192.0.2.1"]
    table.put("192.0.2.1", origin=Origin.LOCAL)
    table.come("192.0.2.1", 9)
    table.sweep()
    assert table.dropped("192.0.2.1") == 14
    del table.entries["192.0.2.1"]
    table.put("192.0.2.1", origin=Origin.LOCAL)
    table.come("192.0.2.1", 2)
    table.sweep()
    assert table.dropped("192.0.2.1") == 16


def test_reload_counts_nothing_twice() -> None:
    """The sweeper of the new code knows what the old one counted."""
    table = Table()
    table.put("192.0.2.1")
    table.come("192.0.2.1", 5)
    table.sweep()
    emptied = table.emptied
    table.sweeper = table.new_sweeper(table.sweeper)
    table.come("192.0.2.1", 1)
    table.sweep()
    assert table.dropped("192.0.2.1") == 6
    assert table.emptied == emptied + 1


def test_iterator_is_ended_though_reading_fails() -> None:
    """Kamailio holds a lock while it goes over the table: that may never stay."""
    table = Table()
    table.put("192.0.2.1")

    def fails(_name: str) -> object:
        raise SystemError("no")

    def get(name: str) -> object:
        return fails(name) if name.startswith("$shtit") else 7

    table.ksr.on("pv.get", get)
    with pytest.raises(SystemError):
        table.sweep()
    assert table.at is None
    assert table.board.front().passed == 7  # the sums go on
    table.board.announce(4)
    with pytest.raises(SystemError):
        table.sweep()
    assert table.entries == {}  # emptied all the same


def test_iterator_that_cannot_be_had_leaves_the_table_emptied() -> None:
    """Counts of sources are lost then, and no verdict stays."""
    table = Table()
    table.ksr.on("htable.sht_iterator_start", lambda *_: -1)
    table.put("192.0.2.1")
    table.board.announce(4)
    table.sweep(0.2)
    assert table.entries == {}
