"""The backends that the suite holds to the contract, and what strangers do to each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from apiban.firewall.backend import Backend
from apiban.firewall.elements import FOREVER, Change
from apiban.firewall.ipset import IpsetBackend
from apiban.firewall.nftables import NftablesBackend
from apiban.firewall.tool import Done
from apiban.firewall.tool import run as run_tool

from tests.contract.firewall.parts import LISTED, block
from tests.contract.firewall.world import run

__all__ = ["KITS", "Kit"]


@dataclass(frozen=True)
class Kit:
    """One backend, and its kernel seen from beside it.

    ``tampers`` are changes of others, by name, to rules for the hook "input" with ``LISTED``
    banned: each leaves something for ``read`` to tell. ``clear`` takes out
    everybody's things. ``stranger`` puts things of somebody else there, and gives a function that
    gives them as they are. ``bad`` is a change that the kernel, or
    the tool, must refuse. ``program`` is of the Debian package ``package``; ``says`` is what it
    says, on its standard error, when the kernel lacks the module.
    """

    name: str
    make: Callable[[], Backend]
    clear: Callable[[], None]
    tampers: Mapping[str, Callable[[], None]]
    stranger: Callable[[], Callable[[], str]]
    bad: Change
    program: str
    package: str
    says: str


def _nft(*commands: str) -> Callable[[], None]:
    def tamper() -> None:
        for command in commands:
            run("nft", command)

    return tamper


def _nft_rule(chain: str) -> Callable[[], None]:
    def tamper() -> None:
        lines = run("nft", "-a", "list chain inet apiban_firewall " + chain).splitlines()
        handles = [line.rpartition("# handle ")[2] for line in lines if "ip saddr" in line]
        run("nft", f"delete rule inet apiban_firewall {chain} handle {handles[0]}")

    return tamper


def _nft_stranger() -> Callable[[], str]:
    run("nft", "add table inet foreign")
    run("nft", "add set inet foreign s { type ipv4_addr; elements = { 192.0.2.1 }; }")
    run("nft", "add chain inet foreign c { type filter hook input priority 0; }")
    run("nft", "add rule inet foreign c ip saddr @s drop")
    return lambda: run("nft", "list table inet foreign")


def _commands(*commands: str) -> Callable[[], None]:
    """Run commands, words apart by spaces, one after another."""

    def do() -> None:
        for command in commands:
            run(*command.split())

    return do


def _legacy(words: Sequence[str], text: str = "") -> Done:
    """Run a tool; iptables in the form that older hosts have."""
    return run_tool([words[0].replace("tables-", "tables-legacy-"), *words[1:]], text)


def _ipset_kit(name: str, iptables: str, backend: Callable[[], IpsetBackend]) -> Kit:
    ip6tables = iptables.replace("ip", "ip6", 1)
    clear = [f"{one} {flag}" for one in (iptables, ip6tables) for flag in ("-F", "-X")]

    def stranger() -> Callable[[], str]:
        _commands(
            "ipset create foreign hash:ip family inet",
            "ipset add foreign 192.0.2.1",
            f"{iptables} -N FOREIGN",
            f"{iptables} -A FOREIGN -m set --match-set foreign src -j DROP",
            f"{iptables} -A INPUT -j FOREIGN",
            f"{ip6tables} -A FORWARD -s 2001:db8:ffff::/48 -j REJECT",
        )()

        def look() -> str:
            rules = run(f"{iptables}-save") + run(f"{ip6tables}-save")
            kept = (line for line in rules.splitlines() if line[:1] not in {"#", ":"})
            theirs = [line for line in kept if "APIBAN" not in line]
            return "\n".join([run("ipset", "save", "foreign"), *theirs])

        return look

    return Kit(
        name=name,
        make=backend,
        clear=_commands(*clear, "ipset destroy"),
        tampers={
            "all flushed": _commands(*clear, "ipset destroy"),
            "rules flushed": _commands(f"{iptables} -F"),
            "set flushed": _commands("ipset flush apiban4"),
            "ranges flushed": _commands("ipset flush apiban4-net"),
            "set swapped": _commands(
                "ipset create other hash:ip family inet timeout 0",
                f"ipset add other {LISTED}",
                "ipset swap other apiban4",
                "ipset destroy other",
            ),
            "jump deleted": _commands(f"{iptables} -D INPUT -j APIBAN"),
            "jump of IPv6 deleted": _commands(f"{ip6tables} -D INPUT -j APIBAN"),
            "jump behind an accepting rule": _commands(f"{iptables} -I INPUT -p udp -j ACCEPT"),
            "jump behind another chain": _commands(
                f"{iptables} -N OTHER", f"{iptables} -I INPUT -j OTHER"
            ),
            "rule of the list deleted": _commands(f"{iptables} -D APIBAN-LISTED 1"),
            "rule added": _commands(f"{iptables} -I APIBAN -j RETURN"),
            "element deleted": _commands(f"ipset del apiban4 {LISTED}"),
            "element added": _commands("ipset add apiban4 192.0.2.77"),
            "allowed one added": _commands("ipset add apiban4-allow 192.0.2.77"),
        },
        stranger=stranger,
        bad=Change(  # no block of the second can be written
            add={block("192.0.2.9"): FOREVER, (4, 0xC0000205, 0xC0000209): FOREVER}
        ),
        program="ipset",
        package="ipset",
        says="ipset v7.17: Cannot open session to kernel.",
    )


KITS: tuple[Kit, ...] = (
    Kit(
        name="nftables",
        make=NftablesBackend,
        clear=_nft("flush ruleset"),
        tampers={
            "all flushed": _nft("flush ruleset"),
            "table deleted": _nft("delete table inet apiban_firewall"),
            "rules flushed": _nft("flush table inet apiban_firewall"),
            "set flushed": _nft("flush set inet apiban_firewall banned_ipv4"),
            "rule of the hook deleted": _nft_rule("input"),
            "rule of the list deleted": _nft_rule("banned"),
            "table switched off": _nft("add table inet apiban_firewall { flags dormant; }"),
            "set of another kind": _nft(
                "delete table inet apiban_firewall",
                "add table inet apiban_firewall",
                "add set inet apiban_firewall banned_ipv4 { type ipv4_addr; }",
            ),
            "address among the ranges": _nft(
                "add element inet apiban_firewall ranges_ipv4 { 192.0.2.77 }"
            ),
            "chain added": _nft("add chain inet apiban_firewall other"),
            "allowed by somebody": _nft(
                "add element inet apiban_firewall allowed_ipv4 { 192.0.2.77 }"
            ),
            "rule added": _nft("insert rule inet apiban_firewall banned accept"),
            "element deleted": _nft(
                f"delete element inet apiban_firewall banned_ipv4 {{ {LISTED} }}"
            ),
        },
        stranger=_nft_stranger,
        bad=Change(  # blocks that overlap
            add={
                block("192.0.2.9"): FOREVER,
                block("172.16.0.0/12"): FOREVER,
                block("172.16.0.0/16"): FOREVER,
            }
        ),
        program="nft",
        package="nftables",
        says="Error: Could not process rule: Operation not supported",
    ),
    _ipset_kit("ipset", "iptables", IpsetBackend),
    _ipset_kit("ipset-legacy", "iptables-legacy", lambda: IpsetBackend(run=_legacy)),
)
