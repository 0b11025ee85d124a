"""Whom this Kamailio trusts by its own tables: dispatcher's destinations, permissions' addresses.

The rtimer process asks every ten seconds and hands the answer to the sync process, which keeps it
in the store's allow list: docs/adr/0015.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from apiban.clock import Clock
from apiban.kemi.rpc import RpcError, can_ask, fields_of, rpc
from apiban.log import Log
from apiban.settings import Settings
from apiban.settings.model import AllowSettings
from apiban.sync.peers import MODULES, Peers, peers_path, write_peers

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr

__all__ = ["Trusted"]

_EVERY: Final = 10.0
_LONGEST_WHY: Final = 80
# A host between the user and the port; an IPv6 address stands in brackets.
_URI: Final = re.compile(
    r"sips?:(?:[^@;?]*@)?(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<host>[^][:;?>@\s]+))", re.IGNORECASE
)


class Trusted:
    """Asks what the settings name; ``tick()`` is for the rtimer process alone."""

    def __init__(
        self, ksr: Ksr, *, clock: Clock, log: Log, settings: Callable[[], Settings]
    ) -> None:
        self._ksr = ksr
        self._clock = clock
        self._log = log
        self._settings = settings
        self._asked_for: AllowSettings | None = None
        self._from = 0.0
        self._written: Peers | None = None
        self._said = ""

    def tick(self) -> None:
        """Ask if it is time, or if the settings ask for something else."""
        settings, now = self._settings(), self._clock.uptime()
        if now < self._from and settings.allow == self._asked_for:
            return
        self._from = now + _EVERY
        self._asked_for = settings.allow
        troubles: list[str] = []
        peers = Peers(*(self._ask(module, settings.allow, troubles) for module in MODULES))
        path = peers_path(settings.paths.runtime)
        if peers != self._written or not path.exists():
            try:
                write_peers(path, peers)
                self._written = peers
            except OSError as error:
                troubles.append(f"{path}: {error.strerror}")
        self._say("; ".join(troubles))

    def _ask(self, module: str, allow: AllowSettings, troubles: list[str]) -> dict[str, str] | None:
        """Ask a module; one that is not loaded trusts nobody, one that fails is not known."""
        if module not in allow.from_kamailio or not hasattr(self._ksr, module):
            return {}
        if not can_ask(self._ksr):
            troubles.append(f"{module}: the module jsonrpcs is not loaded")
            return None
        try:
            if module == "dispatcher":
                return _destinations(rpc(self._ksr, "dispatcher.list"))
            methods = ["permissions.addressDump", "permissions.subnetDump"]
            if not allow.permissions_groups:  # the trusted table has no groups
                methods.append("permissions.trustedDump")
            return _addresses(
                [field for method in methods for field in fields_of(rpc(self._ksr, method))],
                allow.permissions_groups,
            )
        except RpcError as error:
            troubles.append(str(error))
            return None

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self._said:
            self._log("trusted-unknown", reason=trouble, effect="the last known ones stay allowed")
        self._said = trouble


def _destinations(result: object) -> dict[str, str]:
    """Find the hosts of all sets' URIs."""
    sets: dict[str, list[str]] = {}
    number = ""
    for name, value in fields_of(result):
        if name == "ID":
            number = str(value)
        elif name == "URI":
            match = _URI.match(str(value))
            if match is not None:
                known = sets.setdefault(match["six"] or match["host"], [])
                if number not in known:
                    known.append(number)
    return {host: f"set {' '.join(sorted(numbers))}" for host, numbers in sets.items()}


def _addresses(fields: Iterable[tuple[str, object]], groups: tuple[int, ...]) -> dict[str, str]:
    """Find the addresses and networks; no ``groups`` are all.

    An entry is its fields in a row: ``table`` or ``id``, ``group`` (the trusted table has none),
    ``ip``, ``mask`` for a network, and at last ``tag``.
    """
    found: dict[str, str] = {}
    entry: dict[str, object] = {}
    for name, value in fields:
        if name in {"table", "id"}:
            entry = {}
        entry[name] = value
        if name == "tag" and "ip" in entry and (not groups or entry.get("group") in groups):
            network = f"{entry['ip']}/{entry['mask']}" if "mask" in entry else str(entry["ip"])
            kind = f"group {entry['group']}" if "group" in entry else "trusted"
            tag = "" if value in {"", "NULL"} else f", {value}"
            found.setdefault(network, f"{kind}{tag}"[:_LONGEST_WHY])
    return found
