"""The allow list: who is saved from every ban."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from apiban.address import Network
from apiban.store.file import StoreFile, blocks_around, key
from apiban.store.file import network as named
from apiban.store.records import OPERATOR, Allowed

__all__ = ["AllowList"]

_SELECT = "SELECT family, first, last, source, reason, added, expires FROM allow "


class AllowList(StoreFile):
    """The table of allowed networks. Several sources may allow the same network."""

    def allow(
        self,
        networks: Iterable[Network],
        *,
        reason: str,
        now: float,
        expires: float | None = None,
        source: str = OPERATOR,
    ) -> None:
        """Save networks from every ban, until ``expires`` or for good, in one transaction."""
        once = dict.fromkeys(networks)
        with self._transaction():
            for one in once:
                self._db.execute(
                    "INSERT OR REPLACE INTO allow VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (*key(one), source, reason, now, expires),
                )
                self._note(now, "allowed", source, str(one))

    def unallow(
        self, networks: Iterable[Network], *, now: float, source: str = OPERATOR
    ) -> list[Network]:
        """Take networks off a source's allow list; give those that were on it."""
        once = dict.fromkeys(networks)
        gone = []
        with self._transaction():
            for one in once:
                found = self._db.execute(
                    "DELETE FROM allow WHERE family = ? AND first = ? AND last = ? AND source = ?",
                    (*key(one), source),
                ).rowcount
                if found:
                    gone.append(one)
                    self._note(now, "no longer allowed", source, str(one))
        return gone

    def set_allowed(self, source: str, networks: Mapping[Network, str], *, now: float) -> bool:
        """Make ``networks``, each with its reason, all that a source allows; tell of a change."""
        with self._transaction():
            held = {
                named(*row[:3]): row[3]
                for row in self._db.execute(
                    "SELECT family, first, last, reason FROM allow WHERE source = ?", (source,)
                )
            }
            if held == networks:
                return False
            for one in held.keys() - networks.keys():
                self._db.execute(
                    "DELETE FROM allow WHERE family = ? AND first = ? AND last = ? AND source = ?",
                    (*key(one), source),
                )
                self._note(now, "no longer allowed", source, str(one))
            for one, reason in networks.items():
                if held.get(one) != reason:
                    self._db.execute(
                        "INSERT OR REPLACE INTO allow VALUES (?, ?, ?, ?, ?, ?, NULL)",
                        (*key(one), source, reason, now),
                    )
                    self._note(now, "allowed", source, str(one))
        return True

    def remove_ended_allowed(self, now: float) -> int:
        """Remove the entries whose time is over; give how many went."""
        if not self._number("SELECT EXISTS (SELECT 1 FROM allow WHERE expires <= ?)", now):
            return 0
        with self._transaction():
            gone = self._db.execute(
                "DELETE FROM allow WHERE expires <= ? RETURNING source, family, first, last", (now,)
            ).fetchall()
            for source, *row in gone:
                self._note(now, "no longer allowed", source, str(named(*row)))
        return len(gone)

    def next_allow_end(self, now: float) -> float | None:
        """Give when the next entry of the allow list ends, in seconds since 1970."""
        with self._errors():
            (end,) = self._db.execute(
                "SELECT min(expires) FROM allow WHERE expires > ?", (now,)
            ).fetchone()
        return None if end is None else float(end)

    def allowed(self, now: float) -> list[Network]:
        """Give the networks of the allow list that are in force."""
        with self._errors():
            rows = self._db.execute(
                "SELECT DISTINCT family, first, last FROM allow"
                " WHERE expires IS NULL OR ? < expires",
                (now,),
            ).fetchall()
        return [named(*row) for row in rows]

    def allow_list(self) -> list[Allowed]:
        """Give the whole allow list, in the order of its addresses."""
        return self._allowed(_SELECT + "ORDER BY family, first, last, source")

    def allowing(self, network: Network) -> list[Allowed]:
        """Give the entries that have an address in common with this network, widest first."""
        found = []
        for block in blocks_around(network):
            found += self._allowed(
                _SELECT + "WHERE family = ? AND first = ? AND last = ?",
                *key(block),
            )
        family, first, last = key(network)
        found += self._allowed(
            _SELECT + "WHERE family = ? AND first BETWEEN ? AND ? AND last <= ?"
            " ORDER BY first, last DESC",
            *(family, first, last, last),
        )
        return found

    def _allowed(self, query: str, *values: object) -> list[Allowed]:
        with self._errors():
            rows = self._db.execute(query, values).fetchall()
            return [Allowed(named(*row[:3]), *row[3:]) for row in rows]
