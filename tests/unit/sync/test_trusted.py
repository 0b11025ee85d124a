"""The allow list follows whom Kamailio trusts."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apiban.address import Network, parse_address, parse_network
from apiban.errors import StoreError
from apiban.settings.model import AllowSettings
from apiban.store import Store
from apiban.sync.names import ThreadNames, addresses_of
from apiban.sync.peers import Peers, peers_path, write_peers
from apiban.sync.trusted import TrustedPeers

from tests.support.clock import ManualClock
from tests.support.log import MemoryLog
from tests.unit.snapshot.parts import settings

BOTH = ("dispatcher", "permissions")


class ManualNames:
    """Names that are found when the test says so."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.known: dict[str, list[str]] = {}
        self.busy = False
        self._answer: dict[str, frozenset[Network]] | None = None

    def look_up(self, names: Iterable[str]) -> bool:
        """Note the question."""
        if self.busy:
            return False
        self.asked.append(list(names))
        self._answer = {
            name: frozenset(map(parse_address, self.known.get(name, ()))) for name in self.asked[-1]
        }
        return True

    def found(self) -> dict[str, frozenset[Network]] | None:
        """Give the answer once."""
        answer, self._answer = self._answer, None
        return answer


class World:
    """A store, and the file that the rtimer process writes."""

    def __init__(self, folder: Path) -> None:
        self.path = peers_path(folder)
        self.clock = ManualClock()
        self.log = MemoryLog()
        self.settings = settings(folder, folder)
        self.use_allow(AllowSettings((), BOTH, ()))
        self.store = Store(folder / "store.db")
        self.names = ManualNames()
        self.trusted = self.make()

    def make(self) -> TrustedPeers:
        """Begin, as a new sync process does."""
        return TrustedPeers(clock=self.clock, log=self.log, make_names=lambda: self.names)

    def use_allow(self, allow: AllowSettings) -> None:
        """Change the settings."""
        self.settings = replace(self.settings, allow=allow)

    def say(
        self, dispatcher: dict[str, str] | None = None, permissions: dict[str, str] | None = None
    ) -> None:
        """Do what the rtimer process does."""
        write_peers(self.path, Peers(dispatcher, permissions))

    def tick(self, seconds: float = 0.2) -> bool:
        """Let time pass, and tick."""
        self.clock.tick(seconds)
        return self.trusted.tick(self.store, self.settings)

    def allowed(self, source: str = "dispatcher") -> dict[str, str]:
        """Give a source's allow list."""
        return {
            str(one.network): one.reason for one in self.store.allow_list() if one.source == source
        }


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Give a world in which nothing was said yet."""
    made = World(tmp_path)
    yield made
    made.store.close()


def test_what_is_said_is_allowed(world: World) -> None:
    """Each module is a source of the allow list; the change is told once."""
    assert not world.tick()
    world.say(
        {"192.0.2.1": "set 1", "2001:DB8::7": "set 2"}, {"198.51.100.0/24": "group 1, office"}
    )
    assert world.tick()
    assert not world.tick()
    assert world.allowed() == {"192.0.2.1": "set 1", "2001:db8::7": "set 2"}
    assert world.allowed("permissions") == {"198.51.100.0/24": "group 1, office"}
    assert world.log.fields("trusted") == [
        {"source": "dispatcher", "networks": 2},
        {"source": "permissions", "networks": 1},
    ]


def test_what_is_not_said_any_more_goes(world: World) -> None:
    """The operator's own entries stay."""
    world.store.allow([parse_network("192.0.2.9")], reason="mine", now=0)
    world.say({"192.0.2.1": "set 1", "192.0.2.2": "set 1"}, {})
    world.tick()
    world.say({"192.0.2.2": "set 1"}, {})
    assert world.tick()
    assert world.allowed() == {"192.0.2.2": "set 1"}
    assert world.allowed("operator") == {"192.0.2.9": "mine"}


def test_what_is_not_known_stays(world: World) -> None:
    """A module that did not answer, a file that is gone or damaged: nothing is taken off."""
    world.say({"192.0.2.1": "set 1"}, {"192.0.2.2": "group 1"})
    world.tick()
    world.say({"192.0.2.3": "set 1"}, None)
    assert world.tick()
    assert world.allowed("permissions") == {"192.0.2.2": "group 1"}
    world.path.write_text("{")
    assert not world.tick()
    world.path.unlink()
    assert not world.tick()
    world.trusted = world.make()
    assert not world.tick()
    assert world.allowed() == {"192.0.2.3": "set 1"}


def test_module_that_the_settings_leave_out_is_taken_off(world: World) -> None:
    """Without a word from Kamailio too."""
    world.say({"192.0.2.1": "set 1"}, {"192.0.2.2": "group 1"})
    world.tick()
    world.path.unlink()
    world.trusted = world.make()
    world.use_allow(AllowSettings((), ("permissions",), ()))
    assert world.tick()
    assert not world.allowed()
    assert world.allowed("permissions") == {"192.0.2.2": "group 1"}


def test_new_settings_and_a_new_store_count_at_once(world: World, tmp_path: Path) -> None:
    """Though nothing new was said."""
    world.say({"192.0.2.1": "set 1"}, {"10.0.0.0/12": "group 1"})
    world.tick()
    world.settings = replace(world.settings, feed=replace(world.settings.feed, widest_ipv4=8))
    assert world.tick()
    assert world.allowed("permissions") == {"10.0.0.0/12": "group 1"}
    world.use_allow(AllowSettings((), ("permissions",), ()))
    assert world.tick()
    assert not world.allowed()
    world.store.close()
    world.store = Store(tmp_path / "other.db")
    assert world.tick()
    assert world.allowed("permissions") == {"10.0.0.0/12": "group 1"}


def test_bits_beyond_a_prefix_do_not_count(world: World) -> None:
    """Permissions compares that way, so a slip in its table means the same here."""
    world.say({}, {"198.51.100.7/24": "group 1", "192.0.2.1/32": "group 1"})
    world.tick()
    assert set(world.allowed("permissions")) == {"198.51.100.0/24", "192.0.2.1"}


@pytest.mark.parametrize(
    ("wide", "widest"), [("0.0.0.0/1", "16"), ("10.0.0.0/15", "16"), ("2001::/31", "32")]
)
def test_too_broad_a_network_allows_nobody(world: World, wide: str, widest: str) -> None:
    """The protection is not switched off silently; the rest counts, and it is said once."""
    world.say({}, {wide: "group 1", "10.0.0.0/16": "group 1", "2001:db8::/32": "group 1"})
    world.tick()
    world.say({}, {wide: "group 1", "10.0.0.0/16": "group 2"})
    world.tick()
    assert world.allowed("permissions") == {"10.0.0.0/16": "group 2"}
    (line,) = world.log.fields("trusted-refused")
    assert line["reason"] == f"broader than /{widest}"


@pytest.mark.parametrize("text", ["any", "trunk.example.org", "192.0.2.1/33", "1.2.3", ""])
def test_what_is_no_address_in_permissions_is_nobody(world: World, text: str) -> None:
    """It compares names with a source's text, which they never match."""
    world.say({}, {text: "trusted", "192.0.2.1": "group 1"})
    world.tick()
    assert world.allowed("permissions") == {"192.0.2.1": "group 1"}
    assert not world.names.asked


def test_store_that_fails_is_served_later(world: World, tmp_path: Path) -> None:
    """Nothing is lost, and a store that is opened anew is brought up to date."""
    world.say({"192.0.2.1": "set 1"}, {})
    world.store.close()
    with pytest.raises(StoreError):
        world.tick()
    world.store = Store(tmp_path / "other.db")
    assert world.tick()
    assert world.allowed() == {"192.0.2.1": "set 1"}


# Host names ------------------------------------------------------------------------------------


def test_host_names_are_looked_up(world: World) -> None:
    """All addresses of both families are allowed, off the tick."""
    world.names.known["pbx"] = ["192.0.2.1", "2001:db8::1"]
    world.say({"pbx": "set 2", "192.0.2.9": "set 1"}, {})
    world.tick()
    assert world.allowed() == {"192.0.2.9": "set 1"}
    assert world.tick()
    assert world.allowed() == {
        "192.0.2.9": "set 1",
        "192.0.2.1": "set 2: pbx",
        "2001:db8::1": "set 2: pbx",
    }


def test_names_are_looked_up_every_five_minutes(world: World) -> None:
    """A new address replaces the old one; a new name does not wait."""
    world.names.known = {"pbx": ["192.0.2.1"], "gw": ["192.0.2.7"]}
    world.say({"pbx": "set 2"}, {})
    world.tick()
    world.tick()
    world.names.known["pbx"] = ["192.0.2.2"]
    world.tick(299)
    assert world.names.asked == [["pbx"]]
    world.tick(1)
    world.tick()
    assert world.allowed() == {"192.0.2.2": "set 2: pbx"}
    world.say({"pbx": "set 2", "gw": "set 3"}, {})
    world.tick()
    world.tick()
    assert world.allowed() == {"192.0.2.2": "set 2: pbx", "192.0.2.7": "set 3: gw"}


def test_last_good_answer_is_kept(world: World) -> None:
    """A resolver that fails cuts no trunk off, and is asked again after half a minute."""
    world.names.known["pbx"] = ["192.0.2.1"]
    world.say({"pbx": "set 2"}, {})
    world.tick()
    world.tick()
    del world.names.known["pbx"]
    world.tick(300)
    world.tick()
    assert world.allowed() == {"192.0.2.1": "set 2: pbx"}
    world.tick(30)
    assert len(world.names.asked) == 3


def test_answer_of_an_earlier_process_is_kept(world: World) -> None:
    """A restart while the resolver is down does not lose it."""
    world.names.known["pbx"] = ["192.0.2.1"]
    world.say({"pbx": "set 2", "gw": "set 2"}, {})
    world.tick()
    world.tick()
    world.names.known.clear()
    world.trusted = world.make()
    world.tick()
    world.tick()
    assert world.allowed() == {"192.0.2.1": "set 2: pbx"}
    world.say({"gw": "set 2"}, {})
    assert world.tick()
    assert not world.allowed()


def test_new_name_waits_for_a_look_up_under_way(world: World) -> None:
    """And is not forgotten."""
    world.names.known = {"pbx": ["192.0.2.1"]}
    world.names.busy = True
    world.say({"pbx": "set 2"}, {})
    world.tick()
    world.names.busy = False
    world.tick()
    world.tick()
    assert world.allowed() == {"192.0.2.1": "set 2: pbx"}


def test_names_in_a_thread() -> None:
    """The caller does not wait; the answer is given once."""
    go = threading.Event()

    def ask(name: str) -> frozenset[Network]:
        go.wait(5)
        return frozenset({parse_address("192.0.2.1")} if name == "pbx" else ())

    names = ThreadNames(ask)
    assert names.found() is None
    assert names.look_up(["pbx", "gw"])
    assert not names.look_up(["x"])
    assert names.found() is None
    go.set()
    for thread in threading.enumerate():
        if thread.name == "names":
            thread.join(5)
    assert names.found() == {"pbx": {parse_address("192.0.2.1")}, "gw": frozenset()}
    assert names.found() is None


def test_systems_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses with a zone are read; a failure of any kind is no answer."""

    def answer(name: str, *_: Any, **__: Any) -> Any:
        if name == "gone":
            raise socket.gaierror(-2, os.strerror(2))
        return [(0, 0, 0, "", (text, 0)) for text in ("192.0.2.1", "fe80::1%eth0", "192.0.2.1")]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    assert addresses_of("pbx") == {parse_address("192.0.2.1"), parse_address("fe80::1")}
    assert addresses_of("gone") == frozenset()
    monkeypatch.undo()
    assert addresses_of("x" * 70 + ".example") == frozenset()
