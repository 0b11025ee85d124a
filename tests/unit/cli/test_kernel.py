"""What status, top and why say of the kernel: the firewall client's report."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from apiban.cli import force
from apiban.cli.in_force import wait_in_force
from apiban.cli.words import when
from apiban.firewall.report import Flooding

from tests.unit.cli.node import DAY, NodeOnHost

LISTED = "198.51.100.7"
DEAD = 2**22 + 1  # no process has this number


@pytest.fixture
def running(node: NodeOnHost) -> NodeOnHost:
    """Give a node with Kamailio and a firewall client for which all is well."""
    node.feed_lists(LISTED, "2001:db8::7")
    node.kamailio_starts(workers=2)
    node.publish()
    node.sync_reports(position=node.store.position())
    node.clock.tick(30)
    node.sync_reports(position=node.store.position())
    node.firewall_reports(banned_ipv4=1, banned_ipv6=1)
    return node


def warnings(node: NodeOnHost) -> dict[str, str]:
    """Give the warnings' texts by their codes."""
    found = node.run("status", "--json", "--no-wait").json["warnings"]
    return {one["code"]: one["text"] for one in found}


def why(node: NodeOnHost, address: str = LISTED) -> dict[str, Any]:
    """Give what is told of an address."""
    (told,) = node.run("why", address, "--json").json
    assert isinstance(told, dict)
    return told


# Status ----------------------------------------------------------------------------------------


def test_without_a_firewall_client_nothing_is_said(node: NodeOnHost) -> None:
    """None ever ran: that is no trouble."""
    assert node.run("status", "--json", "--no-wait").json["firewall"] is None
    page = node.run("status", "--no-wait").out
    assert not [line for line in page.splitlines() if line.startswith("firewall")]
    assert "no-firewall" not in warnings(node)


def test_firewall_in_the_status(running: NodeOnHost) -> None:
    """What is held, what was dropped and how fast, and that all is well."""
    running.firewall_reports(
        banned_ipv4=12345, banned_ipv6=6, dropped_ipv4=1000, dropped_ipv6=234, bytes_ipv4=5000,
        dropped_per_second=99.5, healed=2,
    )  # fmt: skip
    told = running.run("status", "--json", "--no-wait").json
    assert told["warnings"] == []
    firewall = told["firewall"]
    assert (firewall["running"], firewall["dropped_per_second"]) == (True, 99.5)
    assert (firewall["banned_ipv4"], firewall["dropped_ipv4"], firewall["healed"]) == (
        12345,
        1000,
        2,
    )
    assert firewall["trouble"] is None
    page = " ".join(running.run("status", "--no-wait").out.split())
    assert "firewall nftables, enforce, all that is banned: 12,345 IPv4 and 6 IPv6 blocks" in page
    assert "100 a second, 1,234 packets (5,000 bytes) dropped since" in page
    assert "mended 2 times" in page


def test_flooding_sources_in_the_status(running: NodeOnHost) -> None:
    """A few by name, the rest by number."""
    flooding = tuple(
        Flooding(f"198.51.100.{at}", 500.0, running.clock.now() + 60) for at in range(8)
    )
    running.firewall_reports(sources="flooding", flooding=flooding)
    page = " ".join(running.run("status", "--no-wait").out.split())
    assert "198.51.100.0 (500 a second)" in page
    assert "3 more" in page
    assert len(running.run("status", "--json", "--no-wait").json["firewall"]["flooding"]) == 8


def test_trouble_of_the_firewall_is_a_warning(running: NodeOnHost) -> None:
    """In its own words."""
    running.firewall_reports(trouble="nft is not there: apt-get install nftables")
    assert "apt-get install nftables" in warnings(running)["firewall"]


@pytest.mark.parametrize("changes", [{"pid": DEAD}, {"at": 0.0}], ids=["died", "hangs"])
def test_dead_firewall_client_is_a_warning(running: NodeOnHost, changes: dict[str, Any]) -> None:
    """With the time at which the kernel is empty."""
    running.firewall_reports(**changes)
    told = warnings(running)["no-firewall"]
    assert "runs no more" in told
    assert "UTC" in told
    firewall = running.run("status", "--json", "--no-wait").json["firewall"]
    assert (firewall["running"], firewall["dropped_per_second"]) == (False, None)


def test_dead_client_of_flooding_sources(running: NodeOnHost) -> None:
    """The kernel is empty when the last of them ends."""
    ends = running.clock.now() + DAY
    running.firewall_reports(
        pid=DEAD, sources="flooding", flooding=(Flooding(LISTED, 1.0, ends),)
    )  # fmt: skip
    assert when(ends) in warnings(running)["no-firewall"]


def test_stopped_client_is_told_as_that(running: NodeOnHost) -> None:
    """Until nothing is left of it in the kernel."""
    ends = running.clock.now() + DAY
    running.firewall_reports(kept_until=ends)
    told = warnings(running)["no-firewall"]
    assert "was stopped now" in told
    assert when(ends) in told
    firewall = running.run("status", "--json", "--no-wait").json["firewall"]
    assert (firewall["running"], firewall["stopped"]) == (False, True)
    running.clock.tick(DAY)
    assert "no-firewall" not in warnings(running)


def test_kernel_that_is_behind_is_a_warning(running: NodeOnHost) -> None:
    """By its mode, and by what it knows of the store."""
    running.firewall_reports(mode="shadow")
    assert "mode shadow, not enforce" in warnings(running)["firewall-behind"]
    running.firewall_reports(position=running.store.position() - 1)
    assert "lacks the list's last 1 change" in warnings(running)["firewall-behind"]
    running.firewall_reports()
    assert warnings(running) == {}


def test_kernel_protects_without_kamailio(node: NodeOnHost) -> None:
    """A host that has the firewall client alone lacks no Kamailio; one that floods alone does."""
    node.firewall_reports()
    assert "no-kamailio" not in warnings(node)
    node.firewall_reports(sources="flooding")
    assert "no-kamailio" in warnings(node)
    node.firewall_reports(pid=DEAD)
    assert "no-kamailio" in warnings(node)


def test_where_a_list_is_in_force(running: NodeOnHost) -> None:
    """Without Kamailio it is in the kernel, when that is the client's list, else nowhere yet."""
    generation = running.board.generation if running.board is not None else 0

    def told() -> tuple[str, bool]:
        page = " ".join(running.run("status", "--no-wait").out.split())
        document = running.run("status", "--json", "--no-wait").json
        assert document["list"]["generation"] == generation
        return page, document["list"]["in_kernel"]

    page, in_kernel = told()
    assert in_kernel
    assert "entries: apiban 2, local 0, detector 0 published" in page
    (running.runtime / "counters").unlink()
    running.firewall_reports(generation=generation)
    page, in_kernel = told()
    assert in_kernel
    assert "in the kernel, published" in page
    for other in ({"pid": DEAD}, {"generation": generation - 1}, {"sources": "flooding"}):
        running.firewall_reports(**{"generation": generation, **other})
        page, in_kernel = told()
        assert not in_kernel
        assert "for the next start, published" in page


# Top -------------------------------------------------------------------------------------------


def test_top_shows_what_the_kernel_drops(running: NodeOnHost) -> None:
    """Beside Kamailio's drops; the line is of both."""
    running.firewall_reports(dropped_ipv4=7000, dropped_per_second=321.0)
    out = running.run("top", "--once", "--interval", "0.1").out
    (line,) = [one for one in out.splitlines() if one.startswith("in kernel")]
    assert line.split() == ["in", "kernel", "321/s", "7,000"]
    (drops,) = [one for one in out.splitlines() if one.startswith("dropped")]
    assert drops.rstrip()[-1] in "█@#"
    told = running.run("top", "--json", "--interval", "0.1").json["firewall"]
    assert (told["dropped_ipv4"], told["dropped_per_second"]) == (7000, 321.0)


def test_top_without_kamailio_shows_the_kernel(node: NodeOnHost) -> None:
    """Its numbers and its line are what there is."""
    node.firewall_reports(dropped_ipv4=7000, dropped_per_second=321.0)
    out = node.run("top", "--once", "--interval", "0.1").out
    (line,) = [one for one in out.splitlines() if one.startswith("in kernel")]
    assert line.split()[2:4] == ["321/s", "7,000"]
    assert "the kernel counts no sources" in out


def test_what_is_only_counted_is_no_drop(running: NodeOnHost) -> None:
    """In shadow mode the packets go on to Kamailio, which counts them again."""
    running.firewall_reports(mode="shadow", dropped_ipv4=7000, dropped_per_second=321.0)
    out = running.run("top", "--once", "--interval", "0.1").out
    assert any(one.startswith("kernel saw") for one in out.splitlines())
    (drops,) = [one for one in out.splitlines() if one.startswith("dropped")]
    assert drops.rstrip()[-1] not in "█@#"


# Why -------------------------------------------------------------------------------------------


def test_why_tells_that_the_kernel_holds_it(running: NodeOnHost) -> None:
    """When it has the list that is published."""
    assert why(running)["kernel"] is True
    assert why(running, "198.51.100.99")["kernel"] is False
    assert "held" in running.run("why", LISTED).out
    running.firewall_reports(generation=99)
    assert why(running)["kernel"] is None
    assert "not known" in running.run("why", LISTED).out
    running.firewall_reports(mode="off")
    assert why(running)["kernel"] is False


def test_why_of_a_list_that_the_client_made_itself(node: NodeOnHost) -> None:
    """Where nobody syncs it goes by the store; while it lacks a change that is not known."""
    node.run("ban", LISTED)
    node.firewall_reports(generation=0)
    assert why(node)["kernel"] is True
    node.run("unban", LISTED)
    assert why(node)["kernel"] is None
    node.firewall_reports(generation=0)
    assert why(node)["kernel"] is False


def test_why_of_flooding_sources(running: NodeOnHost) -> None:
    """Those alone are in the kernel; when it names not all of them that is not known."""
    until = running.clock.now() + 60
    running.firewall_reports(sources="flooding", flooding=(Flooding(LISTED, 700.0, until),))
    assert why(running)["kernel"] is True
    assert "700 packets a second" in running.run("why", LISTED).out
    assert why(running, "2001:db8::7")["kernel"] is False
    many = tuple(Flooding(f"192.0.2.{at}", 1.0, until) for at in range(100))
    running.firewall_reports(sources="flooding", flooding=many)
    assert why(running)["kernel"] is None


def test_why_without_a_client(running: NodeOnHost) -> None:
    """It has died: that is what is said."""
    running.firewall_reports(pid=DEAD)
    assert why(running)["kernel"] is None
    assert "runs no more" in running.run("why", LISTED).out


# In force --------------------------------------------------------------------------------------


def test_unban_says_that_the_kernel_has_it(node: NodeOnHost) -> None:
    """On a host without Kamailio: the client takes the change while the command waits."""
    node.run("ban", LISTED)
    node.firewall_reports(position=node.store.position() + 1)
    done = node.run("unban", LISTED)
    assert done.status == 0
    assert "in force in the kernel" in done.out
    node.firewall_reports(position=node.store.position() + 1)
    told = node.run("ban", LISTED, "--json").json["in_force"]
    assert told["where"] == ["kernel"]
    assert told["why_not"] is None


def test_kernel_that_lags_is_status_4(node: NodeOnHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stored, and said with one line."""
    monkeypatch.setattr(force, "wait_in_force", partial(wait_in_force, at_most=0.05))
    node.firewall_reports(trouble="no CAP_NET_ADMIN")
    done = node.run("ban", LISTED)
    assert done.status == 4
    (line,) = done.err.splitlines()
    assert "not in the kernel within 0.05 s: no CAP_NET_ADMIN" in line
