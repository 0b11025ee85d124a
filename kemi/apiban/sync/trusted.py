"""Keeps whom Kamailio itself trusts in the store's allow list.

The rtimer process writes what its modules said (``peers.py``); host names among it are looked up
here, every five minutes. What is not known any more (a module that does not answer, a name that
does not resolve) stays allowed: an outage must not cut a trunk off.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Final

from apiban.address import Network, parse_network
from apiban.clock import Clock
from apiban.errors import AddressError
from apiban.log import Log
from apiban.settings import FileWatch, Settings
from apiban.store import Store
from apiban.sync.names import Names, ThreadNames
from apiban.sync.peers import MODULES, Peers, peers_path, read_peers

__all__ = ["TrustedPeers"]

_NAMES_EVERY: Final = 300.0
_NAMES_RETRY: Final = 30.0


class TrustedPeers:
    """Brings the allow list's sources ``dispatcher`` and ``permissions`` up to date."""

    def __init__(
        self, *, clock: Clock, log: Log, make_names: Callable[[], Names] = ThreadNames
    ) -> None:
        self._clock = clock
        self._log = log
        self._names = make_names()
        self._watch: FileWatch | None = None
        self._peers: Peers | None = None
        self._resolved: dict[str, frozenset[Network]] = {}  # the last good answer of each name
        self._asked: frozenset[str] = frozenset()
        self._names_from = 0.0
        self._done_for: tuple[Store, Settings] | None = None
        self._refused: set[tuple[str, Network]] = set()

    def tick(self, store: Store, settings: Settings) -> bool:
        """Do what is due; tell whether the allow list was changed.

        Raises:
            StoreError

        """
        if self._read(settings):
            self._done_for = None
        if self._look_up(settings):
            self._done_for = None
        if self._done_for == (store, settings):
            return False
        changed = False
        for module in MODULES:
            networks = self._networks(module, store, settings)
            if networks is not None and store.set_allowed(module, networks, now=self._clock.now()):
                changed = True
                self._log("trusted", source=module, networks=len(networks))
        self._done_for = (store, settings)
        return changed

    def _read(self, settings: Settings) -> bool:
        """Read what the rtimer process wrote, when it is new."""
        path = peers_path(settings.paths.runtime)
        first = self._watch is None
        if self._watch is None:
            self._watch = FileWatch(path)
        if not (self._watch.changed() or first):
            return False
        peers = read_peers(path)
        if peers is None:
            return False
        self._peers = peers
        return True

    def _look_up(self, settings: Settings) -> bool:
        """Have names looked up that are due; tell whether an answer is another than before."""
        peers, now = self._peers, self._clock.uptime()
        found = self._names.found() or {}
        if not all(found.values()):
            self._names_from = min(self._names_from, now + _NAMES_RETRY)
        news = {
            name: networks
            for name, networks in found.items()
            if networks and networks != self._resolved.get(name)
        }
        self._resolved.update(news)
        if peers is None or "dispatcher" not in settings.allow.from_kamailio:
            return bool(news)
        names = frozenset(name for name in peers.dispatcher or {} if _is_name(name))
        due = now >= self._names_from or not names <= self._asked
        if names and due and self._names.look_up(sorted(names)):
            self._names_from = now + _NAMES_EVERY
            self._asked = names
        return bool(news)

    def _networks(self, module: str, store: Store, settings: Settings) -> dict[Network, str] | None:
        """Give what a module allows, each with its reason; None when that is not known."""
        if module not in settings.allow.from_kamailio:
            return {}
        said = None if self._peers is None else self._peers.of(module)
        if said is None:
            return None
        found: dict[Network, str] = {}
        for text, why in said.items():
            for network, reason in self._read_one(module, text, why, store).items():
                if self._may_allow(module, network, settings):
                    found.setdefault(network, reason)
        return found

    def _read_one(self, module: str, text: str, why: str, store: Store) -> Mapping[Network, str]:
        if not _is_name(text):
            return {_network(text): why}
        if module != "dispatcher":
            return {}  # permissions compares a name with the source's text: it never matches
        reason = f"{why}: {text}"
        if text in self._resolved:
            return dict.fromkeys(self._resolved[text], reason)
        # Not resolved since this process began: what an earlier one found is still the best known.
        return {
            one.network: reason
            for one in store.allow_list()
            if one.source == module and one.reason.endswith(f": {text}")
        }

    def _may_allow(self, module: str, network: Network, settings: Settings) -> bool:
        """Refuse what would switch the protection off for a good part of the internet."""
        feed = settings.feed
        widest = feed.widest_ipv4 if network.family == 4 else feed.widest_ipv6
        if network.prefix >= widest:
            return True
        if (module, network) not in self._refused:
            self._refused.add((module, network))
            self._log(
                "trusted-refused",
                source=module,
                network=network,
                reason=f"broader than /{widest}",
                effect="not allowed; allow.networks can allow it",
            )
        return False


def _network(text: str) -> Network:
    """Read an address or a network as permissions does: bits beyond the prefix do not count."""
    host, slash, prefix = text.partition("/")
    return parse_network(
        str(ipaddress.ip_network((host, int(prefix)), strict=False)) if slash else text
    )


def _is_name(text: str) -> bool:
    try:
        _network(text)
    except (AddressError, ValueError):
        return True
    return False
