"""Mail, through an SMTP server of the operator's."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Final

from apiban.errors import ApibanError
from apiban.feed.server.settings import MailSettings

__all__ = ["Mail"]

_TIMEOUT: Final = 20.0


class Mail:
    """Sends plain texts."""

    def __init__(self, settings: MailSettings) -> None:
        self._settings = settings

    def send(self, to: str, subject: str, text: str) -> None:
        """Send a text to one address, and wait until the server has taken it.

        Raises:
            ApibanError: it has not; the error holds neither the password nor the text.

        """
        message = EmailMessage()
        message["From"] = self._settings.sender
        message["To"] = to
        message["Subject"] = subject
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=self._settings.sender.rpartition("@")[2])
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        try:
            with self._connected() as server:
                server.send_message(message)
        except (OSError, smtplib.SMTPException) as error:
            name = f"{self._settings.host}:{self._settings.port}"
            raise ApibanError(f"mail.host = {name}: {_reason(error)}") from None

    def _connected(self) -> smtplib.SMTP:
        """Connect, encrypt and log in as the settings say."""
        settings = self._settings
        server: smtplib.SMTP
        if settings.security == "tls":
            server = smtplib.SMTP_SSL(
                settings.host, settings.port, timeout=_TIMEOUT, context=self._context()
            )
        else:
            server = smtplib.SMTP(settings.host, settings.port, timeout=_TIMEOUT)
        try:
            if settings.security == "starttls":
                server.starttls(context=self._context())
            if settings.user:
                server.login(settings.user, settings.password.reveal())
        except BaseException:
            server.close()
            raise
        return server

    def _context(self) -> ssl.SSLContext:
        file = self._settings.ca_file
        return ssl.create_default_context(cafile=str(file) if file else None)


def _reason(error: Exception) -> str:
    """Say what failed: a server's own words may quote what we sent."""
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return "the server refused mail.user and its password"
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return "the server lacks what mail.security or mail.user needs"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "the server refused the recipient"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"the server refused it with status {error.smtp_code}"
    if isinstance(error, ssl.SSLError):
        return "TLS failed, or its certificate is not trusted"
    return "no connection, or it broke off"
