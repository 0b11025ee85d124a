"""Keys for whoever asks by e-mail: a link is sent, and what is behind it makes the key.

One key an address: asking again gives the same record another text. Nobody learns whether an
address has a key, and nobody's mailbox can be filled: an address gets a mail an hour, and all of
them together so many.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from typing import Final
from urllib.parse import urlencode

from sqlalchemy import ColumnElement, delete, func, select

from apiban.errors import ApibanError
from apiban.feed.server.database import Database
from apiban.feed.server.database.connect import upsert
from apiban.feed.server.database.schema import enrolment
from apiban.feed.server.keys import Keys
from apiban.feed.server.mail import Mail
from apiban.feed.server.settings import MailSettings
from apiban.log import Log
from apiban.settings.secret import Secret

__all__ = ["Enrolment"]

_HOUR: Final = 3600.0
_GOOD_FOR: Final = 24 * _HOUR
# One address, of the characters that addresses of people have; no quoted local parts.
_EMAIL: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9-]*[A-Za-z0-9]"
)
_LONGEST: Final = 254


class Enrolment:
    """Takes and confirms wishes for keys."""

    def __init__(  # noqa: PLR0913 - the parts that it works with
        self,
        *,
        database: Database,
        keys: Keys,
        mail: Mail,
        settings: MailSettings,
        now: Callable[[], float],
        log: Log,
    ) -> None:
        self._database = database
        self._keys = keys
        self._mail = mail
        self._settings = settings
        self._now = now
        self._log = log

    @staticmethod
    def is_address(email: str) -> bool:
        """Tell whether a text is an e-mail address that a key may be asked for with."""
        return len(email) <= _LONGEST and _EMAIL.fullmatch(email) is not None

    def ask(self, email: str) -> None:
        """Send a link to an address, unless too many were sent; say a failure in the log alone.

        Raises:
            StoreError

        """
        token = secrets.token_urlsafe(24)
        if not self._note(email.lower(), token):
            return
        link = f"{self._settings.link}key/confirm?{urlencode({'token': token})}"
        try:
            self._mail.send(
                email,
                "Your key for the APIBAN feed",
                "Somebody, most likely you, asked for a key for the APIBAN feed with this address."
                f"\n\nTo get it, open this within a day:\n\n  {link}\n\n"
                "A key that the address has already will be replaced. If you did not ask, do "
                "nothing.\n",
            )
        except ApibanError as error:
            self._log("mail-failed", reason=error, effect="the key can be asked for again")
            with self._database.write(the_list=False) as connection:
                connection.execute(delete(enrolment).where(enrolment.c.email == email.lower()))

    def is_waiting(self, token: str) -> bool:
        """Tell whether a link is still good.

        Raises:
            StoreError

        """
        with self._database.read() as connection:
            query = select(enrolment.c.email).where(*self._good(token))
            return connection.execute(query).first() is not None

    def confirm(self, token: str) -> Secret | None:
        """Make, or replace, the key of the address that a link was sent to; a link works once.

        Raises:
            StoreError

        """
        with self._database.read() as connection:
            email = connection.execute(
                select(enrolment.c.email).where(*self._good(token))
            ).scalar_one_or_none()
        if email is None:
            return None
        record = self._keys.by_email(email)
        made = None
        if record is None:
            name = "mail-" + hashlib.sha256(email.encode()).hexdigest()[:16]
            made = self._keys.create(name, email=email, who=email)
        elif record.revoked is None:  # what an operator revoked, an operator alone gives back
            made = self._keys.rotate(record.name, who=email)
        # The link goes last: who is interrupted here can use it again.
        with self._database.write(the_list=False) as connection:
            connection.execute(delete(enrolment).where(enrolment.c.email == email))
        return made

    def _good(self, token: str) -> tuple[ColumnElement[bool], ...]:
        return (
            enrolment.c.hash == _hash(token),
            enrolment.c.asked > self._now() - _GOOD_FOR,
        )

    def _note(self, email: str, token: str) -> bool:
        """Keep a wish, if a mail may be sent for it."""
        now = self._now()
        with self._database.write(the_list=False) as connection:
            connection.execute(delete(enrolment).where(enrolment.c.asked <= now - _GOOD_FOR))
            recent = enrolment.c.asked > now - _HOUR
            own = select(enrolment.c.email).where(enrolment.c.email == email, recent)
            sent = connection.execute(
                select(func.count()).select_from(enrolment).where(recent)
            ).scalar_one()
            if connection.execute(own).first() is not None or sent >= self._settings.an_hour:
                return False
            entry = upsert(connection, enrolment)
            given = entry.excluded
            connection.execute(
                entry.on_conflict_do_update(
                    index_elements=["email"], set_={"hash": given.hash, "asked": given.asked}
                ),
                {"email": email, "hash": _hash(token), "asked": now},
            )
        return True


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
