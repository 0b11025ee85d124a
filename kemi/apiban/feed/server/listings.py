"""What is active, as clients see it: pages by ID, the check of one address, the whole list.

An address is looked up as itself and as each network that could cover it: its text and at most
128 more are keys, so that no look-up depends on how many networks are listed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

from sqlalchemy import Select, func, select, union_all

from apiban.address import Network
from apiban.feed.answer import LARGEST_PAGE
from apiban.feed.server.database import Database
from apiban.feed.server.database.schema import listing

__all__ = ["DATASETS", "Listed", "Listings", "View", "covering", "kind_of", "subscriber_of"]

DATASETS: Final = ("sip", "http")

_WHOLE_LIST_STEP: Final = 5000


@dataclass(frozen=True, slots=True)
class View:
    """What a key may see of the list, and which data set it asks for ("sip", "http" or "all")."""

    dataset: str = "sip"
    blocks: bool = False
    ipv6: bool = False

    @property
    def kinds(self) -> tuple[int, ...]:
        """The kinds of listings that it holds."""
        return tuple(
            kind
            for kind in range(4)
            if (self.ipv6 or not kind & 1) and (self.blocks or not kind & 2)
        )

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets that it holds."""
        return DATASETS if self.dataset == "all" else (self.dataset,)


@dataclass(frozen=True, slots=True)
class Listed:
    """One active listing."""

    number: int
    address: str


def kind_of(network: Network) -> int:
    """Give 0 for an IPv4 host, 1 for an IPv6 host, 2 and 3 for their blocks."""
    return (network.family == 6) + 2 * (not network.is_host)


def subscriber_of(network: Network) -> Network | None:
    """Give the network of 64 bits that an IPv6 host is in; None for everything else."""
    if network.family == 4 or not network.is_host:
        return None
    first = network.first >> 64 << 64
    return Network(6, first, first | (1 << 64) - 1)


class Listings:
    """Reads the list; who changes it is ``Claims``."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now

    def after(self, cursor: int, view: View, *, size: int = LARGEST_PAGE) -> list[Listed]:
        """Give up to ``size`` listings with an ID above ``cursor``, oldest first.

        Raises:
            StoreError

        """
        # A piece for each kind is a walk along an index, however many of the others lie between.
        pieces = [
            self._piece(cursor, dataset, kind, size)
            for dataset in view.datasets
            for kind in view.kinds
        ]
        both = union_all(*(select(piece.subquery()) for piece in pieces)).subquery()
        query = select(both.c.id, both.c.address).order_by(both.c.id).limit(size)
        with self._database.read() as connection:
            return [Listed(*row) for row in connection.execute(query)]

    def _piece(self, cursor: int, dataset: str, kind: int, size: int) -> Select[tuple[int, str]]:
        return (
            select(listing.c.id, listing.c.address)
            .where(
                listing.c.dataset == dataset,
                listing.c.kind == kind,
                listing.c.id > cursor,
                listing.c.expires > self._now(),
            )
            .order_by(listing.c.id)
            .limit(size)
        )

    def find(self, address: Network, view: View) -> Listed | None:
        """Give the listing that covers a host address, the narrowest one, or None.

        Raises:
            StoreError

        """
        if address.family == 6 and not view.ipv6:
            return None
        query = select(listing.c.id, listing.c.address).where(
            listing.c.address.in_(covering(address) if view.blocks else [str(address)]),
            listing.c.dataset.in_(view.datasets),
            listing.c.expires > self._now(),
        )
        with self._database.read() as connection:
            found = [Listed(*row) for row in connection.execute(query)]
        return max(found, key=lambda one: (_prefix(one.address), one.number), default=None)

    def whole(self, view: View) -> Iterator[str]:
        """Give every address, each once.

        Raises:
            StoreError

        """
        return chain.from_iterable(self.pieces(view))

    def pieces(self, view: View) -> Iterator[list[str]]:
        """Give every address, each once, in lists of a few thousand.

        Raises:
            StoreError

        """
        cursor = 0
        several = len(view.datasets) > 1  # an address may be in each
        seen: set[str] = set()
        while page := self.after(cursor, view, size=_WHOLE_LIST_STEP):
            cursor = page[-1].number
            piece = [one.address for one in page]
            if several:
                piece = [one for one in dict.fromkeys(piece) if one not in seen]
                seen.update(piece)
            if piece:
                yield piece

    def count(self) -> int:
        """Give how many listings there are.

        Raises:
            StoreError

        """
        with self._database.read() as connection:
            return int(connection.execute(select(func.count()).select_from(listing)).scalar_one())


def _prefix(text: str) -> int:
    _, slash, prefix = text.partition("/")
    return int(prefix) if slash else 128


def covering(network: Network) -> list[str]:
    """Give the texts of a network and of every one that holds it."""
    width = 32 if network.family == 4 else 128
    number: type[ipaddress.IPv4Address | ipaddress.IPv6Address] = (
        ipaddress.IPv4Address if network.family == 4 else ipaddress.IPv6Address
    )
    blocks = (
        f"{number(network.first >> (width - size) << (width - size))}/{size}"
        for size in range(1, network.prefix)
    )
    return [str(network), *blocks]
