"""Digest credentials, and the weak passwords that this PBX takes.

A careless PBX is one whose passwords can be guessed: a tool that guesses goes on, and calls. The
passwords are computed against the response here and now, and nothing of either is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["WEAK_PASSWORDS", "Credentials", "read_credentials"]

WEAK_PASSWORDS: Final = (
    *("1234", "12345", "123456", "12345678", "123456789", "0000", "1111", "4321", "654321"),
    *("password", "passw0rd", "secret", "admin", "asterisk", "test", "changeme", "default"),
)

_LONGEST: Final = 4096
# A name is read from its first letter alone, and an open quote to the end: else each place in them
# would be tried in turn, and the time would grow with the square of the length.
_FIELD = re.compile(
    r'(?<!\w)(\w{1,32}+)\s*+=\s*+(?:"([^"\\]*+(?:\\.[^"\\]*+)*)(?:"|\\?$)|([^\s,"]+))'
)


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What a digest header says; its repr shows nothing of it."""

    user: str
    realm: str
    nonce: str
    uri: str
    response: str
    qop: str
    cnonce: str
    nc: str

    def __repr__(self) -> str:
        return "Credentials(********)"

    def weak(self, method: str) -> bool:
        """Tell whether the response is the one of a weak password, or of the user's own name."""
        last = self._hash(f"{method}:{self.uri}")
        # svcrack names a qop that it does not use: then there is no cnonce.
        with_qop = f"{self.nonce}:{self.nc}:{self.cnonce}:{self.qop}"
        middle = with_qop if self.qop and self.cnonce else self.nonce
        given = self.response.lower().encode("utf-8", "replace")
        return any(
            hmac.compare_digest(
                self._hash(
                    f"{self._hash(f'{self.user}:{self.realm}:{one}')}:{middle}:{last}"
                ).encode(),
                given,
            )
            for one in self._guesses()
        )

    def _guesses(self) -> Iterator[str]:
        yield self.user
        yield self.user * 2
        yield self.user[::-1]
        yield from WEAK_PASSWORDS

    @staticmethod
    def _hash(text: str) -> str:
        # SIP's digest is MD5's: the tools that come here know no other.
        return hashlib.md5(text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()


def read_credentials(value: str) -> Credentials | None:
    """Read the value of an Authorization header; None when it is no digest."""
    scheme, _, rest = value[:_LONGEST].strip().partition(" ")
    if scheme.lower() != "digest":
        return None
    fields = {
        name.lower(): plain or re.sub(r"\\(.)", r"\1", quoted)
        for name, quoted, plain in _FIELD.findall(rest)
    }
    return Credentials(
        user=fields.get("username", ""),
        realm=fields.get("realm", ""),
        nonce=fields.get("nonce", ""),
        uri=fields.get("uri", ""),
        response=fields.get("response", ""),
        qop=fields.get("qop", ""),
        cnonce=fields.get("cnonce", ""),
        nc=fields.get("nc", ""),
    )
