"""The list in sets of ipset, with rules of iptables and ip6tables: for hosts without nftables.

ipset carries out line by line. What must be whole is therefore built in sets beside these, and
swapped with them, each at once: an end in the middle leaves the old ones, or the new allowed with
the old bans, and the next change takes the scratch sets out. A small change goes line by line, in
an order in which no beginning of it drops an allowed source or lets go of a banned one.
"""

from __future__ import annotations

import contextlib
import math
import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from apiban.address import Family
from apiban.errors import FirewallError
from apiban.firewall import iptables
from apiban.firewall.elements import Change, Counter, Elements, Held
from apiban.firewall.ipsets import (
    LONGEST,
    NAMES,
    SETS,
    Tally,
    build,
    discards,
    entries,
    parse,
    steps,
    swaps,
    timeout,
    whole,
)
from apiban.firewall.rules import Rules
from apiban.firewall.tool import Run, explain, run

__all__ = ["IpsetBackend"]

# Scratch sets have a name of their own each time: an ipset that outlives a client that was killed
# must not add to those of the next one.
_SCRATCH: Final = re.compile(r"(apiban[46](?:-net|-allow)?)-new[0-9a-f]{8}", re.ASCII)
_FAMILIES: Final[tuple[Family, ...]] = (4, 6)
_TABLES: Final[dict[Family, str]] = {4: "iptables", 6: "ip6tables"}
_IPV6: Final = Path("/proc/net/if_inet6")
_SET_MODULES: Final = "ip_set ip_set_hash_ip ip_set_hash_net"
_RULE_MODULES: Final = "xt_set xt_conntrack; with iptables-legacy iptable_filter, too"
_ENTRIES: Final = re.compile(r"^Number of entries: (\d+)$", re.MULTILINE)
_HEADER: Final = re.compile(r"^(?:Type|Header): .*$", re.MULTILINE)
_HASHSIZE: Final = re.compile(r"hashsize \d+ ")  # grows by itself


class _Mark(NamedTuple):
    """Each set's name, form, and number of entries, None where it is the one that we count on."""

    sets: tuple[tuple[str, str, int | None], ...]
    chains: tuple[tuple[Family, iptables.Chains], ...]


def _complain(text: str) -> None:
    sys.stderr.write(f"apiban: {text}\n")


class IpsetBackend:
    """ipset with iptables and ip6tables.

    ``say`` is told once when IPv6 cannot be guarded; IPv4 is all the same. ``uptime`` is a clock
    that nobody sets, in seconds.
    """

    name = "ipset"
    count_every = 10.0  # it takes processes

    def __init__(
        self,
        *,
        say: Callable[[str], None] = _complain,
        run: Run = run,
        has_ipv6: Callable[[], bool] = _IPV6.exists,
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._run = run
        self._has_ipv6 = has_ipv6
        self._uptime = uptime
        self._said = ""
        self._tally: Tally | None = None
        self._scratch: tuple[str, ...] = ()
        # Bans that the kernel can hold for LONGEST only, and when they shall end.
        self._capped: Elements = {}
        # How the rules that we made ourselves were listed right then, should a version of iptables
        # use other words than ours.
        self._shown: dict[Family, tuple[Rules, iptables.Shape]] = {}

    def mark(self) -> _Mark:
        """Give the sets' headers, their numbers of entries, and the rules that lead to them.

        Four processes, 10 ms of CPU together. Entries whose time is over make no difference; while
        some may be, as many that others take out stay unseen until all is read.
        """
        names, _ = self._names()
        listed = self._ipset("".join(f"list -t {name}\n" for name in names))
        seen = []
        for name, text in zip(names, listed.split("Name: ")[1:], strict=False):
            found = _ENTRIES.search(text)
            entries = int(found[1]) if found else -1
            fits = self._tally is not None and self._tally.fits(name, entries, self._uptime())
            seen.append((name, _HASHSIZE.sub("", _form(text)), None if fits else entries))
        return _Mark(tuple(seen), tuple(self._chains()))

    def frame(self) -> None:
        """Give nothing: what others do to what is not ours leaves the mark as it is."""

    def read(self, rules: Rules, *, now: float) -> Held | None:
        """Give what the sets hold, and whether sets and rules are those that should be."""
        names, self._scratch = self._names()
        chains = self._chains()
        if not names and not any(one.names or one.leading for _, one in chains):
            self._tally = Tally({})
            return None
        headers, held = parse(self._ipset("".join(f"save {name}\n" for name in names)), now)
        uptime = self._uptime()
        self._tally = Tally(
            {name: [end - now + uptime for end in of.values()] for name, of in held.items()}
        )
        banned: Elements = {}
        allowed: Elements = {}
        for one in SETS:
            (allowed if one.kind == "allow" else banned).update(whole(held[one.name]))
        self._capped = {
            block: end
            for block, end in self._capped.items()
            if now + LONGEST / 2 < banned.get(block, 0) < end
        }
        intact = all(one.is_like(headers.get(one.name, "")) for one in SETS) and all(
            self._are(chain, family, rules) for family, chain in chains
        )
        return Held(banned | self._capped, frozenset(allowed), intact)

    def apply(
        self, change: Change, rules: Rules, *, now: float, since: object = None
    ) -> _Mark | None:
        """Carry a change out: by one process, or by six when all is made anew; four look at it.

        A small change leaves the mark as it is, since it is counted: see ``mark``.
        """
        if change:
            self._carry_out(change, rules, now)
        mark = self.mark()
        if not change.rebuild:
            return mark if mark == since else None
        for family, chains in mark.chains:
            if chains.shape.says_as(iptables.Shape.wanted(rules, *_used(family))):
                self._shown[family] = rules, chains.shape
        whole = len(mark.sets) == len(SETS) and all(
            entries is None and NAMES[name].is_like(form) for name, form, entries in mark.sets
        )
        return mark if whole and all(self._are(one, of, rules) for of, one in mark.chains) else None

    def _carry_out(self, change: Change, rules: Rules, now: float) -> None:
        if change.rebuild:
            self._rebuild(change, rules, now)
        else:
            self._ipset("\n".join(steps(change, self._scratch, now)))
            self._count(change, now)
        self._scratch = ()
        self._capped = {} if change.rebuild else self._capped
        for block, end in (change.add | change.extend).items():
            if timeout(end, now) == LONGEST:
                self._capped[block] = end
            else:
                self._capped.pop(block, None)
        for block in change.remove:
            self._capped.pop(block, None)

    def counters(self) -> Mapping[str, Counter]:
        """Give what the rules of the sets met."""
        met = {family: iptables.counted(saved) for family, saved in self._saved("-c")}
        return {f"ipv{family}": met.get(family, Counter(0, 0)) for family in _FAMILIES}

    def remove(self) -> None:
        """Take out the rules, then the sets."""
        for family, chains in self._chains():
            if chains.names or chains.leading:
                self._restore(family, iptables.clear(chains))
        names, scratch = self._names()
        self._ipset("".join(f"destroy {name}\n" for name in names + scratch))
        self._tally, self._scratch, self._capped = Tally({}), (), {}

    def script(self, change: Change, rules: Rules, *, now: float) -> str:
        """Give what ``ipset restore``, ``iptables-restore`` and ``ip6tables-restore`` read."""
        if not change.rebuild:
            return "\n".join(("# ipset restore -exist", *steps(change, self._scratch, now), ""))
        names, scratch = self._names()
        new = _new()
        parts = ["# ipset restore -exist", *build(change, names, scratch, new, now), *swaps(new)]
        for family, chains in self._chains():
            text = iptables.put(rules, *_used(family), chains)
            parts += [f"# {_TABLES[family]}-restore --noflush", text.rstrip("\n")]
        return "\n".join((*parts, "# ipset restore -exist", *discards(new), ""))

    def _rebuild(self, change: Change, rules: Rules, now: float) -> None:
        names, scratch = self._names()
        self._check(names)
        chains = self._chains()
        new = _new()
        try:
            self._ipset("\n".join((*build(change, names, scratch, new, now), *swaps(new))))
        except FirewallError:
            self._undo(names)
            raise
        before, self._tally = self._tally, Tally({})
        self._count(change, now)
        for family, held in chains:
            try:
                self._restore(family, iptables.put(rules, *_used(family), held))
            except FirewallError:
                # The rules of IPv4 guard by the new sets already when those of IPv6 fail.
                if family == 4:
                    self._tally = before
                    self._undo(names, swapped=new)
                raise
        self._ipset("\n".join(discards(new)))

    def _are(self, chains: iptables.Chains, family: Family, rules: Rules) -> bool:
        """Tell whether chains do what the rules ask, in our words or as they were shown to us."""
        known = iptables.Shape.wanted(rules, *_used(family))
        shown = self._shown.get(family)
        return chains.are_first and (
            chains.shape == known or (shown is not None and shown == (rules, chains.shape))
        )

    def _check(self, names: tuple[str, ...]) -> None:
        """Refuse sets of our names that cannot be swapped with ours, before anything is done."""
        listed = self._ipset("".join(f"list -t {name}\n" for name in names))
        for name, text in zip(names, listed.split("Name: ")[1:], strict=False):
            form = _form(text)
            if not NAMES[name].is_swappable(form):
                raise FirewallError(
                    f"ipset: the set {name} is another one than ours ({form[:60]}): take it out"
                    " (apiban firewall flush)"
                )

    def _undo(self, before: tuple[str, ...], *, swapped: str = "") -> None:
        """Put the sets back that were there ``before``, after a failure; what cannot be, stays."""
        now, scratch = self._names()
        back = [f"swap {name}{swapped} {name}" for name in before if swapped]
        gone = [f"destroy {name}" for name in (*scratch, *now) if name not in before]
        with contextlib.suppress(FirewallError):
            self._ipset("\n".join((*back, *gone)))

    def _count(self, change: Change, now: float) -> None:
        if self._tally is None:
            return
        ends: dict[str, list[float]] = {one.name: [] for one in SETS}
        gone = dict.fromkeys(ends, 0)
        uptime = self._uptime()
        for name, _, block in entries(change.add):
            ends[name].append(change.add[block] - now + uptime)
        for name, _, block in entries(change.extend):
            ends[name].append(change.extend[block] - now + uptime)
            gone[name] += 1
        for name, _, _ in entries(change.allow, allowed=True):
            ends[name].append(math.inf)
        for name, _, _ in (*entries(change.remove), *entries(change.disallow, allowed=True)):
            gone[name] += 1
        for one in SETS:
            self._tally.changed(one.name, added=ends[one.name], removed=gone[one.name])

    def _names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Give which of our sets there are, and which scratch sets an earlier run left."""
        there = self._run_ipset(("ipset", "list", "-n"), "").split()
        return tuple(name for name in NAMES if name in there), tuple(
            name for name in there if _SCRATCH.fullmatch(name)
        )

    def _chains(self) -> list[tuple[Family, iptables.Chains]]:
        return [(family, iptables.look(saved)) for family, saved in self._saved()]

    def _saved(self, *options: str) -> list[tuple[Family, str]]:
        """Give the rules of each family; IPv6 may be missing."""
        saved: list[tuple[Family, str]] = [(4, self._save(4, options))]
        trouble = ""
        if self._has_ipv6():
            try:
                saved.append((6, self._save(6, options)))
            except FirewallError as error:
                trouble = f"IPv6 is not guarded: {error}"
        if trouble not in {"", self._said}:
            self._say(trouble)
        self._said = trouble
        return saved

    def _save(self, family: Family, options: tuple[str, ...]) -> str:
        words = (f"{_TABLES[family]}-save", *options, "-t", "filter")
        done = self._run(words, "")
        if done.status:
            raise explain(words[0], done, modules=_RULE_MODULES)
        return done.out

    def _restore(self, family: Family, text: str) -> None:
        words = (f"{_TABLES[family]}-restore", "--noflush", "-w", "10")
        done = self._run(words, text)
        if done.status:
            raise explain(words[0], done, modules=_RULE_MODULES)

    def _ipset(self, text: str) -> str:
        return self._run_ipset(("ipset", "restore", "-exist"), f"{text}\n") if text else ""

    def _run_ipset(self, words: tuple[str, ...], text: str) -> str:
        done = self._run(words, text)
        if done.status:
            raise explain("ipset", done, modules=_SET_MODULES)
        return done.out


def _form(listed: str) -> str:
    """Give a set's type and header, as ``ipset save`` would write them."""
    return " ".join(line.partition(": ")[2] for line in _HEADER.findall(listed))


def _new() -> str:
    return f"-new{secrets.token_hex(4)}"


def _used(family: Family) -> tuple[str, tuple[str, ...]]:
    """Give the names that a family's rules use: the set of the allowed, and those of the banned."""
    hosts, nets, allow = (
        next(one.name for one in SETS if (one.family, one.kind) == (family, kind))
        for kind in ("hosts", "nets", "allow")
    )
    return allow, (hosts, nets)
