"""What nft says when it fails, in an operator's words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from apiban.errors import FirewallError
from apiban.firewall import netlink
from apiban.firewall.elements import FOREVER, Change
from apiban.firewall.nftables import NftablesBackend
from apiban.firewall.rules import Rules

RULES = Rules(("input",), (), (), "drop", drops=True)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Operation not permitted (you must be root)\nnetlink: Error: cache", "CAP_NET_ADMIN"),
        ("internal:0:0-0: Error: Could not open file: Permission denied", "CAP_NET_ADMIN"),
        ("Error: Could not process rule: Operation not supported", "modprobe nf_tables"),
        ("Unable to initialize Netlink socket: Protocol not supported", "modprobe nf_tables"),
        ("netlink: Error: cache initialization failed: Invalid argument", "modprobe nf_tables"),
        ("Error: Could not process rule: No such file or directory", "kernel lacks a module"),
        ("netlink: Error: Could not process rule: Message too long", "net.core.wmem_default"),
        ("netlink: Error: No buffer space available", "net.core.rmem_max"),
        ("Error: Could not process rule: Cannot allocate memory", "no memory"),
        ("Error: JSON support not compiled-in", "cannot read JSON"),
        ("one\nError: something new\n  ^^^", "Error: something new"),
        ("", "no reason"),
    ],
)
def test_errors_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, told: str
) -> None:
    """What is missing, or the fix, is named; nothing is fed back."""
    nft = tmp_path / "nft"
    nft.write_text(f"#!/bin/sh\ncat >/dev/null\ncat >&2 <<'E'\n{said}\nE\nexit 1\n", "utf-8")
    nft.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(netlink, "ruleset_generation", lambda: 1)
    monkeypatch.setattr(netlink, "frame", lambda table: None)
    with pytest.raises(FirewallError) as raised:
        NftablesBackend().apply(Change(rebuild=True), RULES, now=0)
    text = str(raised.value)
    assert text.startswith("nftables: ")
    assert told in text
    assert "\n" not in text
    assert len(text) < 250


def test_the_number_of_a_rule_set_begins_anew() -> None:
    """The kernel leaves 0 out, also in the midst of several transactions."""
    assert netlink.following(41) == 42
    assert netlink.following(0xFFFFFFFE) == 0xFFFFFFFF
    assert netlink.following(0xFFFFFFFF) == 1
    assert netlink.following(0xFFFFFFFE, 3) == 2


def test_a_mark_of_a_number_that_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of ours is no foreign one then."""
    nft = tmp_path / "nft"
    nft.write_text("#!/bin/sh\ncat >/dev/null\n", "utf-8")
    nft.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(netlink, "ruleset_generation", lambda: 0xFFFFFFFF)
    change = Change(add={(4, 7, 7): FOREVER})
    assert NftablesBackend().apply(change, RULES, now=0, since=0xFFFFFFFF) == 1


def test_an_end_that_others_may_still_count_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is extended is deleted and added: an ``add`` alone is nothing to older kernels.

    It may be gone already: then it is added, deleted, and added.
    """
    nft = tmp_path / "nft"
    nft.write_text(
        """#!/bin/sh
cat >>"${0%/*}/fed"
[ -e "${0%/*}/once" ] && exit
: >"${0%/*}/once"
echo "No such file or directory" >&2
exit 1
""",
        "utf-8",
    )
    nft.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(netlink, "ruleset_generation", lambda: 1)
    NftablesBackend().apply(Change(extend={(4, 0xC6336407, 0xC6336407): 70}), RULES, now=10)
    fed = [line for line in (tmp_path / "fed").read_text("utf-8").splitlines() if "elem" in line]
    verbs = [next(iter(json.loads(line.rstrip(",")))) for line in fed]
    assert verbs == ["delete", "add", "add", "delete", "add"]
    assert all("198.51.100.7" in line for line in fed)
    assert '"timeout": 60' in fed[-1]


def test_a_listing_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nft says and nobody can read is an error, not an empty table."""
    nft = tmp_path / "nft"
    nft.write_text("#!/bin/sh\necho nonsense\n", "utf-8")
    nft.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(netlink, "ruleset_generation", lambda: 1)
    monkeypatch.setattr(netlink, "frame", lambda table: None)
    with pytest.raises(FirewallError, match="no JSON"):
        NftablesBackend().read(RULES, now=0)
