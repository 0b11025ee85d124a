"""Rules of our own in iptables and ip6tables, whether they write for nf_tables or are the old ones.

::

    INPUT, FORWARD (the hooks chosen)  -> APIBAN, first of all rules
    APIBAN         allowed: return; established, when kept: return;
                   each interface and port -> APIBAN-LISTED
    APIBAN-LISTED  in a set of banned: drop, or in shadow mode return; its counters count

A table is changed as a whole by ``iptables-restore``: a packet meets the old rules or the new ones.
APIBAN-LISTED is entered by "goto", so that a packet that two ports fit counts once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Final, Self

from apiban.firewall.elements import Counter
from apiban.firewall.rules import Hook, Port, Rules

__all__ = ["Chains", "Shape", "clear", "counted", "look", "put"]

_OURS: Final = ("APIBAN", "APIBAN-LISTED")
_HOOKS: Final[dict[Hook, str]] = {"input": "INPUT", "forward": "FORWARD"}
_JUMP: Final = "-j APIBAN"
_LEADS_HERE: Final = re.compile(r" -[jg] APIBAN(-LISTED)?( |$)")
# What stands before our rule and lets no packet past it: everything else is mended.
_HARMLESS: Final = re.compile(
    r"-j (DROP|REJECT|LOG|NFLOG|ULOG|MARK|CONNMARK|TCPMSS|CT|NOTRACK|TRACE|SET)( |$)"
)
_STEP: Final = re.compile(r"-(?:A|j|g|-match-set) \S+")
_COUNTED: Final = re.compile(
    r"^\[(\d+):(\d+)\] -A APIBAN-LISTED .*--match-set .* -j \w+$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Chains:
    """What a table holds of ours: our chains and their rules, and what of others leads there.

    ``leading`` are the rules of others' chains that lead to ours, and ``before`` are those that
    stand before our jumps in INPUT and FORWARD.
    """

    names: tuple[str, ...]
    rules: tuple[str, ...]
    leading: tuple[str, ...]
    before: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        """What tells one set of rules of ours from another."""
        return Shape(self.names, self.rules, tuple(sorted(self.leading)))

    @property
    def are_first(self) -> bool:
        """Whether nobody's rule lets a packet past ours.

        Rules of others may stand before our jump where they drop, mark or log; one that may accept,
        or leads to a chain that may, must come behind it.
        """
        return all(
            _HARMLESS.search(rule) or not (" -j " in rule or " -g " in rule) for rule in self.before
        )


@dataclass(frozen=True, slots=True)
class Shape:
    """Our chains, their rules, and what leads there, as ``iptables-save`` writes them."""

    names: tuple[str, ...]
    rules: tuple[str, ...]
    leading: tuple[str, ...]

    @classmethod
    def wanted(cls, rules: Rules, allow: str, banned: Iterable[str]) -> Self:
        """Give the shape of these rules in the words of the versions that are known."""
        jumps = sorted(f"-A {_HOOKS[hook]} {_JUMP}" for hook in set(rules.hooks))
        return cls(_OURS, _rules(rules, allow, banned), tuple(jumps))

    def says_as(self, other: Shape) -> bool:
        """Tell whether it may be the same in other words: rule by rule, chain and target agree."""
        return (
            self.names == other.names
            and _steps(self.rules) == _steps(other.rules)
            and _steps(self.leading) == _steps(other.leading)
        )


def _steps(rules: Iterable[str]) -> list[tuple[str, ...]]:
    """Give of each rule the chain, the set that it looks at, and where it leads."""
    return [tuple(_STEP.findall(rule)) for rule in rules]


def look(saved: str) -> Chains:
    """Read what ``iptables-save -t filter`` says, without counters."""
    lines = saved.splitlines()
    there = {line[1:].split(" ", 1)[0] for line in lines if line.startswith(":")}
    rules = [(line.split(" ", 2)[1], line) for line in lines if line.startswith("-A ")]
    before: list[str] = []
    for hook in _HOOKS.values():
        of_hook = [line for chain, line in rules if chain == hook]
        jump = next((at for at, line in enumerate(of_hook) if _LEADS_HERE.search(line)), 0)
        before += of_hook[:jump]
    return Chains(
        tuple(chain for chain in _OURS if chain in there),
        tuple(line for chain, line in rules if chain in _OURS),
        tuple(line for chain, line in rules if chain not in _OURS and _LEADS_HERE.search(line)),
        tuple(before),
    )


def put(rules: Rules, allow: str, banned: Iterable[str], held: Chains) -> str:
    """Give what ``iptables-restore --noflush`` makes our chains from, first in the hooks chosen.

    All is one change of the table; it fails when somebody took out a jump of ours meanwhile.
    """
    return _table(
        *(f":{chain} - [0:0]" for chain in _OURS),
        *_rules(rules, allow, banned),
        *_taken_out(held),
        *(f"-I {_HOOKS[hook]} 1 {_JUMP}" for hook in dict.fromkeys(rules.hooks)),
    )


def clear(held: Chains) -> str:
    """Give what takes our chains out, and whatever leads there."""
    return _table(
        *_taken_out(held),
        *(f"-F {chain}" for chain in held.names),
        *(f"-X {chain}" for chain in held.names),
    )


def counted(saved: str) -> Counter:
    """Sum up what the rules of the sets met, of ``iptables-save -c -t filter``."""
    found = _COUNTED.findall(saved)
    return Counter(sum(int(packets) for packets, _ in found), sum(int(size) for _, size in found))


def _table(*lines: str) -> str:
    return "\n".join(("*filter", *lines, "COMMIT", ""))


def _taken_out(held: Chains) -> tuple[str, ...]:
    return tuple(line.replace("-A ", "-D ", 1) for line in held.leading)


def _rules(rules: Rules, allow: str, banned: Iterable[str]) -> tuple[str, ...]:
    """Give the rules of our chains as ``iptables-save`` writes them."""
    kept = "-A APIBAN -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
    ways_in = tuple(f" -i {one}" for one in rules.interfaces) or ("",)
    ports = tuple(map(_port, rules.ports)) or ("",)
    verdict = "DROP" if rules.drops else "RETURN"
    return (
        f"-A APIBAN -m set --match-set {allow} src -j RETURN",
        *((kept,) if rules.established == "keep" else ()),
        *(f"-A APIBAN{one}{port} -g APIBAN-LISTED" for one, port in product(ways_in, ports)),
        *(f"-A APIBAN-LISTED -m set --match-set {name} src -j {verdict}" for name in banned),
    )


def _port(port: Port) -> str:
    span = f"{port.first}" if port.first == port.last else f"{port.first}:{port.last}"
    return f" -p {port.protocol} -m {port.protocol} --dport {span}"
