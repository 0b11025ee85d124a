"""The list in nftables: a table of our own, and one ``nft`` process a change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from apiban.errors import FirewallError
from apiban.firewall import netlink, nftjson
from apiban.firewall.elements import FOREVER, Block, Change, Counter, Elements, Held
from apiban.firewall.nftjson import ALLOWED, BANNED, COUNTERS, FAMILIES, RANGES, TABLE
from apiban.firewall.rules import Rules
from apiban.firewall.tool import run

__all__ = ["NftablesBackend"]

_TABLE: Final = f"table inet {TABLE}"
_GONE: Final = "No such file or directory"

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
    "Message too long": "the list does not fit into a message (raise net.core.wmem_max)",
    "No buffer space": "the kernel's answer does not fit (raise net.core.rmem_max)",
    "Cannot allocate memory": "the kernel has no memory for the list",
    "JSON support not compiled-in": "this nft cannot read JSON (install Debian's nftables)",
}


class NftablesBackend:
    """Holds the list in ``table inet apiban_firewall``; see ``nftjson`` for what is in there."""

    name = "nftables"

    def __init__(self) -> None:
        # Rules that nobody but this object has touched, and the rule set's number since then: what
        # nft lists then is how it shows them, should a version of it use other words than ours.
        self._touched: tuple[Rules, int] | None = None
        self._shown: dict[Rules, nftjson.Shape] = {}

    def mark(self) -> int:
        """Give the number of the kernel's rule set: each change of anybody makes another one."""
        return netlink.ruleset_generation()

    def read(self, rules: Rules, *, now: float) -> Held | None:
        """Give what the table holds; None when it is not there."""
        number = self.mark()
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
        shape = nftjson.shape_of(objects)
        if self._touched == (rules, number) and self.mark() == number:
            self._shown = {rules: shape}
        intact = (
            shape in (nftjson.shape_wanted(rules), self._shown.get(rules))
            # A single address among the ranges is none of ours: we would not find it again.
            and all(first != last for _, first, last in ranges)
        )
        return Held(singles | ranges, frozenset(allowed), intact=intact)

    def apply(
        self, change: Change, rules: Rules, *, now: float, since: object = None
    ) -> int | None:
        """Carry a change out in one transaction."""
        before = self.mark()
        if not change:
            return before if before == since else None
        try:
            _nft("-f", "-", fed=self.script(change, rules, now=now))
        except _Missing:
            if change.rebuild:
                raise
            # An element that was to be changed had ended meanwhile: it comes back to be taken out.
            _nft("-f", "-", fed=self._script(change, rules, now, lost=True))
        ours = change.rebuild or self._touched == (rules, before)
        # Ours alone makes it one more: anybody else's beside it makes it another number than this.
        self._touched = (rules, before + 1) if ours else None
        return before + 1 if before == since else None

    def counters(self) -> Mapping[str, Counter]:
        """Give what the sets met since the table was made; zero when it is not there."""
        return {name: netlink.counter(TABLE, name) or Counter(0, 0) for name in COUNTERS.values()}

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
        return nftjson.document(_changed(change, now, lost=lost))


def _anew(change: Change, rules: Rules, now: float) -> Iterator[str]:
    yield from nftjson.rebuild(rules)
    for family in FAMILIES:
        yield from nftjson.add(BANNED[family], _some(change.add, family, single=True), now)
        yield from nftjson.add(RANGES[family], _some(change.add, family, single=False), now)
        allowed = {block: FOREVER for block in change.allow if block[0] == family}
        yield from nftjson.add(ALLOWED[family], allowed, now)


def _changed(change: Change, now: float, *, lost: bool) -> Iterator[str]:
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
        yield from _refilled(RANGES[family], ranges, less, now)
        more = {block: FOREVER for block in change.allow if block[0] == family}
        fewer = {block: 0 for block in change.disallow if block[0] == family}
        yield from _refilled(ALLOWED[family], more, fewer, now)


def _refilled(name: str, more: Elements, less: Elements, now: float) -> Iterator[str]:
    """Empty a set of blocks and fill it again: nft looks each one up in all of them otherwise."""
    if not more and not less:
        return
    objects = _list(f"set inet {TABLE} {name}")
    if objects is None:
        raise _Missing(f"nftables: {_MEANINGS[_GONE]}")
    # What is left is given in full seconds, those begun not counted: nothing may end too early.
    held = nftjson.elements_of(objects, name, now + 1)
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


class _Missing(FirewallError):
    """Something that was to be changed is not there."""


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
    done = run(["nft", "-j", *words], fed)
    if done.status == 0:
        return done.out
    raise _trouble(done.err)


def _trouble(said: str) -> FirewallError:
    for words, meaning in _MEANINGS.items():
        if words in said:
            return (_Missing if words == _GONE else FirewallError)(f"nftables: {meaning}")
    first = next((line for line in said.splitlines() if "rror" in line), "it gives no reason")
    return FirewallError(f"nftables: nft failed: {first.strip()[:160]}")
