"""A real SMTP server that wants STARTTLS and a login, and keeps the mail in a Maildir.

It is a process of its own (``python smtpserver.py PORT CERTIFICATE KEY MAILDIR PASSWORD``), so
that a connection that breaks off leaves nothing behind in the tests' process.
"""

from __future__ import annotations

import signal
import ssl
import sys
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import AuthResult, LoginPassword


def main(port: str, certificate: str, key: str, folder: str, password: str) -> None:
    """Serve until a signal ends it."""

    def login(_server: object, _session: object, _envelope: object, _how: str, data: Any) -> Any:
        good = isinstance(data, LoginPassword) and data.password == password.encode()
        return AuthResult(success=good, handled=False)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    Controller(
        Mailbox(folder),
        hostname="127.0.0.1",
        port=int(port),
        tls_context=context,
        require_starttls=True,
        auth_required=True,
        authenticator=login,
        server_kwargs={"hostname": "localhost"},
    ).start()
    signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main(*sys.argv[1:])
