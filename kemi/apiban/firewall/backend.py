"""What every backend does: nftables, ipset, and the dry run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from apiban.firewall.elements import Change, Counter, Held
from apiban.firewall.rules import Rules

__all__ = ["Backend"]


class Backend(Protocol):
    """One way into the kernel, for sets and rules of our own; what others made stays untouched.

    Each method raises FirewallError with one line that names what is missing, and the fix: the
    program, the privilege (CAP_NET_ADMIN), the kernel's module. The kernel is as before then; of a
    change that did not go in as a whole, a part may be done.
    """

    name: str
    count_every: float  # seconds between two askings for the counters, by what one costs

    def mark(self) -> object:
        """Give something that is equal to an earlier one only if nobody changed any rule since.

        None when this is not known. It costs next to nothing, whatever the list's length.
        """
        ...

    def frame(self) -> object:
        """Give something that is equal to an earlier one only if the rules are the same ones.

        Unlike the mark it stays when others change their own rules, or what is in our sets. None
        when this is not known. It costs next to nothing, whatever the list's length.
        """
        ...

    def read(self, rules: Rules, *, now: float) -> Held | None:
        """Give what the kernel holds; None when nothing of ours is there.

        ``rules`` are those that should be there: others are not ``intact``.
        """
        ...

    def apply(self, change: Change, rules: Rules, *, now: float, since: object = None) -> object:
        """Carry a change out: all of it, or nothing, and without an instant of no protection.

        Gives the mark that the kernel has if nobody else was at it from the mark ``since`` on,
        this change included; None where somebody may have been. Whoever comes later makes another
        mark than this one.
        """
        ...

    def counters(self) -> Mapping[str, Counter]:
        """Give what was dropped (or counted, in shadow mode) by set: "ipv4" and "ipv6".

        Nothing where it is known that nothing of ours is there.
        """
        ...

    def remove(self) -> None:
        """Take out all that is ours; nothing happens when nothing is there."""
        ...

    def script(self, change: Change, rules: Rules, *, now: float) -> str:
        """Give what ``apply`` would feed to the kernel's tool, for people."""
        ...
