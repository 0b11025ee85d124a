"""Who is the operator: a password over HTTP Basic, or root on this very machine.

The password is stored as scrypt's output. It is checked for one request at a time, and no longer
once several were wrong: guessing costs an attacker minutes and this machine next to nothing. (Who
guesses keeps the operator out as well, but never one who comes from this machine.)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
import threading
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from starlette.requests import Request

from apiban.address import is_loopback, parse_address
from apiban.errors import AddressError, ApibanError
from apiban.feed.server import journal
from apiban.feed.server.database import Database
from apiban.feed.server.notes import read_note, write_note
from apiban.feed.server.peer import peer_uid
from apiban.settings.secret import Secret

__all__ = ["USER", "Access", "Operator"]

USER: Final = "operator"
SHORTEST: Final = 12

_NOTE: Final = "operator"
_COST: Final = {"n": 1 << 15, "r": 8, "p": 1}  # 32 MiB, and about a tenth of a second
_MOST_MEMORY: Final = 1 << 26
_FAILURES: Final = 5
_WITHIN: Final = 60.0
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z.-]+)(:[0-9]{1,5})?", re.IGNORECASE)
_PROXIED: Final = frozenset({"forwarded", "via", "x-real-ip"})


class Access(Enum):
    """What a request is granted; LOCKED means that nobody's password is looked at for now."""

    GRANTED = "granted"
    REFUSED = "refused"
    LOCKED = "locked"


class Operator:
    """Judges requests for one feed. It blocks: call it from a thread, never from an event loop.

    ``now`` gives seconds since 1970. ``trust_loopback`` lets root, and the user that the feed runs
    as, in from this machine without a password; ``peer`` tells whose a connection is. A reverse
    proxy here has a user of its own, and a request that shows a proxy's traces is nobody's.
    """

    def __init__(
        self,
        database: Database,
        now: Callable[[], float],
        *,
        trust_loopback: bool,
        peer: Callable[[Request], int | None] = peer_uid,
    ) -> None:
        self._database = database
        self._now = now
        self._trust_loopback = trust_loopback
        self._peer = peer
        self._one_at_a_time = threading.Lock()
        self._failures: list[float] = []
        # What was found right last, so that a scrape every few seconds costs no scrypt.
        self._pepper = secrets.token_bytes(32)
        self._last_right = b""

    def set_password(self, password: Secret) -> None:
        """Set the password, from now on and in every process that serves this database.

        Raises:
            ApibanError: it is too short, or holds what cannot be typed.
            StoreError

        """
        text = password.reveal()
        if len(text) < SHORTEST:
            raise ApibanError(f"the operator's password needs at least {SHORTEST} characters")
        if not text.isprintable():
            raise ApibanError("the operator's password holds a character that nobody can type")
        salt = secrets.token_bytes(16)
        kept = {**_COST, "salt": salt.hex(), "hash": _scrypt(text.encode(), salt, **_COST).hex()}
        now = self._now()
        with self._database.write(the_list=False) as connection:
            write_note(connection, _NOTE, kept, now=now)
            journal.note(connection, at=now, who=USER, action="password set", what=USER)

    def is_operator(self, request: Request) -> bool:
        """Tell whether a request is the operator's.

        Raises:
            StoreError

        """
        return self.access(request) is Access.GRANTED

    def access(self, request: Request) -> Access:
        """Judge a request.

        Raises:
            StoreError

        """
        if self._trust_loopback and _is_local(request) and self._peer(request) in {0, os.geteuid()}:
            return Access.GRANTED
        given = _credentials(request)
        if given is None:
            return Access.REFUSED
        with self._one_at_a_time:
            now = self._now()
            # A time ahead of the clock was noted before it was set back.
            self._failures = [at for at in self._failures if 0 <= now - at < _WITHIN]
            if len(self._failures) >= _FAILURES:
                return Access.LOCKED
            if self._is_right(*given):
                return Access.GRANTED
            self._failures.append(now)
            return Access.REFUSED

    def _is_right(self, user: bytes, password: bytes) -> bool:
        with self._database.read() as connection:
            kept = read_note(connection, _NOTE)
        if not kept:
            return False
        # The salt is a new one with each password, so that a change makes another text of it.
        text = b"\n".join((str(kept).encode(), user, password))
        shown = hmac.digest(self._pepper, text, "sha256")
        if hmac.compare_digest(shown, self._last_right):
            return True
        right_user = hmac.compare_digest(user, USER.encode())
        if _matches(kept, password) and right_user:
            self._last_right = shown
            return True
        return False


def _scrypt(password: bytes, salt: bytes, *, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=_MOST_MEMORY, dklen=32)


def _matches(kept: dict[str, Any], password: bytes) -> bool:
    """Compare with what is stored; what makes no sense there lets nobody in."""
    try:
        cost = {name: kept[name] for name in _COST}
        found = _scrypt(password, bytes.fromhex(kept["salt"]), **cost)
        return hmac.compare_digest(found, bytes.fromhex(kept["hash"]))
    except (ValueError, KeyError, TypeError):
        return False


def _credentials(request: Request) -> tuple[bytes, bytes] | None:
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(text.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None


def _is_local(request: Request) -> bool:
    """Tell whether a request comes from this machine, and was meant for it."""
    if request.client is None or request.scope.get("http_version") == "1.0":
        return False  # nginx, unless told otherwise, proxies in HTTP/1.0 and says nothing else
    if any(name in _PROXIED or name.startswith("x-forwarded-") for name in request.headers):
        return False
    try:
        if not is_loopback(str(parse_address(request.client.host))):
            return False
    except AddressError:
        return False
    # A name that leads here by an attacker's DNS is no name of this machine.
    host = _HOST.fullmatch(request.headers.get("host", ""))
    return host is not None and is_loopback(host[1].lower())
