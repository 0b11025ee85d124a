"""The kernel takes what ``apiban export`` writes: nft and ipset, each in a network of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.cli.conftest import node
from tests.unit.cli.node import NodeOnHost

__all__ = ["node"]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")

MANY = 3000


@pytest.fixture
def filled(node: NodeOnHost) -> NodeOnHost:
    """Give a node that bans many, both families, ranges, for a time and for good."""
    node.feed_lists(*(f"198.{18 + at // 60000}.{at // 250 % 240}.{at % 250}" for at in range(MANY)))
    node.feed_lists("2001:db8::7", "2001:db8:1::/48")
    node.run("ban", "203.0.113.0/24", "--for", "1h")
    node.run("ban", "192.0.2.1")
    return node


def in_network(script: str) -> str:
    """Run a script in a network of its own, and give what it prints."""
    done = subprocess.run(
        ["unshare", "-n", "sh", "-ec", script],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def exported(node: NodeOnHost, folder: Path, form: str) -> Path:
    """Write an export into a file."""
    file = folder / f"list.{form}"
    assert node.run("export", "--format", form, "--output", str(file)).status == 0
    return file


@pytest.mark.skipif(shutil.which("nft") is None, reason="Debian's nftables has it")
def test_nft_takes_it_again_and_again(filled: NodeOnHost, tmp_path: Path) -> None:
    """The second list takes the first one's place; a rule of the operator's stays."""
    first = exported(filled, tmp_path, "nftables")
    shutil.copy(first, tmp_path / "first")
    filled.run("unban", "203.0.113.0/24")
    second = exported(filled, tmp_path, "nftables")
    said = in_network(
        f"nft -f {tmp_path / 'first'}\n"
        "nft add chain inet apiban_list in '{ type filter hook input priority -5; }'\n"
        "nft add rule inet apiban_list in ip saddr @ipv4 drop\n"
        "nft -j list set inet apiban_list ipv4\n"
        f"nft -f {second}\n"
        "nft -j list set inet apiban_list ipv4\n"
        "nft -j list set inet apiban_list ipv6\n"
        "nft -j list chain inet apiban_list in\n"
    )
    documents = [json.loads(line)["nftables"] for line in said.splitlines()]
    sets = [
        part["set"].get("elem", []) for document in documents[:3] for part in document[1:]
    ]  # fmt: skip
    texts = [json.dumps(one) for one in sets]
    assert '"203.0.113.0"' in texts[0]
    assert '"203.0.113.0"' not in texts[1]
    assert len(sets[1]) == len(sets[0]) - 1
    assert '"192.0.2.1"' in texts[1]
    assert '"2001:db8:1::"' in texts[2]
    assert any("rule" in part for part in documents[3])


@pytest.mark.skipif(shutil.which("ipset") is None, reason="Debian's ipset has it")
def test_ipset_takes_all_addresses(node: NodeOnHost, tmp_path: Path) -> None:
    """Of both families: a hash:net has no block of all, and its halves cover the same."""
    node.own = ()
    node.feed_lists("0.0.0.0/0", "::/0")
    in_network(
        f"ipset restore < {exported(node, tmp_path, 'ipset')}\n"
        "for one in 1.2.3.4 127.255.255.255 255.255.255.255; do\n"
        "  ipset test apiban_list4 $one 2>&1\n"
        "done\n"
        "for one in ::2 7fff::1 ffff::1; do ipset test apiban_list6 $one 2>&1; done\n"
    )


@pytest.mark.skipif(shutil.which("ipset") is None, reason="Debian's ipset has it")
def test_ipset_takes_the_address_of_zeros(node: NodeOnHost, tmp_path: Path) -> None:
    """It is one like any other in a hash:net."""
    node.run("ban", "0.0.0.0", "::", "--around")
    said = in_network(
        f"ipset restore < {exported(node, tmp_path, 'ipset')}\nipset save apiban_list4\n"
        "ipset save apiban_list6\n"
    )
    assert "add apiban_list4 0.0.0.0 timeout 0" in said
    assert "add apiban_list6 :: timeout 0" in said


@pytest.mark.skipif(shutil.which("ipset") is None, reason="Debian's ipset has it")
def test_ipset_takes_it_again_it_again_and_again(filled: NodeOnHost, tmp_path: Path) -> None:
    """By swapping; the sets' names stay, and no helper is left."""
    first = exported(filled, tmp_path, "ipset")
    shutil.copy(first, tmp_path / "first")
    filled.run("unban", "203.0.113.0/24")
    second = exported(filled, tmp_path, "ipset")
    said = in_network(
        f"ipset restore < {tmp_path / 'first'}\n"
        "ipset test apiban_list4 203.0.113.77 2>&1\n"
        f"ipset restore < {second}\n"
        "if ipset -q test apiban_list4 203.0.113.77; then exit 1; fi\n"
        "ipset test apiban_list4 192.0.2.1 2>&1\n"
        "ipset test apiban_list6 2001:db8:1::9 2>&1\n"
        "ipset list -n\n"
    )
    assert said.splitlines()[-2:] == ["apiban_list4", "apiban_list6"]
