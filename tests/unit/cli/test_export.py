"""``apiban export``: the list in the words of other firewalls."""

from __future__ import annotations

import os
import stat

import pytest

from tests.unit.cli.node import DAY, NodeOnHost

LISTED = "198.51.100.7"


@pytest.fixture
def filled(node: NodeOnHost) -> NodeOnHost:
    """Give a node that bans of both families, for a time and for good, around an allowed one."""
    node.feed_lists(LISTED, "2001:db8::7")
    node.run("allow", "add", "203.0.113.4")
    node.run("ban", "203.0.113.0/29", "--around")
    node.run("ban", "192.0.2.99", "--for", "1h")
    return node


AROUND = ["203.0.113.0/30", "203.0.113.5", "203.0.113.6/31"]


def lines(node: NodeOnHost, *options: str) -> list[str]:
    """Give the lines of an export."""
    done = node.run("export", *options)
    assert (done.status, done.err) == (0, "")
    return done.out.splitlines()


def test_plain(filled: NodeOnHost) -> None:
    """Addresses and CIDR blocks of both families, and nothing else; the allowed is cut out."""
    assert lines(filled) == ["192.0.2.99", LISTED, *AROUND, "2001:db8::7"]
    assert lines(filled, "--family", "6") == ["2001:db8::7"]
    assert lines(filled, "--family", "4") == ["192.0.2.99", LISTED, *AROUND]


def test_cidr(filled: NodeOnHost) -> None:
    """With a prefix everywhere."""
    found = lines(filled, "--format", "cidr")
    assert found[:3] == ["192.0.2.99/32", f"{LISTED}/32", "203.0.113.0/30"]
    assert found[-1] == "2001:db8::7/128"


def test_what_has_ended_is_left_out(filled: NodeOnHost) -> None:
    """A ban that is over is none for others either."""
    filled.clock.tick(3601)
    assert "192.0.2.99" not in lines(filled)


def test_ipset(filled: NodeOnHost) -> None:
    """A set a family, filled beside the old one; what is for good has no end."""
    found = lines(filled, "--format", "ipset", "--name", "sip")
    assert "add sip4-new 192.0.2.99 timeout 3600" in found
    assert "add sip4-new 203.0.113.0/30 timeout 0" in found
    assert found.index("swap sip4-new sip4") > found.index(
        "create sip4 hash:net family inet maxelem 1048576 timeout 0 -exist"
    )
    assert "destroy sip6-new" in found


def test_mikrotik(filled: NodeOnHost) -> None:
    """Each address with its time; what is not listed any more goes at the end."""
    found = lines(filled, "--format", "mikrotik", "--name", "sip")
    mark = f'"sip {int(filled.clock.now())}"'
    assert "/ip firewall address-list" in found
    assert "/ipv6 firewall address-list" in found
    assert f"add list=sip address=192.0.2.99 timeout=1h0m0s comment={mark}" in found
    assert f"add list=sip address=203.0.113.0/30 timeout=672h0m0s comment={mark}" in found
    assert "remove [find where list=sip address=2001:db8::7/128]" in found
    assert found[-1] == f"remove [find where list=sip comment!={mark}]"
    adds = [line for line in found if line.startswith("add ")]
    assert len(adds) == 6


def test_change_needs_no_sync_process(filled: NodeOnHost) -> None:
    """Where nobody syncs an unban is out of the export at once."""
    filled.kamailio_starts()
    filled.publish()
    filled.run("unban", LISTED)
    assert LISTED not in lines(filled)


def test_published_list_counts_where_somebody_syncs(
    filled: NodeOnHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the one in force here; before there is one that is one line."""
    monkeypatch.setattr("apiban.cli.export.somebody_syncs", lambda _: True)
    done = filled.run("export")
    assert (done.status, done.out, len(done.err.splitlines())) == (1, "", 1)
    filled.kamailio_starts()
    filled.publish()
    filled.run("ban", "192.0.2.100", "--no-wait")
    assert lines(filled) == ["192.0.2.99", LISTED, *AROUND, "2001:db8::7"]


def test_mode_that_drops_nobody_is_said(filled: NodeOnHost) -> None:
    """The list is written all the same: it is for others."""
    filled.run("mode", "shadow")
    done = filled.run("export")
    assert "this host drops none" in done.err
    assert LISTED in done.out


def test_file_is_put_whole_for_everybody(filled: NodeOnHost) -> None:
    """A web server reads it; the old one stays when the new one cannot be put."""
    file = filled.folder / "list.txt"
    assert lines(filled, "--output", str(file)) == []
    assert file.read_text().splitlines() == lines(filled)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    done = filled.run("export", "--output", str(filled.folder / "no" / "list.txt"))
    assert (done.status, len(done.err.splitlines())) == (1, 1)


@pytest.mark.parametrize("name", ["", "a b", "a;b", "A", "x" * 21, "4", "$(id)"])
def test_name_is_a_plain_word(filled: NodeOnHost, name: str) -> None:
    """It goes into other programs' scripts."""
    assert filled.run("export", "--format", "ipset", "--name", name).status == 2


def test_empty_list(node: NodeOnHost) -> None:
    """It empties the sets of others, and is no error."""
    assert lines(node) == []
    assert "flush apiban_list4-new" in lines(node, "--format", "ipset")
    found = lines(node, "--format", "nftables")
    assert "flush set inet apiban_list ipv4" in found
    assert not [line for line in found if line.startswith("add element")]


def test_times_are_within_what_others_know(node: NodeOnHost) -> None:
    """An ipset knows 24 days at most; what is for good has no end in nftables."""
    node.run("ban", "192.0.2.1", "--for", "60d")
    node.run("ban", "192.0.2.2")
    assert "add apiban_list4-new 192.0.2.1 timeout 2147483" in lines(node, "--format", "ipset")
    found = lines(node, "--format", "nftables")
    assert f"192.0.2.1 timeout {int(60 * DAY)}s," in found
    assert "192.0.2.2," in found


def test_all_addresses_are_two_halves_in_an_ipset(node: NodeOnHost) -> None:
    """A hash:net takes no block of all addresses."""
    node.own = ()
    node.feed_lists("0.0.0.0/0", "::/0")
    end = int(14 * DAY)
    assert lines(node) == ["0.0.0.0/0", "::/0"]
    found = [line for line in lines(node, "--format", "ipset") if line.startswith("add ")]
    assert found == [
        f"add apiban_list4-new 0.0.0.0/1 timeout {end}",
        f"add apiban_list4-new 128.0.0.0/1 timeout {end}",
        f"add apiban_list6-new ::/1 timeout {end}",
        f"add apiban_list6-new 8000::/1 timeout {end}",
    ]


def test_file_goes_through_no_link(filled: NodeOnHost) -> None:
    """In a folder where others write, too, nothing of root's is overwritten."""
    other = filled.folder / "other"
    other.write_text("theirs")
    (filled.folder / f".list.txt.{os.getpid()}.new").symlink_to(other)
    lines(filled, "--output", str(filled.folder / "list.txt"))
    assert other.read_text() == "theirs"
