"""A backend that changes nothing: it says what it would do, and remembers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from apiban.address import Network
from apiban.errors import FirewallError
from apiban.firewall.elements import FOREVER, Block, Change, Counter, Elements, Held
from apiban.firewall.rules import Rules

__all__ = ["DryRunBackend"]

# More lines than this of one kind are summed up when they are said, not in a script.
_FEW: Final = 20


class DryRunBackend:
    """Holds in memory what the kernel would hold; ``say`` gets each line of what would be done."""

    name = "dry-run"
    count_every = 10.0

    def __init__(self, *, say: Callable[[str], None] = print) -> None:
        self._say = say
        self._banned: Elements = {}
        self._allowed: frozenset[Block] = frozenset()
        self._rules: Rules | None = None
        self._changes = 0

    def mark(self) -> object:
        """Give the number of changes: nobody else makes any."""
        return self._changes

    def frame(self) -> None:
        """Give nothing: a reading costs nothing."""

    def read(self, rules: Rules, *, now: float) -> Held | None:
        """Give what would be held by now."""
        if self._rules is None:
            return None
        alive = {block: end for block, end in self._banned.items() if now < end}
        return Held(alive, self._allowed, intact=rules == self._rules)

    def apply(
        self,
        change: Change,
        rules: Rules,
        *,
        now: float,
        since: object = None,  # noqa: ARG002 - nobody else is at it
    ) -> object:
        """Say what a change would do, and hold it."""
        if not change:
            return self.mark()
        if self._rules is None and not change.rebuild:
            raise FirewallError("dry-run: nothing is held that could be changed")
        for line in _lines(change, rules, most=_FEW):
            self._say(line)
        if change.rebuild:
            self._rules, self._banned, self._allowed = rules, {}, frozenset()
        self._banned = {
            block: end
            for block, end in (self._banned | change.add | change.extend).items()
            if now < end and block not in change.remove
        }
        self._allowed = self._allowed - change.disallow | change.allow
        self._changes += 1
        return self.mark()

    def counters(self) -> Mapping[str, Counter]:
        """Give nothing: no packet is seen."""
        return {"ipv4": Counter(0, 0), "ipv6": Counter(0, 0)}

    def remove(self) -> None:
        """Say that all would be taken out, when there is anything."""
        if self._rules is None:
            return
        self._say("would take out all rules and sets of ours")
        self._banned, self._allowed, self._rules = {}, frozenset(), None
        self._changes += 1

    def script(self, change: Change, rules: Rules, *, now: float) -> str:  # noqa: ARG002 - ends are absolute here
        """Give what ``apply`` would say, each address on a line of its own."""
        return "".join(f"{line}\n" for line in _lines(change, rules, most=None))


def _lines(change: Change, rules: Rules, *, most: int | None) -> Iterator[str]:
    if change.rebuild:
        ports = " ".join(map(str, rules.ports)) or "all"
        interfaces = " ".join(rules.interfaces) or "all"
        yield (
            f"would make all anew: {'drop' if rules.drops else 'count'} at {' '.join(rules.hooks)},"
            f" ports {ports}, interfaces {interfaces}, established {rules.established}"
        )
    yield from _some("allow", _texts(change.allow), most)
    yield from _some("ban", _ends(change.add), most)
    yield from _some("ban longer, or shorter:", _ends(change.extend), most)
    yield from _some("unban", _texts(change.remove), most)
    yield from _some("allow no more:", _texts(change.disallow), most)


def _some(verb: str, what: list[str], most: int | None) -> Iterator[str]:
    yield from (f"would {verb} {one}" for one in what[:most])
    if most is not None and len(what) > most:
        yield f"would {verb} {len(what) - most} more"


def _texts(blocks: Iterable[Block]) -> list[str]:
    return [str(Network(*block)) for block in sorted(blocks)]


def _ends(elements: Elements) -> list[str]:
    return [f"{Network(*block)} {_until(end)}" for block, end in sorted(elements.items())]


def _until(end: int) -> str:
    if end == FOREVER:
        return "for good"
    return f"until {datetime.fromtimestamp(end, UTC):%Y-%m-%dT%H:%M:%SZ}"
