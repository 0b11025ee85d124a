"""The list in nftables: a table of our own, and one ``nft`` process a change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from apiban.errors import FirewallError
from apiban.firewall import netlink, nftjson
from apiban.firewall.elements import FOREVER, Block, Change, Counter, Elements, Held
from apiban.firewall.nftjson import ALLOWED, BANNED, COUNTERS, FAMILIES, RANGES, TABLE
from apiban.firewall.plan import SLACK
from apiban.firewall.rules import Rules
from apiban.firewall.tool import run

__all__ = ["NftablesBackend"]

_TABLE: Final = f"table inet {TABLE}"
_GONE: Final = "No such file or directory"
_LONG: Final = "Message too long"
# So many single addresses go into a transaction where all of them do not fit; fewer, at last.
_PART: Final = 5_000
_SMALLEST: Final = 500
# Longer than a listing of some millions of elements takes.
_LISTED_WITHIN: Final = 600.0

# What nft says (the C locale's words for the kernel's errno), and what it means to an operator.
_MEANINGS: Final = {
    "Operation not permitted": (
        "the kernel does not permit it: CAP_NET_ADMIN is needed (run it as root, or as the service "
        f"apiban-firewall), and no other program may own the {_TABLE}"
    ),
    "Permission denied": (
        "the kernel does not permit it: CAP_NET_ADMIN is needed (run it as root, or as the service "
        "apiban-firewall)"
    ),
    "not supported": (
        "the kernel has no nf_tables, or not all of it (modprobe nf_tables; or set "
        'firewall.backend to "ipset")'
    ),
    "cache initialization failed": (
        'the kernel has no nf_tables (modprobe nf_tables; or set firewall.backend to "ipset")'
    ),
    _GONE: (
        f"the {_TABLE} is not what it was, or the kernel lacks a module of nf_tables (nft_ct, "
        "nft_counter)"
    ),
    _LONG: (
        "the list does not fit into a message, not in parts either (raise net.core.wmem_default, in"
        " a container on its host)"
    ),
    "No buffer space": "the kernel's answer does not fit (raise net.core.rmem_max)",
    "Cannot allocate memory": "the kernel has no memory for the list",
    "JSON support not compiled-in": "this nft cannot read JSON (install Debian's nftables)",
}


class NftablesBackend:
    """Holds the list in ``table inet apiban_firewall``; see ``nftjson`` for what is in there."""

    name = "nftables"
    count_every = 2.0

    def __init__(self) -> None:
        # Rules as they were right after this object had made them, before anybody touched them:
        # these are good, should a version of nft list them in other words than ours.
        self._made: tuple[Rules, object] | None = None
        # The ends of blocks as they were asked for: the kernel tells them by the second only.
        self._ends: Elements = {}

    def mark(self) -> int:
        """Give the number of the kernel's rule set: each change of anybody makes another one."""
        return netlink.ruleset_generation()

    def frame(self) -> object:
        """Give the table, its chains and rules as the kernel tells them."""
        return netlink.frame(TABLE)

    def read(self, rules: Rules, *, now: float) -> Held | None:
        """Give what the table holds; None when it is not there."""
        made = (rules, self.frame())
        objects = _list(_TABLE)
        if objects is None:
            return None
        try:
            singles, ranges, allowed = (
                {
                    block: end
                    for family in FAMILIES
                    for block, end in nftjson.elements_of(objects, names[family], now).items()
                }
                for names in (BANNED, RANGES, ALLOWED)
            )
        except ValueError:
            return Held({}, frozenset(), intact=False)
        intact = (
            (made == self._made or nftjson.shape_of(objects) == nftjson.shape_wanted(rules))
            # A single address among the ranges is none of ours: we would not find it again.
            and all(first != last for _, first, last in ranges)
        )
        return Held(singles | ranges, frozenset(allowed), intact=intact)

    def apply(
        self, change: Change, rules: Rules, *, now: float, since: object = None
    ) -> int | None:
        """Carry a change out in one transaction; in several where the kernel takes no larger ones.

        Of several the first has the rules, what is allowed and the ranges, the others addresses.
        """
        before = self.mark()
        if not change:
            return before if before == since else None
        try:
            self._carry_out(change, rules, now)
            done = 1
        except _TooLong:
            done = self._carry_out_parts(change, rules, now)
        # Ours alone makes it so: anybody else's beside it makes it another number than this.
        after = netlink.following(before, done)
        if change.rebuild:
            frame = self.frame()
            self._made = (rules, frame) if self.mark() == after else None
        return after if before == since else None

    def _carry_out_parts(self, change: Change, rules: Rules, now: float) -> int:
        done, size = 0, _PART
        left: Change | None = change
        while left is not None:
            part, rest = _cut(left, size)
            try:
                self._carry_out(part, rules, now)
            except _TooLong:
                size //= 2
                if size < _SMALLEST:
                    raise
                continue
            left, done = rest, done + 1
        return done

    def _carry_out(self, change: Change, rules: Rules, now: float) -> None:
        try:
            _nft("-f", "-", fed=self._script(change, rules, now))
        except _Missing:
            if change.rebuild:
                raise
            # An element that was to be changed had ended meanwhile: it comes back to be taken out.
            _nft("-f", "-", fed=self._script(change, rules, now, lost=True))
        ends = ({} if change.rebuild else self._ends) | change.add | change.extend
        self._ends = {
            block: end
            for block, end in ends.items()
            if block[1] != block[2] and now < end and block not in change.remove
        }

    def counters(self) -> Mapping[str, Counter]:
        """Give what the sets met since the table was made; nothing when it is not there."""
        found = {name: netlink.counter(TABLE, name) for name in COUNTERS.values()}
        return {name: one for name, one in found.items() if one is not None}

    def remove(self) -> None:
        """Take the table out."""
        try:
            _nft("delete", *_TABLE.split())
        except _Missing:
            return

    def script(self, change: Change, rules: Rules, *, now: float) -> str:
        """Give the transaction as ``nft -j -f`` reads it; what ranges there are is looked up."""
        return self._script(change, rules, now)

    def _script(self, change: Change, rules: Rules, now: float, *, lost: bool = False) -> str:
        if change.rebuild:
            return nftjson.document(_anew(change, rules, now))
        return nftjson.document(_changed(change, self._ends, now, lost=lost))


def _anew(change: Change, rules: Rules, now: float) -> Iterator[str]:
    yield from nftjson.rebuild(rules)
    for family in FAMILIES:
        yield from nftjson.add(BANNED[family], _some(change.add, family, single=True), now)
        yield from nftjson.add(RANGES[family], _some(change.add, family, single=False), now)
        allowed = {block: FOREVER for block in change.allow if block[0] == family}
        yield from nftjson.add(ALLOWED[family], allowed, now)


def _changed(change: Change, ends: Elements, now: float, *, lost: bool) -> Iterator[str]:
    gone = dict.fromkeys(change.remove, 0)
    for family in FAMILIES:
        name = BANNED[family]
        old = _some(gone | change.extend, family, single=True)
        if lost:
            yield from nftjson.add(name, dict.fromkeys(old, FOREVER), now)
        yield from nftjson.delete(name, old)
        yield from nftjson.add(name, _some(change.extend | change.add, family, single=True), now)
        ranges = _some(change.add | change.extend, family, single=False)
        less = _some(gone, family, single=False)
        yield from _refilled(RANGES[family], ranges, less, ends, now)
        more = {block: FOREVER for block in change.allow if block[0] == family}
        fewer = {block: 0 for block in change.disallow if block[0] == family}
        yield from _refilled(ALLOWED[family], more, fewer, {}, now)


def _refilled(
    name: str, more: Elements, less: Elements, ends: Elements, now: float
) -> Iterator[str]:
    """Empty a set of blocks and fill it again: nft looks each one up in all of them otherwise.

    ``ends`` are known better than what the kernel tells, where the two are about the same.
    """
    if not more and not less:
        return
    objects = _list(f"set inet {TABLE} {name}")
    if objects is None:
        raise _Missing(f"nftables: {_MEANINGS[_GONE]}")
    # What is left is given in full seconds, those begun not counted: nothing may end too early.
    held = {
        block: ends.get(block, end) if abs(ends.get(block, end) - end) <= SLACK else end
        for block, end in nftjson.elements_of(objects, name, now + 1).items()
    }
    yield nftjson.flush(name)
    yield from nftjson.add(
        name, {block: end for block, end in (held | more).items() if block not in less}, now
    )


def _some(banned: Mapping[Block, int], family: int, *, single: bool) -> Elements:
    return {
        block: end
        for block, end in banned.items()
        if block[0] == family and (block[1] == block[2]) is single
    }


def _cut(change: Change, size: int) -> tuple[Change, Change | None]:
    """Cut so many single addresses off a change, with all else of it; give the rest, if any."""
    singles = [one for one in (*change.add, *change.extend, *change.remove) if one[1] == one[2]]
    later = frozenset(singles[size:])
    if not later:
        return change, None
    part = replace(
        change,
        add={one: end for one, end in change.add.items() if one not in later},
        extend={one: end for one, end in change.extend.items() if one not in later},
        remove=change.remove - later,
    )
    rest = Change(
        add={one: end for one, end in change.add.items() if one in later},
        extend={one: end for one, end in change.extend.items() if one in later},
        remove=change.remove & later,
    )
    return part, rest


class _Missing(FirewallError):
    """Something that was to be changed is not there."""


class _TooLong(FirewallError):
    """A transaction does not fit into a message to the kernel."""


_KINDS: Final[Mapping[str, type[FirewallError]]] = {_GONE: _Missing, _LONG: _TooLong}


def _list(what: str, *options: str) -> list[dict[str, Any]] | None:
    """Give a listing; None when it is not there."""
    try:
        return nftjson.listed(_nft(*options, "list", *what.split()))
    except _Missing:
        return None
    except ValueError:
        raise FirewallError(
            f"nftables: what nft tells of the {_TABLE} is no JSON (see: nft -j list {what})"
        ) from None


def _nft(*words: str, fed: str = "") -> str:
    """Run nft.

    Raises:
        FirewallError: it is not there, or it failed; the kernel is as before.

    """
    words = ("nft", "-j", *words)
    done = run(words, fed) if fed else run(words, within=_LISTED_WITHIN)
    if done.status == 0:
        return done.out
    raise _trouble(done.err)


def _trouble(said: str) -> FirewallError:
    for words, meaning in _MEANINGS.items():
        if words in said:
            return _KINDS.get(words, FirewallError)(f"nftables: {meaning}")
    first = next((line for line in said.splitlines() if "rror" in line), "it gives no reason")
    return FirewallError(f"nftables: nft failed: {first.strip()[:160]}")
