"""The operator's table has the list, the whole list, and nothing but the list."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from apiban.address import parse_network
from apiban.errors import SnapshotError
from apiban.gate import Board
from apiban.kemi import mirror as module
from apiban.kemi.mirror import Mirror, address_of, key_of
from apiban.settings import Mode
from apiban.settings.model import HtableSettings
from apiban.snapshot import Snapshot, encode_snapshot
from hypothesis import given
from hypothesis import strategies as st
from kamailio_kemi_stubs.fake import FakeKsr

from tests.support.clock import ManualClock
from tests.support.log import MemoryLog
from tests.unit.snapshot.parts import END, settings


class Table:
    """One hash table of a Kamailio, with iterators as it has them."""

    def __init__(self, ksr: FakeKsr, name: str = "apiban") -> None:
        self.ksr = ksr
        self.name = name
        self.content: dict[str | bytes, int] = {}
        self.space = 1_000_000
        self.fails = False  # as when there is no such table
        self.open: dict[str, Iterator[str | bytes]] = {}
        self.changes = 0
        for function in ("seti", "rm", "reset"):
            ksr.on(f"htable.sht_{function}", getattr(self, f"_{function}"))
        for function in ("start", "next", "end"):
            ksr.on(f"htable.sht_iterator_{function}", getattr(self, f"_iterator_{function}"))

    def _seti(self, name: str, key: str, value: int) -> int:
        if name != self.name or self.fails or len(self.content) >= self.space:
            return -1
        self.changes += 1
        self.content[key] = value
        return 1

    def _rm(self, name: str, key: str) -> int:
        assert name == self.name
        self.changes += 1
        return 1 if self.content.pop(key, None) is not None else -1

    def _reset(self, name: str) -> int:
        if name != self.name or self.fails:
            return -1
        self.content.clear()
        return 1

    def _iterator_start(self, iterator: str, name: str) -> int:
        if name != self.name or self.fails:
            return -1
        self.open[iterator] = iter(list(self.content))
        return 1

    def _iterator_next(self, iterator: str) -> int:
        variable = f"$shtitkey({iterator})"
        for key in self.open[iterator]:
            self.ksr.variables[variable] = key
            return 1
        return -1

    def _iterator_end(self, iterator: str) -> int:
        del self.open[iterator]
        return 1


class World:
    """A mirror over a list and a table of the test's; each look at the timer takes a while."""

    def __init__(self, folder: Path) -> None:
        self.ksr = FakeKsr("5.6")
        self.table = Table(self.ksr)
        self.clock = ManualClock()
        self.log = MemoryLog()
        self.board = Board.unnamed(now=0)
        self.settings = replace(settings(folder, folder), htable=HtableSettings("apiban"))
        self.list: Snapshot | None = None
        self.free = 60_000_000
        self.time = 0.0
        self.step = 0.0
        self.loaded = ["htable", "jsonrpcs"]
        self.ksr.on("jsonrpcs.exec", self._memory)
        self.mirror = self.make()

    def make(self, previous: Mirror | None = None) -> Mirror:
        """Put it together, as a node does."""
        modules = {name: getattr(self.ksr, name) for name in ("pv", *self.loaded)}
        return Mirror(
            cast("Any", SimpleNamespace(**modules)),
            board=self.board,
            clock=self.clock,
            log=self.log,
            settings=lambda: self.settings,
            load=self._load,
            previous=previous,
            timer=self._timer,
        )

    def _timer(self) -> float:
        self.time += self.step
        return self.time

    def _load(self, generation: int) -> Snapshot:
        if self.list is None or self.list.generation != generation:
            raise SnapshotError("it is not there")
        return self.list

    def _memory(self, _: str) -> int:
        self.ksr.variables["$jsonrpl(body)"] = (
            f'{{"result": {{"total": 64000000, "free": {self.free}}}}}'
        )
        return 1

    def use_table(self, name: str) -> None:
        """Change the setting."""
        self.settings = replace(self.settings, htable=HtableSettings(name))

    def publish(self, *listed: str, mode: Mode = Mode.ENFORCE, expires: int = END) -> None:
        """Do what the sync process does with a new list."""
        self.publish_ranges([(parse_network(text), expires) for text in listed], mode)

    def publish_ranges(self, bans: list[tuple[Any, int]], mode: Mode = Mode.ENFORCE) -> None:
        """Publish networks, each with the end of its ban."""
        generation = self.board.generation + 1
        both = {
            family: sorted((n.first, n.last, end, 0) for n, end in bans if n.family == family)
            for family in (4, 6)
        }
        self.list = Snapshot(
            memoryview(
                encode_snapshot(
                    generation=generation,
                    created=0,
                    mode=mode,
                    ipv4=cast("Any", both[4]),
                    ipv6=cast("Any", both[6]),
                )
            )
        )
        self.board.announce(generation)

    def tick(self, seconds: float = 0.2, times: int = 1) -> None:
        """Let time pass, and tick."""
        for _ in range(times):
            self.clock.tick(seconds)
            self.mirror.tick()
            assert not self.table.open  # its slot would stay locked

    def content(self) -> set[str | bytes]:
        """Give what is in the table."""
        return set(self.table.content)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Give an empty table, and no list yet."""
    return World(tmp_path)


def test_table_has_the_list(world: World) -> None:
    """Each address as ``$si`` shows it, with the recipe's value."""
    world.publish("192.0.2.1", "255.0.0.254", "2001:db8::1", "::1", "::1.2.3.4")
    world.tick()
    assert world.table.content == dict.fromkeys(
        ("192.0.2.1", "255.0.0.254", "2001:db8::1", "::1", "::1.2.3.4"), 1
    )
    assert world.log.fields("mirror") == [
        {"table": "apiban", "entries": 5, "left_out": 0, "mode": Mode.ENFORCE}
    ]


def test_new_list_is_followed_by_differences(world: World) -> None:
    """What is in both is not touched, and nothing is said of it."""
    world.publish("192.0.2.1", "192.0.2.2", "192.0.2.3")
    world.tick()
    world.publish("192.0.2.2", "192.0.2.3", "192.0.2.4")
    world.tick()
    assert world.content() == {"192.0.2.2", "192.0.2.3", "192.0.2.4"}
    assert world.table.changes == 3 + 2
    assert len(world.log.entries) == 1


def test_without_the_setting_nothing_is_done(world: World) -> None:
    """Kamailio is not asked for anything."""
    world.use_table("")
    world.publish("192.0.2.1")
    world.tick()
    assert not world.ksr.calls


def test_before_the_first_list_nothing_is_done(world: World) -> None:
    """What an operator's own sync has put in stays until there is better."""
    world.table.content["192.0.2.9"] = 1
    world.tick()
    assert world.content() == {"192.0.2.9"}


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.OFF])
def test_no_other_mode_drops(world: World, mode: Mode) -> None:
    """Those who check the table would drop: it is emptied at once, in the middle of work too."""
    world.publish(*(f"192.0.2.{n}" for n in range(100)))
    world.step = 0.001
    world.tick(times=3)
    assert 0 < len(world.content()) < 100
    world.publish("192.0.2.1", mode=mode)
    world.tick(times=5)
    assert not world.content()
    world.tick(400, times=2)
    assert not world.content()
    world.publish("192.0.2.1")
    world.tick(times=5)
    assert world.content() == {"192.0.2.1"}
    assert [fields["mode"] for fields in world.log.fields("mirror")] == [mode, Mode.ENFORCE]


def test_work_is_done_in_pieces(world: World) -> None:
    """A tick ends after ten milliseconds; who is not listed any more is let go first."""
    world.publish("198.51.100.1", "198.51.100.2")
    world.tick()
    world.publish(*(f"192.0.2.{n}" for n in range(200)))
    world.step = 0.001
    before, ticks = world.table.changes, 0
    while len(world.content()) < 200 and ticks < 100:
        world.tick()
        ticks += 1
        assert world.table.changes - before <= 10
        before = world.table.changes
        assert ticks < 3 or "198.51.100.1" not in world.content()
    assert 20 <= ticks < 50


def test_list_that_comes_while_at_work_follows(world: World) -> None:
    """The last one is in the table in the end, however often they come."""
    world.step = 0.001
    for n in range(30):
        world.publish(*(f"192.0.2.{m}" for m in range(n, n + 30)))
        world.tick()
    world.tick(times=40)
    assert world.content() == {f"192.0.2.{m}" for m in range(29, 59)}


def test_ended_bans_are_taken_out(world: World) -> None:
    """Without a new list, within a minute."""
    now = int(world.clock.now())
    world.publish_ranges(
        [(parse_network("192.0.2.1"), now + 30), (parse_network("192.0.2.2"), now + 3600)]
    )
    world.step = 0.0005
    world.tick(times=3)
    asked = len(world.ksr.calls_of("htable.sht_iterator_start"))
    world.mirror._compare_from = 1e9  # as where the table is large, and comparing takes long
    world.tick(28)
    assert len(world.content()) == 2
    world.tick(32, times=2)
    assert world.content() == {"192.0.2.2"}
    assert len(world.ksr.calls_of("htable.sht_iterator_start")) == asked
    world.publish("192.0.2.3", expires=now)
    world.tick()
    assert not world.content()


# What is in the table already ------------------------------------------------------------------


def test_table_is_the_mirrors_own(world: World) -> None:
    """What the recipe's sync left is taken over, what is not listed goes.

    But for a key that Python cannot name: it is no address's.
    """
    world.table.content = dict.fromkeys(
        ("192.0.2.1", "192.0.2.9", "2001:DB8::1", "::ffff:192.0.2.1", "x", "", b"\xff", "1.2.3"), 7
    )
    world.publish("192.0.2.1", "192.0.2.2", "2001:db8::1")
    world.tick()
    assert world.content() == {"192.0.2.1", "192.0.2.2", "2001:db8::1", b"\xff"}
    assert world.table.content["192.0.2.1"] == 7  # not touched


def test_table_is_compared_each_minute(world: World) -> None:
    """What was deleted or added by hand is mended, and what expired by the table's own time."""
    world.publish("192.0.2.1", "192.0.2.2")
    world.tick()
    del world.table.content["192.0.2.1"]
    world.table.content["192.0.2.9"] = 1
    world.tick(59)
    assert world.content() == {"192.0.2.2", "192.0.2.9"}
    world.tick(1)
    assert world.content() == {"192.0.2.1", "192.0.2.2"}


def test_comparison_takes_a_small_share_of_the_time(world: World) -> None:
    """One that takes long comes seldom."""
    world.publish("192.0.2.1")
    world.step = 0.5
    world.tick(times=5)
    del world.table.content["192.0.2.1"]
    world.tick(400, times=1)
    assert not world.content()
    world.tick(200, times=9)
    assert world.content() == {"192.0.2.1"}


def test_after_a_reload_it_goes_on(world: World) -> None:
    """New code knows nothing of the table, and compares it first."""
    world.publish("192.0.2.1", "192.0.2.2")
    world.tick()
    world.publish("192.0.2.2", "192.0.2.3")
    world.mirror = world.make(previous=world.mirror)
    world.tick()
    assert world.content() == {"192.0.2.2", "192.0.2.3"}


def test_table_that_is_mirrored_no_more_is_emptied(world: World) -> None:
    """Nobody would take its entries out; after a reload with other settings too."""
    world.publish("192.0.2.1")
    world.tick()
    world.use_table("")
    world.mirror = world.make(previous=world.mirror)
    world.tick()
    assert not world.content()
    world.use_table("apiban")
    world.tick()
    assert world.content() == {"192.0.2.1"}


# Ranges ----------------------------------------------------------------------------------------


def test_small_ranges_are_expanded(world: World) -> None:
    """Larger ones are counted, and left out."""
    world.publish("192.0.2.0/30", "2001:db8::/127", "198.51.0.0/20", "10.0.0.0/19", "2001::/64")
    world.tick()
    assert len(world.content()) == 4 + 2 + 4096
    assert {"192.0.2.0", "192.0.2.3", "2001:db8::1", "198.51.15.255"} <= world.content()
    assert world.log.fields("mirror")[0]["left_out"] == 2


def test_the_table_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of any length takes no more of Kamailio's memory than so much."""
    monkeypatch.setattr(module, "MOST", 6)
    world.publish("192.0.2.0/30", "192.0.3.0/30", "192.0.4.1", "192.0.4.2", "192.0.4.3")
    world.tick()
    assert len(world.content()) == 6
    assert world.log.fields("mirror")[0]["left_out"] == 2


# Trouble ---------------------------------------------------------------------------------------


def test_table_that_takes_no_more(world: World) -> None:
    """It stops, says so once, and tries again a minute later."""
    world.table.space = 2
    world.publish("192.0.2.1", "192.0.2.2", "192.0.2.3")
    world.tick(times=3)
    assert len(world.ksr.calls_of("htable.sht_seti")) == 3
    world.tick(60)
    assert len(world.ksr.calls_of("htable.sht_seti")) == 4
    assert world.log.names() == ["mirror-failed"]
    world.table.space = 3
    world.tick(60)
    assert len(world.content()) == 3
    assert world.log.names() == ["mirror-failed", "mirror"]


def test_memory_is_left_to_kamailio(world: World) -> None:
    """What it cannot allocate are calls that it loses; nothing is put in then, and out it goes."""
    world.publish("192.0.2.1")
    world.tick()
    world.free = 15_000_000
    world.publish("192.0.2.2")
    world.tick()
    assert not world.content()
    assert world.log.names() == ["mirror", "mirror-failed"]
    world.free = 17_000_000
    world.tick(60)
    assert world.content() == {"192.0.2.2"}


def test_emergency_switch_does_not_wait(world: World) -> None:
    """Not for the minute after a failure either."""
    world.table.space = 2
    world.publish("192.0.2.1", "192.0.2.2", "192.0.2.3")
    world.tick()
    assert world.content()
    world.publish(mode=Mode.OFF)
    world.tick()
    assert not world.content()


@pytest.mark.parametrize("trouble", ["no table", "no module"])
@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OFF])
def test_table_that_is_not_there(world: World, trouble: str, mode: Mode) -> None:
    """One line says so; Kamailio's own ERROR line comes once a minute at the most."""
    if trouble == "no table":
        world.table.fails = True
    else:
        world.loaded.remove("htable")
        world.mirror = world.make()
    world.publish("192.0.2.1", mode=mode)
    world.tick(times=200)
    assert world.log.names() == ["mirror-failed"]
    assert len([call for call in world.ksr.calls if call.name.startswith("htable.")]) <= 1
    world.use_table("")
    world.tick()


def test_without_jsonrpcs_it_works(world: World) -> None:
    """Then only a failed allocation shows that the memory is used up."""
    world.loaded.remove("jsonrpcs")
    world.mirror = world.make()
    world.publish("192.0.2.1")
    world.tick()
    assert world.content() == {"192.0.2.1"}


def test_list_that_cannot_be_read_is_tried_again(world: World) -> None:
    """The table stays meanwhile."""
    world.publish("192.0.2.1")
    world.tick()
    world.publish("192.0.2.2")
    world.list, kept = None, world.list
    world.tick(times=3)
    assert world.content() == {"192.0.2.1"}
    world.list = kept
    world.tick(1)
    assert world.content() == {"192.0.2.2"}
    assert world.log.names() == ["mirror"]


# Keys ------------------------------------------------------------------------------------------


@given(st.ip_addresses())
def test_key_is_read_back(address: Any) -> None:
    """No two addresses share a number, of whatever family."""
    number = int(address) if address.version == 4 else int(address) | 1 << 128
    if address.version == 6 and address.ipv4_mapped:
        assert address_of(str(address)) is None
    else:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        key = socket.inet_ntop(family, address.packed)
        assert key_of(number) == key
        assert address_of(key) == number


@given(st.text())
def test_any_key_can_be_read(key: str) -> None:
    """What is read is written the same."""
    number = address_of(key)
    assert number is None or key_of(number) == key
