"""Who is saved from a ban, asked about many networks: each costs a few look-ups, not a scan."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from apiban.address import Family, Network
from apiban.verdict.exempt import Exemption

__all__ = ["Saved"]


class Saved:
    """Exemptions by their networks, all of which are CIDR blocks."""

    def __init__(self, exemptions: Iterable[Exemption]) -> None:
        self._at: dict[Network, list[Exemption]] = {}
        for one in exemptions:
            self._at.setdefault(one.network, []).append(one)
        self._sorted = sorted(self._at)
        prefixes = sorted({(one.family, one.prefix) for one in self._sorted})
        self._prefixes: dict[Family, list[int]] = {4: [], 6: []}
        for family, prefix in prefixes:
            self._prefixes[family].append(prefix)

    def at(self, network: Network) -> list[Exemption]:
        """Give the exemptions of just this network."""
        return self._at.get(network, [])

    def around(self, network: Network) -> list[Exemption]:
        """Give those that save all of a network, widest first."""
        found: list[Exemption] = []
        width = 32 if network.family == 4 else 128
        own = network.prefix
        for prefix in self._prefixes[network.family]:
            if prefix > own:
                break
            size = 1 << (width - prefix)
            first = network.first & -size
            found += self._at.get(Network(network.family, first, first + size - 1), ())
        return found

    def within(self, network: Network) -> list[Exemption]:
        """Give those inside a network, or of just it, in the order of their addresses."""
        found: list[Exemption] = []
        family, first, last = network.family, network.first, network.last
        for at in range(
            bisect_left(self._sorted, Network(family, first, first)), len(self._sorted)
        ):
            one = self._sorted[at]
            if one.family != family or one.first > last:
                break
            if one.last <= last:
                found += self._at[one]
        return found
