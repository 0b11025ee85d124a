"""A kernel in memory: sets whose elements end by a clock, rules, counters, and others' hands."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from apiban.clock import Clock
from apiban.errors import FirewallError
from apiban.firewall.elements import Block, Change, Counter, Elements, Held
from apiban.firewall.rules import Rules


class MemoryKernel:
    """What a backend works on; ``generation`` counts every change of anybody."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.generation = 0
        self.frame = 0  # counts what changes the rules
        self.rules: Rules | None = None
        self.banned: Elements = {}
        self.allowed: frozenset[Block] = frozenset()
        self.packets: dict[str, Counter] = {}

    def alive(self) -> Elements:
        """Give the bans that have not ended."""
        now = self.clock.now()
        return {block: end for block, end in self.banned.items() if now < end}

    def flush(self) -> None:
        """Take all out, as somebody else's ``nft flush ruleset`` does."""
        self.generation += 1
        self.frame += 1
        self.rules, self.banned, self.allowed, self.packets = None, {}, frozenset(), {}

    def drops(self, name: str, packets: int) -> None:
        """Let so many packets of 100 bytes more be dropped by a set."""
        old = self.packets.get(name, Counter(0, 0))
        self.packets[name] = Counter(old.packets + packets, old.bytes + 100 * packets)


class MemoryBackend:
    """A backend on it, as the Protocol says; ``broken`` is what each of its calls fails with."""

    name = "memory"

    def __init__(self, kernel: MemoryKernel, *, count_every: float = 2.0) -> None:
        self.kernel = kernel
        self.count_every = count_every
        self.broken = ""
        self.applied: list[Change] = []
        self.right_after: Callable[[], None] = lambda: None  # what others do then
        self.reads = 0
        self.reading: Callable[[], None] = lambda: None  # what happens while it reads
        self.counted = 0
        self.refused = 0

    def mark(self) -> object:
        """Give the number of the last change."""
        self._must_work()
        return self.kernel.generation

    def frame(self) -> object:
        """Give the number of the last change of the rules; None when they are not there."""
        self._must_work()
        return None if self.kernel.rules is None else self.kernel.frame

    def read(self, rules: Rules, *, now: float) -> Held | None:
        """Give what is there, ends as the kernel tells them: in whole seconds that are left."""
        self._must_work()
        self.reads += 1
        self.reading()
        kernel = self.kernel
        if kernel.rules is None:
            return None
        banned = {block: int(now + int(end - now)) for block, end in kernel.alive().items()}
        return Held(banned, kernel.allowed, kernel.rules == rules)

    def apply(self, change: Change, rules: Rules, *, now: float, since: object = None) -> object:
        """Carry a change out; a change that does not fit what is there is none of ours."""
        self._must_work()
        kernel, before = self.kernel, self.kernel.generation
        if change.rebuild:
            kernel.frame += 1
            kernel.rules, kernel.banned, kernel.allowed = rules, {}, frozenset()
            kernel.packets = {"ipv4": Counter(0, 0), "ipv6": Counter(0, 0)}
        assert kernel.rules == rules
        held = kernel.alive()
        assert not change.add.keys() & held.keys()
        assert change.extend.keys() <= kernel.banned.keys()
        for block, end in {**change.add, **change.extend}.items():
            assert now < end
            held[block] = end
        for block in change.remove:
            held.pop(block, None)
        kernel.banned = held
        kernel.allowed = kernel.allowed - change.disallow | change.allow
        kernel.generation += 1
        self.applied.append(change)
        self.right_after()
        return before + 1 if before == since else None

    def counters(self) -> Mapping[str, Counter]:
        """Give the counters."""
        self._must_work()
        self.counted += 1
        return dict(self.kernel.packets)

    def remove(self) -> None:
        """Take out all that is ours."""
        self._must_work()
        self.kernel.flush()

    def script(self, change: Change, rules: Rules, *, now: float) -> str:
        """Give a line."""
        return f"rebuild {change.rebuild} {rules.hooks} {now:.0f} {len(change.add)}\n"

    def _must_work(self) -> None:
        if self.broken:
            self.refused += 1
            raise FirewallError(self.broken)
