"""Whether an address is banned, and exactly why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apiban.address import Network
from apiban.settings.model import Mode, Settings
from apiban.snapshot.format import FOREVER
from apiban.store import Entry, Store
from apiban.verdict.exempt import Exemption, exemptions

__all__ = ["Listing", "Verdict", "explain", "until"]


@dataclass(frozen=True, slots=True)
class Listing:
    """An entry that holds the address. Times are in seconds since 1970, None is for good.

    ``expires`` is the entry's own end, ``ends`` that of its ban: the feed's entries are enforced
    for ``feed.stale_max`` longer, unless it gives a complete answer that does not renew them.
    """

    entry: Entry
    expires: float | None
    ends: float | None
    in_force: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the store and the settings say of an address.

    ``mode`` is the mode in force; what saves the address is in ``exemptions``. Whether the workers
    have this list already is not theirs to say.
    """

    address: Network
    mode: Mode
    listings: tuple[Listing, ...]
    exemptions: tuple[Exemption, ...]

    @property
    def listed(self) -> bool:
        """Whether any entry that holds it is in force."""
        return any(one.in_force for one in self.listings)

    @property
    def banned(self) -> bool:
        """Whether it is listed, and nothing saves it."""
        return self.listed and not self.exemptions

    @property
    def dropped(self) -> bool:
        """Whether its packets are dropped: it is banned, and the mode is enforce."""
        return self.banned and self.mode is Mode.ENFORCE

    @property
    def expires(self) -> float | None:
        """When the ban ends: the longest listing wins. None is for good.

        It may be past, see ``Listing``, and has a meaning only while the address is listed.
        """
        return _latest([one.expires for one in self.listings if one.in_force])

    @property
    def ends(self) -> float | None:
        """When the ban ends at the latest, should the feed stay silent from now on."""
        return _latest([one.ends for one in self.listings if one.in_force])


def explain(  # noqa: PLR0913 - each is one thing that the verdict rests on
    address: Network,
    *,
    settings: Settings,
    own: Sequence[Network],
    store: Store,
    now: float,
    mode: Mode,
) -> Verdict:
    """Tell whether a host's address is banned: by which entries, and what saves it.

    Raises:
        StoreError: the store cannot be read.

    """
    grace = settings.feed.stale_max
    return Verdict(
        address,
        mode,
        tuple(_listing(entry, grace, now) for entry in store.touching(address)),
        tuple(exemptions(address, settings=settings, own=own, store=store, now=now)),
    )


def until(expires: float) -> float | None:
    """Give an entry's end; None when it is for good."""
    return None if expires >= FOREVER else expires


def _latest(ends: Sequence[float | None]) -> float | None:
    known = [end for end in ends if end is not None]
    return max(known) if known and len(known) == len(ends) else None


def _listing(entry: Entry, grace: float, now: float) -> Listing:
    end = entry.ends(grace)
    return Listing(entry, until(entry.expires), until(end), now < end)
