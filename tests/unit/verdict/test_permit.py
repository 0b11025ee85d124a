from collections.abc import Iterator
from pathlib import Path

import pytest
from apiban.address import parse_network
from apiban.settings import load_settings
from apiban.store import OPERATOR, UNBAN, Store
from apiban.verdict.exempt import all_exemptions
from apiban.verdict.permit import RemovePlan, plan_allow, plan_remove
from apiban.verdict.wanted import Wanted

NOW = 1_800_000_000.0
ENVIRON = {
    "APIBAN_NODE_PEERS": "203.0.113.5",
    "APIBAN_EDGE_UPSTREAMS": "sip:203.0.113.9:5060",
    "APIBAN_ALLOW_NETWORKS": "198.51.100.0/28",
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give an empty store."""
    with Store(tmp_path / "store.db") as made:
        yield made


def _remove(store: Store, *texts: str) -> RemovePlan:
    exemptions = all_exemptions(
        settings=load_settings(Path("/nonexistent"), ENVIRON),
        own=(parse_network("192.0.2.10"),),
        store=store,
        now=NOW,
    )
    plan = plan_remove([Wanted(parse_network(text)) for text in texts], exemptions=exemptions)
    plan.carry_out(store, now=NOW)
    return plan


def _allow(store: Store, text: str, source: str = OPERATOR) -> None:
    store.allow([parse_network(text)], reason="", now=NOW, source=source)


def test_allow_writes_each_with_its_reason(store: Store) -> None:
    """Entries are the operator's, with their reasons and their end."""
    wanted = [Wanted(parse_network("10.0.0.1"), "one"), Wanted(parse_network("10.0.0.2"), "two")]
    plan_allow(wanted).carry_out(store, expires=NOW + 5, now=NOW)
    found = {str(one.network): (one.reason, one.source, one.expires) for one in store.allow_list()}
    assert found == {
        "10.0.0.1": ("one", OPERATOR, NOW + 5),
        "10.0.0.2": ("two", OPERATOR, NOW + 5),
    }


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0"])
def test_everybody_is_not_allowed(text: str) -> None:
    """That is what a mode is for."""
    plan = plan_allow([Wanted(parse_network(text))])
    assert not plan.allow
    assert "mode off" in plan.refused[0].why


def test_remove_takes_the_operators_and_the_unbans(store: Store) -> None:
    """Both came from the command line, and go by it; others stay."""
    _allow(store, "10.0.0.1")
    _allow(store, "10.0.0.1", UNBAN)
    _allow(store, "10.0.0.2")
    plan = _remove(store, "10.0.0.1")
    assert len(plan.remove) == 2
    assert [str(one.network) for one in store.allow_list()] == ["10.0.0.2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("198.51.100.0/28", "allow.networks"),
        ("198.51.100.3", "198.51.100.0/28"),
        ("203.0.113.5", "node.peers"),
        ("203.0.113.9", "edge.upstreams"),
        ("192.0.2.10", "this host"),
        ("10.1.2.3", "allow.from_kamailio"),
        ("10.2.0.7", "10.2.0.0/16"),
        ("8.8.8.8", "is not on the allow list"),
    ],
)
def test_remove_refuses_what_is_said_elsewhere(store: Store, text: str, said: str) -> None:
    """It names what is to be changed instead."""
    store.set_allowed("dispatcher", {parse_network("10.1.2.3"): ""}, now=NOW)
    _allow(store, "10.2.0.0/16")
    plan = _remove(store, text)
    assert said in plan.refused[0].why
    assert len(store.allow_list()) == 2


def test_remove_tells_who_saves_it_still(store: Store) -> None:
    """The operator's entry goes, and Kamailio's word stays."""
    store.set_allowed("dispatcher", {parse_network("10.1.2.3"): ""}, now=NOW)
    _allow(store, "10.1.2.3")
    plan = _remove(store, "10.1.2.3")
    assert [one.source for one in store.allow_list()] == ["dispatcher"]
    ((_, exemption),) = plan.still
    assert "dispatcher" in str(exemption)
