"""The local detector: who guesses passwords, tries users, says to be a scanner, or asks too often.

A rule is applied only to who proved that it receives our answers. TCP and TLS prove it by their
handshake. A UDP request proves it by a nonce that went out lately to exactly its address and port:
each request by itself, since the address of a phone that proved itself can be forged the next
moment. Some servers give one nonce to all who ask within a second, and who forges an address may
ask by another way than this: once a nonce went out to two addresses, none proves anything for a
day.

A source of which a phone registered within the last hour is an office, a home or a provider behind
one address. What one handset there does wrong does not cut the others off: only many different
failing users do, and wrong numbers that it dials are none.

What is counted is in memory that all workers share (``memory``); a fault or a race in counting
costs one count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from apiban.address import Network, parse_address
from apiban.errors import AddressError
from apiban.kemi.memory import Memory
from apiban.settings.model import DetectSettings

__all__ = ["Attempt", "Detector", "Proof"]

Proof = Literal["connection", "nonce", ""]
Tell = Callable[[str, Mapping[str, Any]], bool]

# A phone that registers by the hour comes back before it is over.
GOOD_FOR: Final = 3600.0
_TOLD_FOR: Final = 60.0  # the ban is in force long before
_REFUSED: Final = frozenset({401, 403, 407})
_SEARCHED: Final = frozenset({"REGISTER", "INVITE", "OPTIONS"})
_SHARED: Final = 0
_SHARES: Final = "the server gives a nonce to several"
_PORT: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request from outside, as far as the detector cares.

    ``user`` is whose credentials it has, else whom it asks for; ``agent`` is its User-Agent;
    ``proof`` is empty when its source may be forged.
    """

    method: str
    transport: str
    source: str
    port: int
    proof: Proof
    with_credentials: bool
    user: str
    agent: str

    def to_text(self) -> str:
        """Give a text of printable ASCII that ``from_text`` reads."""
        parts = (self.method, self.transport, self.source, self.port, self.proof)
        return json.dumps((*parts, self.with_credentials, self.user, self.agent))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what ``to_text`` gave; raise ValueError or TypeError for anything else."""
        return cls(*json.loads(text))


class Detector:
    """Judges requests by their outcome; ``tell`` hands what it found to the sync process."""

    def __init__(
        self,
        memory: Memory,
        *,
        settings: DetectSettings,
        exempt: Iterable[Network],
        tell: Tell,
    ) -> None:
        self._nonces = memory.nonces
        self._marks = memory.marks
        self._counters = memory.counters
        self._tell = tell
        self.use(settings, exempt)

    def use(self, settings: DetectSettings, exempt: Iterable[Network]) -> None:
        """Judge by these settings from now on; sources in ``exempt`` are never told of."""
        self.settings = settings
        self._exempt = tuple(exempt)

    # Proof -------------------------------------------------------------------------------------

    def challenged(self, source: str, port: int, nonce: str) -> None:
        """Note that a server gave a nonce to an address and port, over whatever transport."""
        where = _where(source, port)
        known = self._nonces.get(nonce)
        if known not in {None, where}:
            where = _SHARED
            self._marks.put(_SHARES)
        # What is still known stays: nobody may push the note out that a nonce is everybody's.
        self._nonces.put(nonce, where, keep=True)

    def proves(self, source: str, port: int, nonce: str) -> bool:
        """Tell whether a nonce came back from the one address and port that it went out to."""
        return (
            bool(nonce)
            and self._nonces.get(nonce) == _where(source, port)
            and self._marks.get(_SHARES) is None
        )

    # Outcomes ----------------------------------------------------------------------------------

    def asked(self, attempt: Attempt) -> None:
        """Judge a request by what it is."""
        if not attempt.proof or self.has_registered(attempt.source):
            return
        settings = self.settings
        agent = attempt.agent.lower()
        if agent and any(part in agent for part in settings.agents):
            self._found("agents", attempt, 1, 0.0, settings.agents_ban)
        if settings.requests and not self._has_called(attempt.source):
            window = settings.requests_window
            count = self._counters.count(f"requests {attempt.source}", window=window)
            if count >= settings.requests:
                self._found("requests", attempt, count, window, settings.requests_ban)

    def refused(self, attempt: Attempt, status: int, *, stale: bool) -> None:
        """Judge a request by its refusal; ``stale``: only its nonce was too old."""
        if not attempt.proof or stale:
            return
        if status == 404:
            if attempt.method in _SEARCHED and not self._dials(attempt):
                self._count_user(attempt)
        elif status in _REFUSED and attempt.with_credentials:
            if not self.has_registered(attempt.source):
                self._count_failure(attempt)
            self._count_user(attempt)

    def succeeded(self, attempt: Attempt) -> None:
        """Note a registration or a call that was taken."""
        source = attempt.source
        if attempt.method == "INVITE":
            self._marks.put(f"called {source}")
        elif attempt.method == "REGISTER":
            self._marks.put(f"registered {source}")
            self._marks.put(f"good {source} {attempt.user}")
            self._counters.forget(f"failures {source}")
            if self._marks.forget(f"failed {source} {attempt.user}"):
                self._counters.uncount(f"users {source}")

    def has_registered(self, source: str) -> bool:
        """Tell whether a phone registered from this source within the last hour."""
        return self._marks.get(f"registered {source}", within=GOOD_FOR) is not None

    def _has_called(self, source: str) -> bool:
        return self._marks.get(f"called {source}", within=GOOD_FOR) is not None

    def _dials(self, attempt: Attempt) -> bool:
        """Tell whether the user is but a number that a good source called.

        With credentials it is whose they are, and so one more for a handset that tries users.
        """
        return (
            attempt.method == "INVITE"
            and not attempt.with_credentials
            and (self.has_registered(attempt.source) or self._has_called(attempt.source))
        )

    # Counting ----------------------------------------------------------------------------------

    def _count_failure(self, attempt: Attempt) -> None:
        settings = self.settings
        if settings.failures:
            window = settings.failures_window
            count = self._counters.count(f"failures {attempt.source}", window=window)
            if count >= settings.failures:
                self._found("failures", attempt, count, window, settings.failures_ban)

    def _count_user(self, attempt: Attempt) -> None:
        """Count each failing user once a window; one that registered here lately is none."""
        settings, source, user = self.settings, attempt.source, attempt.user
        window = settings.users_window
        if not settings.users or self._marks.get(f"good {source} {user}") is not None:
            return
        if self._marks.get(f"failed {source} {user}", within=window) is not None:
            return
        self._marks.put(f"failed {source} {user}")
        count = self._counters.count(f"users {source}", window=window)
        if count >= settings.users:
            self._found("users", attempt, count, window, settings.users_ban)

    def _found(
        self, rule: str, attempt: Attempt, count: int, window: float, ban_for: float
    ) -> None:
        source = attempt.source
        if self._marks.get(f"told {source}", within=_TOLD_FOR) is not None:
            return
        if self._is_exempt(source):
            self._marks.put(f"told {source}")
            return
        told = self._tell(
            "detected",
            {
                "source": source,
                "rule": rule,
                "count": count,
                "window": window,
                "ban_for": ban_for,
                "transport": attempt.transport,
                "method": attempt.method,
                "proof": attempt.proof,
                "user": attempt.user,
                "agent": attempt.agent,
            },
        )
        if told:
            self._marks.put(f"told {source}")
            for name in ("failures", "users", "requests"):  # who is let off begins anew
                self._counters.forget(f"{name} {source}")

    def _is_exempt(self, source: str) -> bool:
        try:
            network = parse_address(source)
        except AddressError:
            return True  # nobody could be banned by it
        return any(network.overlaps(one) for one in self._exempt)


def _where(source: str, port: int) -> int:
    return hash(f"{source} {port}") & _PORT or 1
