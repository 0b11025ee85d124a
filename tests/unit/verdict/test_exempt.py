from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from apiban.address import Network, parse_address, parse_network
from apiban.settings import Settings, Upstream, load_settings
from apiban.store import UNBAN, Store
from apiban.verdict.exempt import all_exemptions, exemptions

NOW = 1_800_000_000.0
OWN = (parse_address("192.0.2.1"), parse_address("2001:db8::1"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give an empty store."""
    with Store(tmp_path / "store.db") as made:
        yield made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Give settings with one exemption of each kind."""
    defaults = load_settings(tmp_path / "none.toml", {})
    return replace(
        defaults,
        allow=replace(defaults.allow, networks=(parse_network("192.0.2.0/28"),)),
        node=replace(defaults.node, peers=(parse_address("192.0.2.3"),)),
        edge=replace(defaults.edge, upstreams=(Upstream(parse_address("192.0.2.2"), 5060, "udp"),)),
    )


def _said(text: str, settings: Settings, store: Store, now: float = NOW) -> list[str]:
    network = parse_network(text)
    found = exemptions(network, settings=settings, own=OWN, store=store, now=now)
    assert all(one.network.overlaps(network) for one in found)
    return [str(one) for one in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", ["an address of this host", "allow.networks of the settings"]),
        ("192.0.2.2", ["an upstream of the edge", "allow.networks of the settings"]),
        ("192.0.2.3", ["a peer of this node", "allow.networks of the settings"]),
        ("192.0.2.16", []),
        ("2001:db8::1", ["an address of this host"]),
        ("2001:db8::2", []),
        (
            "192.0.0.0/16",
            [
                "an address of this host",
                "an upstream of the edge",
                "a peer of this node",
                "allow.networks of the settings",
            ],
        ),
        ("::/0", ["an address of this host"]),
    ],
)
def test_each_says_who_exempts(
    settings: Settings, store: Store, text: str, expected: list[str]
) -> None:
    """A network that holds an exempt address is touched by it as much as the address itself."""
    assert _said(text, settings, store) == expected


def test_allow_list_says_who_and_why(settings: Settings, store: Store) -> None:
    """Each source with its reason; none twice, also where they begin at the same address."""
    wide, narrow = parse_network("198.51.100.0/24"), parse_network("198.51.100.0/25")
    store.allow([wide], reason="our carrier", now=NOW)
    store.set_allowed("dispatcher", {narrow: ""}, now=NOW)
    expected = ["the allow list (operator: our carrier)", "the allow list (dispatcher)"]
    for text in ("198.51.100.0/25", "198.51.100.0", "198.51.0.0/16", "198.51.100.0/24"):
        assert _said(text, settings, store) == expected
    assert _said("198.51.100.128", settings, store) == expected[:1]
    assert _said("198.51.101.0/24", settings, store) == []


def test_ended_entry_exempts_nobody(settings: Settings, store: Store) -> None:
    """Though it is still there: it is in force while now is before its end."""
    store.allow([parse_network("198.51.100.1")], reason="", now=NOW, expires=NOW + 10, source=UNBAN)
    assert _said("198.51.100.1", settings, store, now=NOW + 9.5) == ["the allow list (unban)"]
    assert _said("198.51.100.1", settings, store, now=NOW + 10) == []


def test_all_are_those_that_the_published_list_leaves_out(settings: Settings, store: Store) -> None:
    """What is told and what is enforced are the same."""
    store.allow([parse_network("198.51.100.1")], reason="", now=NOW)
    store.allow([parse_network("198.51.100.2")], reason="", now=NOW, expires=NOW)
    found = all_exemptions(settings=settings, own=OWN, store=store, now=NOW)
    networks: set[Network] = {*settings.exempt, *OWN, *store.allowed(NOW)}
    assert {one.network for one in found} == networks
