"""Lists of any length: the addresses, and a node's files for them, made once and copied."""

from __future__ import annotations

import ipaddress
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from apiban.address import Network, parse_address
from apiban.bench.flood import sources
from apiban.gate import Board
from apiban.settings import load_settings
from apiban.settings.model import Settings
from apiban.snapshot import load_snapshot
from apiban.snapshot.publish import Publisher, durable_path
from apiban.store import FEED_SOURCE, FeedState, Store

__all__ = ["CROWD", "CROWDING", "FEW", "FLOOD", "FLOODING", "LISTED", "LONGEST", "UNLISTED"]
__all__ += ["Listing", "address", "addresses", "unlisted"]

# Sources on loopback, as the flood's program names them and one by one: a few that are listed,
# those on every list that grows, more than the front takes, and some that nobody lists.
FEW: Final = "127.0.9.1-50"
LISTED: Final = tuple(sources(FEW))
FLOOD: Final = "127.0.9.1-200"
FLOODING: Final = tuple(sources(FLOOD))
CROWD: Final = ",".join(f"127.12.{number}.1-250" for number in range(32))
CROWDING: Final = tuple(sources(CROWD))
UNLISTED: Final = "127.0.10.1-50"

_LOW: Final = 1 << 15
LONGEST: Final = 64 * _LOW
_LISTED_FOR: Final = 7 * 86400.0


def address(number: int) -> str:
    """Give the listed address of a number below ``LONGEST``; each number has one of its own.

    They look random, so that a hash table's slots fill evenly; no two are neighbours, which a
    snapshot would make one range. kamailio/bench/recipe-sync.cfg has the same formula, within the
    31 bits that Kamailio reckons in.
    """
    high, low = divmod(number, _LOW)
    a = 20 + (low * 29 // 11 + high) % 64
    b = (low * 181 // 13 + high * 37) % 256
    low = low * 24593 % _LOW
    return f"{a}.{b}.{low // 128}.{low % 128 * 2 + 1}"


def unlisted(number: int) -> str:
    """Give an address that is on no list: the one before a listed one."""
    return str(ipaddress.IPv4Address(address(number)) - 1)


def addresses(first: int, count: int) -> list[str]:
    """Give the addresses of a stretch of numbers."""
    return [address(number) for number in range(first, first + count)]


@dataclass(frozen=True, slots=True)
class Listing:
    """A node's state folder with a list of ``ranges`` addresses, and the flood's sources.

    The feed's sync stands at the end of the list, as of the feed that ``settings`` name.
    """

    ranges: int
    folder: Path
    settings: Settings

    @classmethod
    def make(cls, folder: Path, ranges: int, feed_settings: str = "") -> Listing:
        """Write the store. ``feed_settings`` is the ``[feed]`` section of the nodes' TOML."""
        (folder / "state").mkdir(parents=True)
        (folder / "runtime").mkdir()
        path = folder / "apiban.toml"
        paths = f'[paths]\nstate = "{folder}/state"\nruntime = "{folder}/runtime"\n'
        path.write_text(f"{feed_settings}\n{paths}", encoding="utf-8")
        path.chmod(0o600)
        settings = load_settings(path, {})
        now = time.time()
        state = FeedState(
            settings.feed.identity,
            cursor="100",
            complete_at=now,
            pass_number=1,
            pass_ended=now,
        )
        with Store(folder / "state" / "store.db") as store:
            store.record_page(
                FEED_SOURCE,
                list(_networks((*addresses(0, ranges), *FLOODING))),
                listed=now,
                expires=now + _LISTED_FOR,
                state=state,
            )
        return cls(ranges, folder, settings)

    def publish(self) -> None:
        """Compile the store and write the snapshot's files, as a node's sync does."""
        publisher = Publisher(Board.unnamed(now=0), lambda *_, **__: None)
        with self.open() as store:
            publisher.publish(store, self.settings, (), now=time.time())

    @property
    def generation(self) -> int:
        """The generation that was published last; nodes begin with it."""
        return load_snapshot(durable_path(self.settings.paths.state)).generation

    def open(self) -> Store:
        """Open the store; the caller closes it."""
        return Store(self.folder / "state" / "store.db")

    def copy_to(self, node: Path) -> None:
        """Give a node that does not run yet this list; it starts from the snapshot, if any."""
        shutil.copytree(self.folder / "state", node / "state")


def _networks(texts: Iterable[str]) -> Iterator[Network]:
    return (parse_address(text) for text in texts)
