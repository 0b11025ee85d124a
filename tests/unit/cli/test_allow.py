import csv
import io

import pytest
from apiban.address import parse_network
from apiban.store import OPERATOR, UNBAN

from tests.unit.cli.node import OWN, NodeOnHost

SETTINGS = '[allow]\nnetworks = ["198.51.100.0/28"]\n[node]\npeers = ["203.0.113.5"]\n'


def _texts(node: NodeOnHost, source: str = OPERATOR) -> list[str]:
    return [str(one.network) for one in node.store.allow_list() if one.source == source]


def test_add_for_a_time_with_a_reason(node: NodeOnHost) -> None:
    """The entry has both; without a time it is for good."""
    done = node.run("allow", "add", "10.0.0.1", "--for", "2h", "--reason", "office")
    assert done.status == 0
    assert "(in 2 h): office" in done.out
    node.run("allow", "add", "10.0.0.2")
    one, other = node.store.allow_list()
    assert (one.reason, one.expires) == ("office", node.clock.now() + 7200)
    assert other.expires is None


def test_added_is_in_force_inside_a_banned_range(node: NodeOnHost) -> None:
    """When the command ends the workers' list has a hole there."""
    with node.syncing():
        node.run("ban", "198.51.100.0/24")
        done = node.run("allow", "add", "198.51.100.7", "--json")
        assert done.json["in_force"]["seconds"] < 5
        assert node.run("check", "198.51.100.7").status == 0
        assert node.run("check", "198.51.100.8").status == 3
        assert node.run("allow", "remove", "198.51.100.7").status == 0
        assert node.run("check", "198.51.100.7").status == 3


def test_add_a_list(node: NodeOnHost) -> None:
    """Lines have their reasons, and all are one change or none."""
    done = node.run("allow", "add", "-", given="10.0.0.1 one\n10.0.0.2\nnonsense\n")
    assert done.status == 1
    assert "line 3" in done.err
    assert _texts(node) == []
    done = node.run("allow", "add", "-", given="10.0.0.1 one\n10.0.0.2\n")
    assert done.status == 0
    assert [one.reason for one in node.store.allow_list()] == ["one", ""]


def test_everybody_is_refused(node: NodeOnHost) -> None:
    """There is a mode for that."""
    done = node.run("allow", "add", "0.0.0.0/0")
    assert done.status == 1
    assert "mode off" in done.err


def test_remove(node: NodeOnHost) -> None:
    """What apiban allow and apiban unban put there goes."""
    node.feed_lists("10.0.0.1")
    node.run("unban", "10.0.0.1")
    node.run("allow", "add", "10.0.0.1", "10.0.0.2")
    assert _texts(node, UNBAN) == ["10.0.0.1"]
    done = node.run("allow", "remove", "10.0.0.1", "--json")
    assert {one["source"] for one in done.json["removed"]} == {OPERATOR, UNBAN}
    assert _texts(node) == ["10.0.0.2"]
    assert _texts(node, UNBAN) == []


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("198.51.100.0/28", "allow.networks"),
        ("203.0.113.5", "node.peers"),
        ("10.9.9.9", "allow.from_kamailio"),
        (OWN, "this host"),
        ("8.8.8.8", "is not on the allow list"),
    ],
)
def test_remove_refuses(node: NodeOnHost, address: str, said: str) -> None:
    """What others say is refused with what is to be changed, and the rest stays too."""
    with node.file.open("a", encoding="utf-8") as file:
        file.write(SETTINGS)
    now = node.clock.now()
    node.store.set_allowed("permissions", {parse_network("10.9.9.9"): ""}, now=now)
    node.run("allow", "add", "10.0.0.2")
    done = node.run("allow", "remove", "10.0.0.2", address)
    assert done.status == 1
    assert said in done.err
    assert _texts(node) == ["10.0.0.2"]
    assert node.run("allow", "remove", "10.0.0.2", address, "--skip-bad").status == 0
    assert _texts(node) == []


def test_list_has_all_who_say_so(node: NodeOnHost) -> None:
    """The command line's, Kamailio's, the settings' and the host's own; none that ended."""
    with node.file.open("a", encoding="utf-8") as file:
        file.write(SETTINGS)
    now = node.clock.now()
    node.feed_lists("10.0.0.7")
    node.run("unban", "10.0.0.7")
    node.run("allow", "add", "10.0.0.2", "--reason", 'the "office", upstairs')
    node.store.allow([parse_network("10.0.0.3")], reason="", now=now - 9, expires=now)
    node.store.set_allowed("dispatcher", {parse_network("10.9.9.9"): "set 1"}, now=now)
    rows = node.run("allow", "list", "--json").json
    assert {one["network"]: one["source"] for one in rows} == {
        "10.0.0.2": "operator",
        "10.0.0.7": "unban",
        "10.9.9.9": "dispatcher",
        "198.51.100.0/28": "allow.networks",
        "203.0.113.5": "node.peers",
        OWN: "own address",
    }
    plain = node.run("allow", "list").out
    assert all(one["network"] in plain for one in rows)
    table = list(csv.DictReader(io.StringIO(node.run("allow", "list", "--csv").out)))
    assert [one["network"] for one in table] == [one["network"] for one in rows]
    assert table[0]["reason"] == 'the "office", upstairs'


def test_empty_list(node: NodeOnHost) -> None:
    """It says so."""
    node.own = ()
    assert "nobody" in node.run("allow", "list").out
    assert node.run("allow", "list", "--json").json == []
