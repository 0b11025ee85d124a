"""``apiban why``."""

from __future__ import annotations

from typing import Any

import pytest
from apiban.store import DETECTOR, LOCAL

from tests.unit.cli.node import DAY, OWN, NodeOnHost, networks

LISTED = "198.51.100.7"
HOUR = 3600.0


@pytest.fixture
def running(node: NodeOnHost) -> NodeOnHost:
    """Give a node that runs, whose feed lists one address."""
    node.feed_lists(LISTED)
    node.kamailio_starts()
    node.publish()
    node.sync_reports()
    return node


def document(node: NodeOnHost, address: str) -> dict[str, Any]:
    """Explain an address for machines."""
    done = node.run("why", "--json", address)
    assert done.status == 0
    (one,) = done.json
    assert isinstance(one, dict)
    return one


def ban(node: NodeOnHost, text: str, reason: str = "", source: str = LOCAL) -> None:
    """Ban by hand for an hour."""
    now = node.clock.now()
    node.store.ban(networks([text]), source=source, reason=reason, expires=now + HOUR, now=now)


def test_a_banned_address(running: NodeOnHost) -> None:
    """Which source lists which range, why, since when and until when, widest first."""
    ban(running, "198.51.100.0/24", "a farm")
    running.publish()
    running.clock.tick(60)
    told = document(running, LISTED)
    assert told["banned"]
    assert told["dropped"]
    assert told["agrees"]
    now = running.clock.now() - 60
    assert told["listed_by"] == [
        {
            "network": "198.51.100.0/24",
            "source": "local",
            "reason": "a farm",
            "first_listed": now,
            "last_listed": now,
            "expires": now + HOUR,
            "enforced_until": now + HOUR,
            "in_force": True,
        },
        {
            "network": LISTED,
            "source": "apiban",
            "reason": "",
            "first_listed": now,
            "last_listed": now,
            "expires": now + 7 * DAY,
            "enforced_until": now + 14 * DAY,
            "in_force": True,
        },
    ]
    assert told["expires"] == now + 7 * DAY
    assert told["published"]["banned"]
    lines = running.run("why", LISTED).out.splitlines()
    assert lines[0] == f"{LISTED}  BANNED until 2027-01-22 08:00:00 UTC (in 7 d)"
    assert lines[1].split() == ["listed", "198.51.100.0/24", "by", "local:", "a", "farm"]
    assert "BUT" not in "\n".join(lines)


def test_an_address_that_nobody_lists(running: NodeOnHost) -> None:
    """Several addresses are explained one after the other."""
    done = running.run("why", "203.0.113.1", "203.0.113.2")
    assert done.out == (
        "203.0.113.1  not banned: no source lists it\n"
        "\n"
        "203.0.113.2  not banned: no source lists it\n"
    )


def test_what_saves_it_is_told(running: NodeOnHost) -> None:
    """The allow list with its reason and end; an own address, also one that nobody lists."""
    now = running.clock.now()
    running.store.allow(networks([LISTED]), reason="our SBC", now=now, expires=now + HOUR)
    running.publish()
    told = document(running, LISTED)
    assert not told["banned"]
    assert told["saved_by"] == [
        {
            "network": LISTED,
            "kind": "allow list",
            "source": "operator",
            "reason": "our SBC",
            "expires": now + HOUR,
        }
    ]
    assert told["agrees"]
    text = running.run("why", LISTED).out
    assert text.splitlines()[0] == f"{LISTED}  not banned: it is listed, and saved"
    assert "the allow list (operator: our SBC), 198.51.100.7, until 2027-01-15 09:00:00 UTC" in text
    assert "an address of this host" in running.run("why", OWN).out


def test_what_came_from_it_is_told(running: NodeOnHost) -> None:
    """Counts, times, and the first line of the first message."""
    now = running.clock.now()
    line = "OPTIONS sip:100@192.0.2.1 SIP/2.0\x1b[2J"
    running.meets(LISTED, dropped=1234, transport="tcp", line=line)
    running.clock.tick(120)
    told = document(running, LISTED)["hits"]
    assert told["dropped"] == 1234
    assert (told["transport"], told["port"], told["origin"]) == ("tcp", 5071, "apiban")
    assert told["first_seen"] == now
    text = running.run("why", LISTED).out
    assert "1,234 packets dropped" in text
    assert "by tcp from port 5071: OPTIONS sip:100@192.0.2.1 SIP/2.0\\x1b[2J" in text
    assert "2 min ago" in text


def test_without_the_table_of_hits_the_rest_is_told(running: NodeOnHost) -> None:
    """An older Kamailio may have made none."""
    assert document(running, LISTED)["hits"] is None
    assert running.run("why", LISTED).status == 0


def test_a_list_that_does_not_know_it_yet_is_told(running: NodeOnHost) -> None:
    """With how many changes are on their way."""
    ban(running, "203.0.113.9", "by hand")
    told = document(running, "203.0.113.9")
    assert told["banned"]
    assert not told["agrees"]
    assert told["published"]["changes_behind"] == 1
    assert not told["published"]["banned"]
    text = running.run("why", "203.0.113.9").out
    assert "(generation 1) does not ban it yet: it lacks the store's last 1 change" in text
    running.publish()
    assert document(running, "203.0.113.9")["agrees"]


def test_a_list_that_still_bans_it_is_told(running: NodeOnHost) -> None:
    """And one that is in another mode."""
    now = running.clock.now()
    running.store.allow(networks([LISTED]), reason="", now=now)
    assert "still bans it" in running.run("why", LISTED).out
    running.publish()
    running.write_settings('mode = "off"')
    text = running.run("why", LISTED).out
    assert "the workers' list is still in mode enforce, not off" in text


def test_a_list_that_cannot_be_read_is_told(running: NodeOnHost) -> None:
    """An older one in its place is not the workers'."""
    assert running.board is not None
    running.board.announce(2)
    told = document(running, LISTED)
    assert told["published"] is None
    assert not told["agrees"]
    assert "the workers have no list that can be read" in running.run("why", LISTED).out


def test_without_a_kamailio_the_next_starts_list_is_compared(running: NodeOnHost) -> None:
    """It is the durable one."""
    (running.runtime / "counters").unlink()
    told = document(running, LISTED)
    assert told["published"]["in_use"] is False
    assert told["agrees"]
    ban(running, "203.0.113.9")
    assert not document(running, "203.0.113.9")["agrees"]
    assert "no Kamailio runs here" in running.run("why", "203.0.113.9").out


def test_another_state_folder_needs_no_kamailio(node: NodeOnHost) -> None:
    """Not even a runtime folder."""
    node.feed_lists(LISTED)
    away = ("--state", str(node.state), "--runtime", str(node.folder / "nowhere"))
    done = node.run(*away, "why", "--json", LISTED)
    (told,) = done.json
    assert told["banned"]
    assert told["published"] is None


def test_in_another_mode_the_effect_is_told(running: NodeOnHost) -> None:
    """What is banned is not dropped then."""
    now = running.clock.now()
    running.store.set_mode(running.settings.mode.SHADOW, now=now, expires=now + HOUR)
    running.publish()
    told = document(running, LISTED)
    assert (told["banned"], told["dropped"], told["mode"]) == (True, False, "shadow")
    assert "shadow: what it sends is only counted and logged" in running.run("why", LISTED).out


def test_an_entry_over_its_time_is_told(running: NodeOnHost) -> None:
    """The feed's, which stays in force, and another one's, which does not."""
    ban(running, "203.0.113.9", "many users", DETECTOR)
    running.clock.tick(7 * DAY + 60)
    text = " ".join(running.run("why", LISTED).out.split())
    assert text.startswith(f"{LISTED} BANNED beyond its time")
    assert "it stays until the feed answers, at the latest until 2027-01-29 08:00:00 UTC" in text
    text = running.run("why", "203.0.113.9").out
    assert "not banned any more: its time is over" in text
    assert "its time is over, since 7 d ago" in text


def test_a_reason_cannot_command_the_terminal(running: NodeOnHost) -> None:
    """Nor is it taken for rich's markup."""
    ban(running, "203.0.113.9", "[red]x[/red]\x1b[31m")
    assert "by local: [red]x[/red]\\x1b[31m\n" in running.run("why", "203.0.113.9").out


@pytest.mark.parametrize("wrong", ["nobody", "198.51.100.0/24"])
def test_one_bad_address_ends_it(running: NodeOnHost, wrong: str) -> None:
    """Before anything is told, in one line."""
    done = running.run("why", LISTED, wrong)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
