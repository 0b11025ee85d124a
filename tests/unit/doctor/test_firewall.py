"""What the doctor says of the firewall client."""

from __future__ import annotations

from typing import Any

import pytest
from apiban.doctor.firewall import (
    Listed,
    check_client,
    check_held,
    check_privileges,
    check_tools,
)
from apiban.settings import load_settings

from tests.support.reports import firewall_report

NOW = 1_800_000_000.0
NET_ADMIN = 1 << 12
LIST = Listed(7, "enforce", NOW - 60)


def client(*, runs: bool = True, alive: bool = True, kamailio: bool = False, **report: Any) -> Any:
    """Give the levels of what is said of a client, and the first text."""
    told = firewall_report(**{"pid": 9, "at": NOW - 3, **report})
    found = list(check_client(told, runs=runs, alive=alive, kamailio=kamailio, now=NOW))
    assert all(one.mend for one in found if one.level in ("warn", "fail"))
    return [one.level for one in found], " ".join(one.what + one.mend for one in found)


def test_without_a_client() -> None:
    """One informational line, and nothing to mend."""
    (found,) = check_client(None, runs=False, alive=False, kamailio=True, now=NOW)
    assert (found.level, found.mend) == ("note", "")


def test_client_that_is_well() -> None:
    """It says what it holds."""
    levels, text = client(banned_ipv4=4123)
    assert levels == ["ok"]
    assert "4,123 IPv4" in text


def test_client_in_trouble() -> None:
    """Its own line; what others undo is a note."""
    levels, text = client(trouble="no nft", healed=3)
    assert levels == ["ok", "fail", "note"]
    assert "no nft" in text
    assert "3 times" in text


@pytest.mark.parametrize(("kamailio", "level"), [(True, "warn"), (False, "fail")])
@pytest.mark.parametrize(
    ("alive", "at", "word"), [(False, NOW, "is gone"), (True, NOW - 45, "nothing for 45 s")]
)
def test_client_that_is_gone(
    kamailio: bool, level: str, alive: bool, at: float, word: str  # noqa: FBT001
) -> None:  # fmt: skip
    """Where Kamailio drops too it is a warning."""
    levels, text = client(runs=False, alive=alive, kamailio=kamailio, at=at)
    assert levels == [level]
    assert word in text
    assert "systemctl restart apiban-firewall" in text


@pytest.mark.parametrize("kamailio", [True, False])
def test_client_that_was_stopped(kamailio: bool) -> None:  # noqa: FBT001
    """No failure: somebody wanted it."""
    levels, text = client(runs=False, alive=False, kamailio=kamailio, kept_until=NOW + 60)
    assert levels == ["warn"]
    assert "stopped 3 s ago" in text
    assert "systemctl start apiban-firewall" in text


@pytest.mark.parametrize(
    ("report", "listed", "levels"),
    [
        ({"generation": 7}, LIST, ["ok"]),
        ({"generation": 6}, LIST, ["fail"]),
        ({"generation": 7, "mode": "shadow"}, LIST, ["fail"]),
        ({"generation": 6}, Listed(7, "enforce", NOW - 3), []),  # it is just published
        ({"generation": 0}, LIST, []),  # made of the store, where nobody syncs
        ({"generation": 6}, None, []),
    ],
)
def test_kernel_holds_the_list(
    report: dict[str, Any], listed: Listed | None, levels: list[str]
) -> None:
    """By generation and mode."""
    told = firewall_report(**report)
    assert [one.level for one in check_held(told, listed, now=NOW)] == levels


@pytest.mark.parametrize(
    ("backend", "conntrack", "there", "missing"),
    [
        ("nftables", False, {"nft"}, []),
        ("nftables", False, set(), ["nft"]),
        ("nftables", True, {"nft"}, ["conntrack"]),
        ("nftables", True, {"nft", "conntrack"}, []),
        ("ipset", False, {"ipset", "iptables"}, ["ip6tables"]),
        ("dry-run", False, set(), []),
    ],
)
def test_tools(
    tmp_path: Any, backend: str, conntrack: bool, there: set[str], missing: list[str]  # noqa: FBT001
) -> None:  # fmt: skip
    """Each that is missing is named with its package."""
    file = tmp_path / "apiban.toml"
    file.write_text(
        f'[firewall]\nbackend = "{backend}"\nconntrack = {str(conntrack).lower()}\n', "utf-8"
    )
    settings = load_settings(file, {}).firewall
    found = list(check_tools(settings, lambda name: name if name in there else None))
    bad = [one for one in found if one.level in ("warn", "fail")]
    assert [one.what.split()[0] for one in bad] == missing
    assert all("apt-get install" in one.mend for one in bad)


@pytest.mark.parametrize(
    ("backend", "effective", "levels"),
    [
        ("nftables", NET_ADMIN, ["ok"]),
        ("nftables", 0, ["fail"]),
        ("nftables", (1 << 40) - 1, ["note"]),
        ("nftables", None, []),
        ("dry-run", 0, []),
    ],
)
def test_privileges(backend: str, effective: int | None, levels: list[str]) -> None:
    """CAP_NET_ADMIN is enough, and needed."""
    report = firewall_report(backend=backend)
    assert [one.level for one in check_privileges(report, effective)] == levels
