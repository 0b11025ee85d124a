import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from email import message_from_bytes
from email.message import Message
from mailbox import Maildir
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from apiban.feed.server.application import make_application

from tests.contract.asgi import Raw, call
from tests.support.clock import ManualClock
from tests.support.log import MemoryLog
from tests.support.ports import free_port
from tests.unit.feed.server.conftest import MakeService

PASSWORD = "the-relay-s-password"
SERVER = Path(__file__).parents[3] / "support" / "smtpserver.py"


class Mailbox:
    """What a real SMTP server took, in its Maildir."""

    def __init__(self, folder: Path) -> None:
        Maildir(folder)
        self._new = folder / "new"

    @property
    def messages(self) -> list[Message]:
        """Give the mails, the oldest first."""
        return [
            message_from_bytes(path.read_bytes()) for path in sorted(self._new.iterdir(), key=_age)
        ]

    def clear(self) -> None:
        """Forget the mails of other tests."""
        for path in self._new.iterdir():
            path.unlink()

    def link(self) -> str:
        """Give the token of the last mail's link."""
        text = self.messages[-1].get_payload(decode=True).decode()
        found = re.search(r"https://feed\.example/key/confirm\?token=([A-Za-z0-9_-]+)", text)
        assert found is not None
        return found[1]


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a certificate for localhost, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    pair = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-out", str(pair[0]), "-keyout", str(pair[1])),
        ],
        check=True,
        capture_output=True,
    )
    return pair


@pytest.fixture(scope="module")
def server(
    certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Mailbox, int]]:
    """Run an SMTP server that wants STARTTLS and a login; give its mailbox and port."""
    folder = tmp_path_factory.mktemp("smtp") / "mail"
    box, port = Mailbox(folder), free_port()
    words = [str(port), *map(str, certificate), str(folder), PASSWORD]
    with subprocess.Popen([sys.executable, SERVER, *words]) as process:
        for _ in range(200):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield box, port
        process.kill()


@pytest.fixture
def mailbox(server: tuple[Mailbox, int]) -> tuple[Mailbox, int]:
    """Give the server's mailbox, empty, and its port."""
    server[0].clear()
    return server


@pytest.fixture
def app(
    make_service: MakeService, mailbox: tuple[Mailbox, int], certificate: tuple[Path, Path]
) -> Any:
    """Give the application of a feed that sends mail."""
    return make_application(make_service(**options(mailbox[1], certificate[0])))


def options(port: int, ca_file: Path, **more: object) -> dict[str, object]:
    """Give the settings of mail."""
    return {
        "mail__host": "localhost",
        "mail__port": port,
        "mail__user": "feed",
        "mail__password": PASSWORD,
        "mail__sender": "feed@feed.example",
        "mail__link": "https://feed.example/",
        "mail__ca_file": ca_file,
        **more,
    }


def ask(app: Any, email: str) -> Raw:
    """Fill in the form."""
    return call(app, "POST", "/key", chunks=[f"email={quote(email)}".encode()])


def confirm(app: Any, token: str) -> Raw:
    """Press the button."""
    return call(app, "POST", "/key/confirm", chunks=[f"token={quote(token)}".encode()])


def key_in(raw: Raw) -> str:
    """Give the key that a page shows."""
    found = re.search(rb"<code>([0-9a-f]{40})</code>", raw.body)
    assert found is not None
    return found[1].decode()


def works(app: Any, key: str) -> bool:
    """Tell whether a key is taken."""
    return call(app, "GET", f"/api/{key}/check/192.0.2.1").status == 400


def test_key_is_asked_for_and_confirmed(app: Any, mailbox: tuple[Mailbox, int]) -> None:
    """Form, mail, link, button, key; over a real SMTP server with TLS and a login."""
    assert b"E-mail address" in call(app, "GET", "/key").body
    assert ask(app, "ann@example.org").status == 202
    message = mailbox[0].messages[0]
    assert (message["To"], message["From"]) == ("ann@example.org", "feed@feed.example")
    token = mailbox[0].link()
    for _ in range(2):  # a mail scanner looks at the link, and makes nothing
        look = call(app, "GET", f"/key/confirm?token={token}")
        assert b"Make my key" in look.body
        assert look.headers["cache-control"] == "no-store"
    made = confirm(app, token)
    assert made.headers["cache-control"] == "no-store"
    assert works(app, key_in(made))
    assert confirm(app, token).status == 404  # a link works once


def test_asking_again_replaces_the_key(
    app: Any, mailbox: tuple[Mailbox, int], clock: ManualClock
) -> None:
    """One key an address, however it is spelt; and one mail an hour."""
    ask(app, "ann@example.org")
    first = key_in(confirm(app, mailbox[0].link()))
    ask(app, "Ann@Example.org")
    second = key_in(confirm(app, mailbox[0].link()))
    assert (works(app, first), works(app, second)) == (False, True)
    ask(app, "bob@example.org")
    ask(app, "bob@example.org")
    assert len(mailbox[0].messages) == 3
    clock.tick(3600)
    ask(app, "bob@example.org")
    assert len(mailbox[0].messages) == 4


def test_revoked_key_does_not_come_back(
    make_service: MakeService, mailbox: tuple[Mailbox, int], certificate: tuple[Path, Path]
) -> None:
    """What the operator took, the operator alone gives."""
    service = make_service(**options(mailbox[1], certificate[0]))
    app = make_application(service)
    ask(app, "ann@example.org")
    confirm(app, mailbox[0].link())
    service.keys.revoke(service.keys.records()[0].name)
    ask(app, "ann@example.org")
    assert confirm(app, mailbox[0].link()).status == 404
    assert service.keys.records()[0].revoked is not None


def test_all_together_get_so_many_mails(
    make_service: MakeService, mailbox: tuple[Mailbox, int], certificate: tuple[Path, Path]
) -> None:
    """Whoever asks in the name of others fills no mailboxes; the answer tells nothing."""
    app = make_application(make_service(**options(mailbox[1], certificate[0], mail__an_hour=2)))
    answers = [ask(app, f"person{number}@example.org") for number in range(5)]
    assert len({(raw.status, raw.body) for raw in answers}) == 1
    assert len(mailbox[0].messages) == 2


def test_link_is_good_for_a_day(app: Any, mailbox: tuple[Mailbox, int], clock: ManualClock) -> None:
    """And no longer."""
    ask(app, "ann@example.org")
    clock.tick(86400)
    assert call(app, "GET", f"/key/confirm?token={mailbox[0].link()}").status == 404
    assert confirm(app, mailbox[0].link()).status == 404


@pytest.mark.parametrize(
    "email",
    [
        "",
        "ann",
        "ann@localhost",
        "ann@example.org\r\nBcc: all@example.org",
        "ann@example.org, bob@example.org",
        "<ann@example.org>",
        '"a b"@example.org',
        "ann@@example.org",
        ".ann@example.org",
        "a" * 250 + "@example.org",
        "\u00e4nn@example.org",
        "<script>@example.org",
    ],
)
def test_no_address(app: Any, mailbox: tuple[Mailbox, int], email: str) -> None:
    """Refused before a mail is made of it, and shown as a text."""
    raw = ask(app, email)
    assert raw.status == 400
    assert b"<script>" not in raw.body
    assert mailbox[0].messages == []


@pytest.mark.parametrize("token", ["", "x", "\u00e4", "' OR 1=1", "\0"])
def test_wrong_token(app: Any, token: str) -> None:
    """It is not good, and nothing more is said."""
    assert confirm(app, token).status == 404
    assert call(app, "GET", f"/key/confirm?token={quote(token)}").status == 404


@pytest.mark.parametrize("trouble", ["password", "certificate", "nobody"])
def test_mail_that_fails(
    make_service: MakeService,
    mailbox: tuple[Mailbox, int],
    certificate: tuple[Path, Path],
    log: MemoryLog,
    trouble: str,
) -> None:
    """The log says why, without the password; the key can be asked for again at once."""
    changes: dict[str, object] = {
        "password": {"mail__password": "wrong-and-secret"},
        "certificate": {"mail__ca_file": "/etc/ssl/certs/ca-certificates.crt"},
        "nobody": {"mail__port": free_port()},
    }[trouble]
    app = make_application(make_service(**{**options(mailbox[1], certificate[0]), **changes}))
    for _ in range(2):
        assert ask(app, "ann@example.org").status == 202
    assert mailbox[0].messages == []
    said = log.fields("mail-failed")
    assert len(said) == 2
    assert "secret" not in str(said)


def test_off_by_default(make_service: MakeService) -> None:
    """Without an SMTP server nobody can ask."""
    app = make_application(make_service())
    assert call(app, "GET", "/key").status == 404
    assert ask(app, "ann@example.org").status == 404
