"""Nonces that prove that their bearer receives our answers.

A UDP source address can be forged, an answer to it cannot be read by the forger. So a challenge
carries a value that nobody can guess, and that is good for one address, port and transport alone:
who sends it back from there has read the answer. Nothing is remembered: a MAC tells ours.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from apiban.address import pack

__all__ = ["Nonces", "load_secret"]

_VERSION: Final = b"apiban-nonce-1"
_SECRET: Final = 32
_TIME: Final = 6  # bytes: milliseconds since 1970
_SALT: Final = 8
_MAC: Final = 16
_BYTES: Final = _TIME + _SALT + _MAC  # a multiple of 3: base64 has no padding
_CHARACTERS: Final = _BYTES // 3 * 4


class Nonces:
    """Makes and checks nonces; ``now`` gives seconds since 1970, ``random`` bytes of a length."""

    def __init__(
        self,
        secret: bytes,
        *,
        lifetime: float,
        now: Callable[[], float],
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._secret = secret
        self._lifetime = int(lifetime * 1000)
        self._now = now
        self._random = random

    def make(self, source: str, port: int, transport: str) -> str:
        """Give a new nonce of 40 URL-safe characters for one source, its port and transport.

        Raises:
            AddressError: the source is no address.

        """
        head = self._milliseconds().to_bytes(_TIME, "big") + self._random(_SALT)
        raw = head + self._mac(head, source, port, transport)
        return base64.urlsafe_b64encode(raw).decode("ascii")

    def check(self, nonce: str, source: str, port: int, transport: str) -> bool:
        """Tell whether a nonce is ours, for just this source, and neither old nor of the future.

        Raises:
            AddressError: the source is no address.

        """
        if len(nonce) != _CHARACTERS or not nonce.isascii():
            return False
        try:
            raw = base64.b64decode(nonce, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return False
        head, mac = raw[:-_MAC], raw[-_MAC:]
        if not hmac.compare_digest(mac, self._mac(head, source, port, transport)):
            return False
        age = self._milliseconds() - int.from_bytes(head[:_TIME], "big")
        return 0 <= age < self._lifetime

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)

    def _mac(self, head: bytes, source: str, port: int, transport: str) -> bytes:
        # Every part but the transport has a fixed length, or its length before it: no two
        # sources give the same text.
        packed = pack(source)
        text = b"".join(
            (
                _VERSION,
                head,
                len(packed).to_bytes(1, "big"),
                packed,
                port.to_bytes(2, "big"),
                transport.encode(),
            )
        )
        return hmac.digest(self._secret, text, hashlib.sha256)[:_MAC]


def load_secret(path: Path) -> bytes:
    """Read the honeypot's secret of 32 bytes, or make it: whole or not at all, for its user alone.

    Two that start at once end with the same secret. A file that holds anything else is replaced:
    nothing is lost by that but nonces under way.

    Raises:
        OSError: it can neither be read nor made.

    """
    with contextlib.suppress(FileNotFoundError):
        secret = path.read_bytes()
        if len(secret) == _SECRET:
            return secret
        path.unlink(missing_ok=True)
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_SECRET))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first: its one counts
            os.link(scratch, path)
    finally:
        Path(scratch).unlink()
    return path.read_bytes()
