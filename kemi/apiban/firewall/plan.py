"""The difference between what the kernel holds and what it should hold, and when to look again."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from apiban.firewall.elements import Change, Elements, Held, Wanted

__all__ = ["LINGER", "MARGIN", "SLACK", "after", "alive", "due", "plan"]

# A ban that shall last longer is extended as soon as so little is left of it in the kernel,
# whatever else holds: in seconds, and more than two of the client's looks at ends are apart.
MARGIN: Final = 150.0
# What the kernel tells of an end is good to so many seconds.
SLACK: Final = 3
# The kernel counts from when it was told, in full seconds: so long after its end a ban is surely
# over there as well.
LINGER: Final = 30.0


def plan(wanted: Wanted, held: Held | None, *, now: float) -> Change:
    """Give the least that makes the kernel hold what it should.

    Feeds renew their entries all the time: a later end is only given to the kernel when less than
    half of what is wanted is left there, or ``MARGIN`` (see ``due``); a nearer one at once.
    Where nothing is held, or rules or sets are others, all of it is made anew.
    """
    if held is None or not held.intact:
        alive = {block: end for block, end in wanted.banned.items() if now < end}
        return Change(add=alive, allow=wanted.allowed, rebuild=True)
    add: Elements = {}
    extend: Elements = {}
    ends = held.banned
    for block, end in wanted.banned.items():
        if end <= now:
            continue
        known = ends.get(block)
        if known is None:
            add[block] = end
        elif known <= now:
            # It may be there for a moment yet, and then an older kernel takes no other end for it
            # by adding alone.
            extend[block] = end
        elif known != end and (end < known - SLACK or _is_due(known, end, now)):
            extend[block] = end
    remove = frozenset(block for block in ends.keys() - wanted.banned.keys() if now < ends[block])
    # An end that is over by our clock while the kernel counts on: it goes as well.
    over = frozenset(
        block
        for block in ends.keys() & wanted.banned.keys()
        if wanted.banned[block] <= now < ends[block] - SLACK
    )
    return Change(
        add=add,
        extend=extend,
        remove=remove | over,
        allow=wanted.allowed - held.allowed,
        disallow=held.allowed - wanted.allowed,
    )


def _is_due(known: int, end: int, now: float) -> bool:
    return known < end and (2 * (known - now) < end - now or known - now < MARGIN)


def due(wanted: Wanted, held: Held, *, now: float) -> float | None:
    """Give when ``plan`` has the first end to extend, in seconds since 1970; None: never.

    It need not be asked at once: half of a ban, or ``MARGIN``, is left then.
    """
    known = held.banned
    found = (
        min(2 * known[block] - end, known[block] - MARGIN)
        for block, end in wanted.banned.items()
        if now < known.get(block, end) < end
    )
    return min(found, default=None)


def alive(held: Held, now: float) -> Held:
    """Leave out what the kernel has surely ended itself."""
    over = now - LINGER
    if all(over < end for end in held.banned.values()):
        return held
    return replace(held, banned={one: end for one, end in held.banned.items() if over < end})


def after(held: Held | None, change: Change) -> Held:
    """Give what the kernel holds once a change was carried out."""
    if held is None or change.rebuild:
        return Held(dict(change.add), change.allow, intact=True)
    banned = {**held.banned, **change.add, **change.extend}
    for block in change.remove:
        banned.pop(block, None)
    return Held(banned, held.allowed - change.disallow | change.allow, intact=True)
