"""What the rtimer process finds in Kamailio's own tables, and hands on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from apiban.kemi.trusted import Trusted
from apiban.settings.model import AllowSettings
from apiban.sync.peers import Peers, peers_path, read_peers
from kamailio_kemi_stubs.fake import FakeKsr

from tests.support.clock import ManualClock
from tests.support.log import MemoryLog
from tests.unit.snapshot.parts import settings

MODULES = ("jsonrpcs", "dispatcher", "permissions")


# As Kamailio 5.6.3 and 6.0 answer.
def destination(uri: str) -> dict[str, Any]:
    """Give a destination as in ``dispatcher.list``."""
    return {"DEST": {"URI": uri, "FLAGS": "AX", "PRIORITY": 0}}


def sets(**uris: list[str]) -> dict[str, Any]:
    """Give the answer to ``dispatcher.list``; the sets are named s1, s2."""
    records = [
        {"SET": {"ID": int(name[1:]), "TARGETS": [destination(uri) for uri in found]}}
        for name, found in uris.items()
    ]
    return {"result": {"NRSETS": len(records), "RECORDS": records}}


def address(group: int, ip: str, tag: str = "") -> dict[str, Any]:
    """Give an entry of ``permissions.addressDump``."""
    return {"table": 7, "group": group, "item": {"ip": ip, "port": 0, "tag": tag}}


def subnet(group: int, ip: str, mask: int, tag: str = "") -> dict[str, Any]:
    """Give an entry of ``permissions.subnetDump``."""
    return {"id": 0, "group": group, "item": {"ip": ip, "mask": mask, "port": 0, "tag": tag}}


def trusted(*ips: str) -> str:
    """Give the answer to ``permissions.trustedDump``: one object, with names that come again."""
    entries = (
        f'"table": 3, "item": {{"ip": "{ip}", "proto": 0, "pattern": "NULL",'
        f' "ruri_pattern": "NULL", "tag": "NULL", "priority": 0}}'
        for ip in ips
    )
    return f'{{"result": {{{", ".join(entries)}}}}}'


class World:
    """A Kamailio with tables of the test's."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog()
        self.settings = settings(folder, folder)
        self.use_allow(AllowSettings((), ("dispatcher", "permissions"), ()))
        self.path = peers_path(folder)
        self.ksr = FakeKsr("5.6")
        self.ksr.on("jsonrpcs.exec", self._answer)
        self.loaded = list(MODULES)
        self.answers: dict[str, Any] = {
            "dispatcher.list": {"error": {"code": 500, "message": "No Destination Sets"}},
            "permissions.addressDump": {"result": []},
            "permissions.subnetDump": {"result": []},
            "permissions.trustedDump": {"error": {"code": 500, "message": "No trusted table"}},
        }
        self.trusted = self.make()

    def make(self) -> Trusted:
        """Put it together, as a node does."""
        modules = {name: getattr(self.ksr, name) for name in ("pv", *self.loaded)}
        return Trusted(
            cast("Any", SimpleNamespace(**modules)),
            clock=self.clock,
            log=self.log,
            settings=lambda: self.settings,
        )

    def use_allow(self, allow: AllowSettings) -> None:
        """Change the settings."""
        self.settings = replace(self.settings, allow=allow)

    def _answer(self, question: str) -> int:
        answer = self.answers[json.loads(question)["method"]]
        self.ksr.variables["$jsonrpl(body)"] = (
            answer if isinstance(answer, str) else json.dumps(answer)
        )
        return 1

    def look(self, seconds: float = 10.0) -> Peers:
        """Let time pass, and give what is in the file after a tick."""
        self.clock.tick(seconds)
        self.trusted.tick()
        peers = read_peers(self.path)
        assert peers is not None
        return peers

    def questions(self) -> int:
        """Count the questions so far."""
        return len(self.ksr.calls_of("jsonrpcs.exec"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Give a Kamailio with the three modules, and empty tables."""
    return World(tmp_path)


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("sip:192.0.2.1", "192.0.2.1"),
        ("sip:192.0.2.1:5080;transport=tcp", "192.0.2.1"),
        ("sips:192.0.2.1;transport=tls", "192.0.2.1"),
        ("SIP:user@192.0.2.1:5060", "192.0.2.1"),
        ("sip:user:secret@192.0.2.1", "192.0.2.1"),
        ("sip:[2001:db8::7]:5061;transport=tls", "2001:db8::7"),
        ("sip:[2001:DB8::7]", "2001:DB8::7"),
        ("sip:pbx.example.org:5070", "pbx.example.org"),
        ("sip:pbx.example.org?x=y@z", "pbx.example.org"),
        ("sip:pbx.example.org;maddr=a@b", "pbx.example.org"),
    ],
)
def test_hosts_of_destinations(world: World, uri: str, host: str) -> None:
    """Users, ports, transports and parameters do not count."""
    world.answers["dispatcher.list"] = sets(s1=[uri])
    assert world.look().dispatcher == {host: "set 1"}


def test_destination_in_several_sets(world: World) -> None:
    """It is named once, with all of them."""
    world.answers["dispatcher.list"] = sets(s2=["sip:192.0.2.1"], s1=["sip:192.0.2.1:5080"] * 2)
    assert world.look().dispatcher == {"192.0.2.1": "set 1 2"}


@pytest.mark.parametrize("uri", ["", "tel:+1", "sip:", "sip:[no]", "192.0.2.1"])
def test_what_is_no_sip_uri_is_nobody(world: World, uri: str) -> None:
    """The others are taken."""
    world.answers["dispatcher.list"] = sets(s1=[uri, "sip:192.0.2.1"])
    assert world.look().dispatcher == {"192.0.2.1": "set 1"}


def test_addresses_networks_and_trusted(world: World) -> None:
    """All three tables of permissions count; several entries may be one object."""
    world.answers["permissions.addressDump"] = {"result": [address(1, "192.0.2.1", "trunk")]}
    world.answers["permissions.subnetDump"] = {"result": subnet(2, "2001:db8::", 48)}
    world.answers["permissions.trustedDump"] = trusted("192.0.2.3", "192.0.2.4")
    assert world.look().permissions == {
        "192.0.2.1": "group 1, trunk",
        "2001:db8::/48": "group 2",
        "192.0.2.3": "trusted",
        "192.0.2.4": "trusted",
    }


def test_groups(world: World) -> None:
    """Where groups are named, no other counts, nor the trusted table, which has none."""
    world.use_allow(AllowSettings((), ("permissions",), (2,)))
    world.answers["permissions.addressDump"] = {
        "result": [address(1, "192.0.2.1"), address(2, "192.0.2.2")]
    }
    world.answers["permissions.subnetDump"] = {"result": [subnet(3, "192.0.2.64", 26)]}
    world.answers["permissions.trustedDump"] = trusted("192.0.2.3")
    assert world.look().permissions == {"192.0.2.2": "group 2"}
    assert world.questions() == 2


def test_only_what_the_settings_name_is_asked_for(world: World) -> None:
    """The other module is asked nothing; new settings count at once."""
    world.use_allow(AllowSettings((), ("dispatcher",), ()))
    world.answers["permissions.addressDump"] = {"result": [address(1, "192.0.2.1")]}
    assert world.look() == Peers({}, {})
    assert world.questions() == 1
    world.use_allow(AllowSettings((), ("dispatcher", "permissions"), ()))
    assert world.look(0.2).permissions == {"192.0.2.1": "group 1"}


def test_it_is_asked_every_ten_seconds(world: World) -> None:
    """The first time at the first tick; the file is written for news alone."""
    world.look(0)
    asked, written = world.questions(), world.path.stat().st_ino
    world.look(9.8)
    assert world.questions() == asked
    world.look(0.2)
    assert world.questions() == 2 * asked
    assert world.path.stat().st_ino == written
    world.path.unlink()
    world.look()


def test_failed_answer_is_not_an_empty_one(world: World) -> None:
    """The module is not known then, the other is; one line says it, until it answers."""
    world.answers["dispatcher.list"] = sets(s1=["sip:192.0.2.1"])
    failing = {"error": {"code": 500, "message": "Internal error"}}
    for table in ("addressDump", "subnetDump", "trustedDump"):
        good = world.answers[f"permissions.{table}"]
        world.answers[f"permissions.{table}"] = failing
        assert world.look() == Peers({"192.0.2.1": "set 1"}, None)
        world.look()
        world.answers[f"permissions.{table}"] = good
        assert world.look() == Peers({"192.0.2.1": "set 1"}, {})
    assert world.log.names() == ["trusted-unknown"] * 3


def test_module_that_is_not_loaded_trusts_nobody(world: World) -> None:
    """It is not asked: each question would be an ERROR line of Kamailio's."""
    world.loaded.remove("permissions")
    world.trusted = world.make()
    assert world.look() == Peers({}, {})
    assert world.questions() == 1
    assert not world.log.names()


def test_without_jsonrpcs_nothing_is_known(world: World) -> None:
    """One line says so; where neither module is loaded there is nothing to say."""
    world.loaded.remove("jsonrpcs")
    world.trusted = world.make()
    assert world.look() == Peers(None, None)
    world.look()
    assert world.log.names() == ["trusted-unknown"]
    world.loaded.clear()
    world.trusted = world.make()
    assert world.look() == Peers({}, {})
    assert world.log.names() == ["trusted-unknown"]


def test_file_that_cannot_be_written(world: World) -> None:
    """It is said, and tried again."""
    world.path.mkdir()
    (world.path / "x").touch()
    world.trusted.tick()
    assert world.log.names() == ["trusted-unknown"]
    (world.path / "x").unlink()
    world.path.rmdir()
    assert world.look() == Peers({}, {})


def test_file_is_for_the_group(world: World) -> None:
    """Nobody else may read whom this host works with."""
    world.look()
    assert world.path.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in world.path.parent.iterdir()] == [world.path.name]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"dispatcher": []}', '{"dispatcher": 1}', "x"])
def test_file_of_another_kind_is_none(world: World, text: str) -> None:
    """A reader makes nothing of it."""
    world.path.write_text(text)
    assert read_peers(world.path) is None
