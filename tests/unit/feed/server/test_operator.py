import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from apiban.errors import ApibanError
from apiban.feed.server.database.schema import note
from apiban.feed.server.journal import actions
from apiban.feed.server.notes import write_note
from apiban.feed.server.operator import Access, Operator
from apiban.feed.server.peer import peer_uid
from apiban.settings.secret import Secret
from sqlalchemy import select
from starlette.requests import Request

from tests.support.filled import PASSWORD, FilledFeed, basic, sqlite_in

HERE = {"host": "localhost:8080"}


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[FilledFeed]:
    """Give a feed that trusts this machine, and has a password."""
    with closing(FilledFeed(sqlite_in(tmp_path), trust_loopback=True, fill=False)) as feed:
        feed.operator.set_password(Secret(PASSWORD))
        yield feed


def asked(
    headers: dict[str, str] | None = None,
    client: str | None = "192.0.2.1",
    version: str = "1.1",
) -> Request:
    """Give a request from elsewhere."""
    return Request(
        {
            "type": "http",
            "http_version": version,
            "client": None if client is None else (client, 5000),
            "headers": [(n.lower().encode(), v.encode()) for n, v in (headers or {}).items()],
        }
    )


def with_password(password: str, user: str = "operator") -> Request:
    """Give a request with a password, from elsewhere."""
    return asked({"Authorization": basic(user, password)})


def test_the_password_lets_in(feed: FilledFeed) -> None:
    """With it a request is the operator's, again and again; without it none is."""
    assert feed.operator.is_operator(with_password(PASSWORD))
    assert feed.operator.is_operator(with_password(PASSWORD))
    assert not feed.operator.is_operator(asked())


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("operator", PASSWORD + " "),
        ("operator", ""),
        ("Operator", PASSWORD),
        ("", PASSWORD),
        ("operator", PASSWORD.upper()),
    ],
)
def test_anything_else_does_not(feed: FilledFeed, user: str, password: str) -> None:
    """User name and password must both be right, also after they were right once."""
    assert feed.operator.is_operator(with_password(PASSWORD))
    assert not feed.operator.is_operator(with_password(password, user))


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic !", "Basic b3BlcmF0b3I=", "Bearer " + PASSWORD, "Basic \u00e9"],
)
def test_what_is_no_basic_header_is_refused(feed: FilledFeed, header: str) -> None:
    """Malformed credentials are nobody's, and cost none of the tries."""
    for _ in range(6):
        assert feed.operator.access(asked({"Authorization": header})) is Access.REFUSED
    assert feed.operator.is_operator(with_password(PASSWORD))


def test_an_encoded_password_with_colon_and_umlaut(feed: FilledFeed) -> None:
    """The first colon ends the user name; the text is UTF-8."""
    feed.operator.set_password(Secret("zwölf:Boxkämpfer"))
    assert feed.operator.is_operator(with_password("zwölf:Boxkämpfer"))


@pytest.mark.parametrize("text", ["", "elevenchars", "twelve chars\n", "twelve\x00chars12"])
def test_a_bad_password_is_not_set(feed: FilledFeed, text: str) -> None:
    """One that is short, or cannot be typed, leaves the old one in force."""
    with pytest.raises(ApibanError):
        feed.operator.set_password(Secret(text))
    assert feed.operator.is_operator(with_password(PASSWORD))


def test_a_new_password_ends_the_old_one_in_every_process(feed: FilledFeed) -> None:
    """Also where the old one was found right a moment ago."""
    other = Operator(feed.database, feed.clock.now, trust_loopback=False)
    assert feed.operator.is_operator(with_password(PASSWORD))
    other.set_password(Secret("another long password"))
    assert not feed.operator.is_operator(with_password(PASSWORD))
    assert feed.operator.is_operator(with_password("another long password"))


def test_nobody_is_let_in_without_a_password_set(tmp_path: Path) -> None:
    """An empty one is not the right one."""
    with closing(FilledFeed(sqlite_in(tmp_path), fill=False)) as feed:
        assert not feed.operator.is_operator(with_password(""))
        assert not feed.operator.is_operator(with_password(PASSWORD))


@pytest.mark.parametrize(
    "change", [{"n": 1 << 30}, {"n": 3}, {"salt": "x"}, {"hash": ""}, {"r": "8"}]
)
def test_a_damaged_note_lets_nobody_in(feed: FilledFeed, change: dict[str, object]) -> None:
    """What makes no sense in the database is no password, and takes no gigabytes either."""
    kept = {"n": 1 << 15, "r": 8, "p": 1, "salt": "00", "hash": "00", **change}
    with feed.database.write() as connection:
        write_note(connection, "operator", kept, now=0.0)
    assert feed.operator.access(with_password(PASSWORD)) is Access.REFUSED


def test_only_a_salted_hash_is_stored(feed: FilledFeed) -> None:
    """Neither the note nor the journal holds the password, and two of them differ."""
    texts = []
    for _ in range(2):
        feed.operator.set_password(Secret(PASSWORD))
        with feed.database.read() as connection:
            texts.append(
                connection.execute(
                    select(note.c.value).where(note.c.name == "operator")
                ).scalar_one()
            )
            told = actions(connection)
    assert texts[0] != texts[1]
    assert PASSWORD not in texts[0] + str(told)
    assert {one.action for one in told} == {"password set"}


def test_guessing_is_slow(feed: FilledFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 5 failures in a minute nothing is computed any more, not even for the right one."""
    for _ in range(5):
        assert feed.operator.access(with_password("wrong")) is Access.REFUSED
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.scrypt", None)
        assert feed.operator.access(with_password("wrong")) is Access.LOCKED
        assert feed.operator.access(with_password(PASSWORD)) is Access.LOCKED
    feed.clock.tick(59.9)
    assert feed.operator.access(with_password(PASSWORD)) is Access.LOCKED
    feed.clock.tick(0.2)
    assert feed.operator.access(with_password(PASSWORD)) is Access.GRANTED


def test_guessing_in_parallel_is_as_slow(feed: FilledFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many tries at the same time 5 are looked at."""
    real, computed = hashlib.scrypt, []

    def counted(*arguments: Any, **more: Any) -> bytes:
        computed.append(None)
        return real(*arguments, **more)

    monkeypatch.setattr("hashlib.scrypt", counted)
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(feed.operator.access, [with_password("wrong")] * 40))
    assert len(computed) == found.count(Access.REFUSED) == 5
    assert found.count(Access.LOCKED) == 35


def test_a_scraper_costs_no_scrypt(feed: FilledFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was right a moment ago is known; what differs by a bit is computed."""
    assert feed.operator.is_operator(with_password(PASSWORD))
    monkeypatch.setattr("hashlib.scrypt", None)
    assert feed.operator.is_operator(with_password(PASSWORD))
    assert not feed.operator.is_operator(with_password(PASSWORD + "x"))


def test_a_clock_set_back_does_not_lock_for_long(feed: FilledFeed) -> None:
    """Failures of a time that is still to come are forgotten."""
    for _ in range(5):
        feed.operator.access(with_password("wrong"))
    feed.clock.set_wall(feed.clock.now() - 86400)
    assert feed.operator.access(with_password(PASSWORD)) is Access.GRANTED


def test_this_machine_is_let_in_while_others_guess(feed: FilledFeed) -> None:
    """An attacker cannot keep a local operator out."""
    for _ in range(6):
        feed.operator.access(with_password("wrong"))
    assert feed.operator.is_operator(asked(HERE, "127.0.0.1"))


@pytest.mark.parametrize("client", ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:8080"]
)
def test_this_machine_is_the_operator(feed: FilledFeed, client: str, host: str) -> None:
    """By any of its loopback addresses, and by any name that is always its own."""
    assert feed.operator.is_operator(asked({"host": host}, client))


def test_this_machine_is_not_trusted_unless_told(tmp_path: Path) -> None:
    """With trust_loopback off it needs the password as well."""
    with closing(FilledFeed(sqlite_in(tmp_path), fill=False)) as feed:
        assert not feed.operator.is_operator(asked(HERE, "127.0.0.1"))


@pytest.mark.parametrize("client", ["192.0.2.1", "10.0.0.1", "::2", "128.0.0.1", "unix", "", None])
def test_others_are_not_this_machine(feed: FilledFeed, client: str | None) -> None:
    """Whatever they call the host."""
    assert not feed.operator.is_operator(asked(HERE, client))


@pytest.mark.parametrize(
    "name",
    ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Anything", "X-Real-IP",
     "Via"],
)  # fmt: skip
def test_what_a_proxy_brings_is_not_of_this_machine(feed: FilledFeed, name: str) -> None:
    """Even when the header is empty."""
    assert not feed.operator.is_operator(asked({**HERE, name: ""}, "127.0.0.1"))


def test_a_proxy_that_tells_nothing_speaks_an_old_http(feed: FilledFeed) -> None:
    """Nginx's plain proxy_pass shows as HTTP/1.0, with this machine's name as the host."""
    assert not feed.operator.is_operator(asked(HERE, "127.0.0.1", version="1.0"))


@pytest.mark.parametrize(
    "host",
    ["feed.example.net", "localhost.example.net", "127.0.0.1.example.net", "0.0.0.0", "[::2]",
     "evil@localhost", "localhost@evil", "localhost:80:80", "127.0.0.1/x", "", "2130706433"],
)  # fmt: skip
def test_a_foreign_name_is_not_of_this_machine(feed: FilledFeed, host: str) -> None:
    """A name that an attacker's DNS leads here is refused, and so is what is no name."""
    assert not feed.operator.is_operator(asked({"host": host}, "127.0.0.1"))


def test_a_request_without_a_host_is_refused(feed: FilledFeed) -> None:
    """It tells nothing of where it was meant to go."""
    assert not feed.operator.is_operator(asked({}, "127.0.0.1"))


@pytest.mark.parametrize("user", [33, 65534, None])
def test_other_users_of_this_machine_are_not_the_operator(
    feed: FilledFeed, user: int | None
) -> None:
    """A proxy is one of them."""
    feed.peer = user
    assert not feed.operator.is_operator(asked(HERE, "127.0.0.1"))


def test_the_feeds_own_user_is(feed: FilledFeed) -> None:
    """It can read the database anyway."""
    feed.peer = os.geteuid()
    assert feed.operator.is_operator(asked(HERE, "127.0.0.1"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1"])
@pytest.mark.parametrize("user", [0, 65534])
def test_the_kernel_tells_whose_a_connection_is(host: str, user: int) -> None:
    """Of real sockets, IPv4 and IPv6; nothing is told of those that are not there."""
    code = (
        "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])));"
        "print('here', flush=True); s.recv(1)"
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        port = listener.getsockname()[1]
        words = ["setpriv", f"--reuid={user}", "--clear-groups", "/usr/bin/python3", "-c", code]
        with subprocess.Popen([*words, host, str(port)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            connection, client = listener.accept()
            with connection:
                scope = {"type": "http", "client": client[:2], "server": (host, port)}
                assert peer_uid(Request(scope)) == user
        assert peer_uid(Request({**scope, "client": (host, 1)})) is None
