"""Keys: made, listed, rotated and revoked; kept as hashes, so that the database tells none.

A key is 160 bits from the system's source of randomness, so its SHA-256 is as good as a slow hash
of a password: nobody finds it by trying. A key that an operator brings must be as long.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import insert, select, update

from apiban.errors import ApibanError
from apiban.feed.server.database import Database
from apiban.feed.server.database.schema import key
from apiban.feed.server.journal import note
from apiban.settings.secret import Secret

__all__ = ["READ", "REPORT", "KeyRecord", "Keys"]

READ: Final = "read"
REPORT: Final = "report"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
# It stands in v1's paths: nothing there may need escaping.
_KEY: Final = re.compile(r"[A-Za-z0-9_.~-]{20,128}")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key's record; times are in seconds since 1970, ``requests`` 0 means no limit."""

    id: int
    name: str
    may: str
    requests: int | None
    seconds: float | None
    blocks: bool
    ipv6: bool
    email: str | None
    created: float
    revoked: float | None
    last_used: float | None
    used: int


_COLUMNS: Final = [key.c[name] for name in KeyRecord.__slots__]


class Keys:
    """The keys of one feed. Every change is noted in the journal."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now

    def create(  # noqa: PLR0913 - each is one thing that an operator chooses
        self,
        name: str,
        *,
        may: str = READ,
        requests: int | None = None,
        seconds: float | None = None,
        blocks: bool = False,
        ipv6: bool = False,
        email: str | None = None,
        given: Secret | None = None,
        who: str = "operator",
    ) -> Secret:
        """Make a key and give it: this is the only time that it can be read.

        ``given`` is a key that the operator brings instead.

        Raises:
            ApibanError: the name is taken or is no name, or the given key is too weak.
            StoreError

        """
        if not _NAME.fullmatch(name):
            raise ApibanError(f"{name[:80]!r}: a key's name is 1 to 64 letters, digits, . _ @ or -")
        new = _new_key() if given is None else given
        if not _KEY.fullmatch(new.reveal()):
            raise ApibanError("a key of one's own needs 20 to 128 letters, digits, or . _ ~ -")
        row = {
            "name": name,
            "hash": _hash(new.reveal()),
            "may": may,
            "requests": requests,
            "seconds": seconds,
            "blocks": blocks,
            "ipv6": ipv6,
            "email": email,
            "created": self._now(),
            "used": 0,
            "counted": 0,
        }
        with self._database.write(the_list=False) as connection:
            for column, what in ((key.c.name, name), (key.c.hash, row["hash"])):
                found = select(key.c.id).where(column == what)
                if connection.execute(found).first() is not None:
                    raise ApibanError(f"there is a key {name!r} already, or one with this text")
            connection.execute(insert(key), row)
            note(connection, at=self._now(), who=who, action="key made", what=name)
        return new

    def rotate(self, name: str, *, who: str = "operator") -> Secret:
        """Give a key's record another text; the old one is refused from now on.

        Raises:
            ApibanError: there is no such key.
            StoreError

        """
        new = _new_key()
        values = {"hash": _hash(new.reveal()), "revoked": None}
        self._change(name, values, "key rotated", who)
        return new

    def revoke(self, name: str) -> None:
        """Refuse a key from now on; its name and its use stay on record.

        Raises:
            ApibanError: there is no such key.
            StoreError

        """
        self._change(name, {"revoked": self._now()}, "key revoked", "operator")

    def change(self, name: str, values: dict[str, Any]) -> None:
        """Set a key's rights or quota: ``requests``, ``seconds``, ``blocks``, ``ipv6``, ``may``.

        Raises:
            ApibanError: there is no such key.
            StoreError

        """
        self._change(name, values, "key changed", "operator")

    def records(self) -> list[KeyRecord]:
        """Give every key's record, the oldest first.

        Raises:
            StoreError

        """
        with self._database.read() as connection:
            rows = connection.execute(select(*_COLUMNS).order_by(key.c.id))
            return [KeyRecord(*row) for row in rows]

    def by_email(self, email: str) -> KeyRecord | None:
        """Give the record of the key that an e-mail address has.

        Raises:
            StoreError

        """
        with self._database.read() as connection:
            row = connection.execute(select(*_COLUMNS).where(key.c.email == email)).first()
        return None if row is None else KeyRecord(*row)

    def recognise(self, text: str) -> KeyRecord | None:
        """Give the record of the key that a client sent, or None for an unknown or revoked one.

        Raises:
            StoreError

        """
        given = _hash(text)
        with self._database.read() as connection:
            query = select(key.c.hash, *_COLUMNS).where(key.c.hash == given)
            row = connection.execute(query).first()
        # The index compares hashes, of which a sender can choose nothing; this is the comparison
        # that decides, and it takes as long for a wrong one.
        kept = row[0] if row is not None else bytes(32)
        if not hmac.compare_digest(kept, given) or row is None:
            return None
        record = KeyRecord(*row[1:])
        return record if record.revoked is None else None

    def _change(self, name: str, values: dict[str, Any], action: str, who: str) -> None:
        with self._database.write(the_list=False) as connection:
            found = connection.execute(select(key.c.id).where(key.c.name == name)).first()
            if found is None:
                raise ApibanError(f"there is no key {name[:80]!r}; `apiban feed key list` has them")
            connection.execute(update(key).where(key.c.id == found.id).values(**values))
            note(connection, at=self._now(), who=who, action=action, what=name)


def _new_key() -> Secret:
    return Secret(secrets.token_hex(20))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
