import gc
import gzip
import json
import logging
import socket
import ssl
import time
import traceback
import tracemalloc
from pathlib import Path

import pytest
from apiban.errors import FeedError, FeedInvalid, FeedOutage, FeedRateLimited
from apiban.feed.answer import CheckResult, Page
from apiban.feed.client import LARGEST_BODY, FeedClient
from apiban.settings.model import FeedSettings

from tests.unit.feed.conftest import Serve
from tests.unit.feed.local import Talk, answer, hold, trickle
from tests.unit.feed.parts import KEY, feed_settings

PAGE = b'{"ipaddress":["192.0.2.1"],"ID":"987"}'
NOT_LISTED = b'{"ipaddress":["not blocked"],"ID":"none"}'
CHUNKED = "Transfer-Encoding: chunked"
GZIP = "Content-Encoding: gzip"
OK = b"HTTP/1.1 200 OK\r\n"

# The client's time, and the time that no question may take, on however slow a machine.
TIMEOUT = 0.5
LATE = 5.0

both = pytest.mark.parametrize("version", [1, 2])

# What never becomes an answer in time: the deadline ends it.
ENDLESS: dict[str, Talk] = {
    "silent": hold,
    "slow status line": trickle(b"", b"H"),
    "slow headers": trickle(OK, b"X-Slow: yes\r\n"),
    "slow body": trickle(OK + b"Content-Length: 900000\r\n\r\n", b" "),
    "slow chunks": trickle(OK + CHUNKED.encode() + b"\r\n\r\n", b"1\r\n \r\n"),
    "slow body without an end": trickle(OK + b"\r\n" + PAGE, b" "),
}

# What breaks at once, after a status line was read.
BROKEN: dict[str, Talk] = {
    "truncated": answer(PAGE, "Content-Length: 500", length=False),
    "truncated chunks": answer(b"10\r\n{", CHUNKED, length=False),
    "no chunks": answer(b"zz\r\n{}\r\n", CHUNKED, length=False),
    "two lengths": answer(PAGE, "Content-Length: 5", "Content-Length: 6", length=False),
    "not gzip": answer(PAGE, GZIP),
    "truncated gzip": answer(gzip.compress(PAGE)[:-9], GZIP, "Content-Length: 99", length=False),
}

# What is no HTTP at all.
GARBAGE: dict[str, bytes] = {
    "nothing": b"",
    "text": b"hello\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "sip": b"SIP/2.0 200 OK\r\n\r\n",
    "binary": bytes(range(256)),
    "tls alert": b"\x15\x03\x01\x00\x02\x02\x46",
    "no status": b"HTTP/1.1 abc\r\n\r\n",
    "negative status": b"HTTP/1.1 -5 no\r\n\r\n",
    "long line": OK + b"X: " + b"x" * 100_000,
    "many headers": OK + b"X: y\r\n" * 500,
    "json": PAGE,
}


def say(raw: bytes) -> Talk:
    """Say these bytes."""
    return lambda connection, _ended: connection.sendall(raw)


def failure(settings: FeedSettings) -> FeedError:
    """Ask over real HTTP, and give the failure, in which the key is nowhere."""
    with pytest.raises(FeedError) as caught:
        FeedClient(settings).banned()
    error: BaseException | None = caught.value
    while error is not None:
        for text in (str(error), repr(error), *traceback.format_exception(error)):
            assert KEY not in text
        error = error.__cause__ or error.__context__
    return caught.value


@pytest.mark.parametrize(
    ("name", "version"), [*((name, 1) for name in ENDLESS), ("slow headers", 2), ("slow body", 2)]
)
def test_deadline_ends_what_does_not_end(
    serve: Serve, caplog: pytest.LogCaptureFixture, name: str, version: int
) -> None:
    """A byte now and then keeps nobody waiting: the time is for the whole exchange."""
    caplog.set_level(logging.DEBUG if version == 2 else logging.INFO)
    server = serve(ENDLESS[name])
    begin = time.monotonic()
    error = failure(feed_settings(url=server.url(), version=version, timeout=TIMEOUT))
    assert TIMEOUT * 0.9 <= time.monotonic() - begin < LATE
    assert isinstance(error, FeedOutage)
    assert "in time" in str(error)
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    "talk", [hold, trickle(b"", b"\x16\x03\x03\x00\x7a\x02")], ids=["silent", "slow"]
)
def test_deadline_ends_a_tls_handshake(serve: Serve, talk: Talk) -> None:
    """The handshake is part of the exchange."""
    server = serve(talk, reads=False)
    begin = time.monotonic()
    error = failure(feed_settings(url=server.url("https"), timeout=TIMEOUT))
    assert time.monotonic() - begin < LATE
    assert isinstance(error, FeedOutage)


def test_deadline_ends_a_body_within_tls(
    serve: Serve, tls: ssl.SSLContext, certificate: Path
) -> None:
    """The socket below TLS is the one that is ended."""
    server = serve(ENDLESS["slow body"], tls=tls)
    begin = time.monotonic()
    error = failure(feed_settings(url=server.url("https"), ca_file=certificate, timeout=TIMEOUT))
    assert time.monotonic() - begin < LATE
    assert isinstance(error, FeedOutage)
    assert "in time" in str(error)


@both
@pytest.mark.parametrize("name", BROKEN)
def test_broken_answer_is_an_outage(
    serve: Serve, caplog: pytest.LogCaptureFixture, name: str, version: int
) -> None:
    """A body that broke off is not read as far as it came."""
    caplog.set_level(logging.DEBUG if version == 2 else logging.INFO)
    server = serve(BROKEN[name])
    error = failure(feed_settings(url=server.url(), version=version))
    assert isinstance(error, FeedOutage)
    assert str(error) == "127.0.0.1: the answer broke off"
    assert KEY not in caplog.text


@both
@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_http_is_an_outage(
    serve: Serve, caplog: pytest.LogCaptureFixture, name: str, version: int
) -> None:
    """Whatever listens there, it is not the feed; the key is in no log, DEBUG included."""
    caplog.set_level(logging.DEBUG)
    server = serve(say(GARBAGE[name]))
    error = failure(feed_settings(url=server.url(), version=version))
    assert isinstance(error, FeedOutage)
    assert KEY not in caplog.text


@both
def test_refused_connection_is_an_outage(caplog: pytest.LogCaptureFixture, version: int) -> None:
    """The service is down."""
    caplog.set_level(logging.DEBUG)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # taken, and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        error = failure(feed_settings(url=url, version=version))
    assert isinstance(error, FeedOutage)
    assert str(error) == "127.0.0.1: no connection"
    assert KEY not in caplog.text


@both
@pytest.mark.parametrize(
    "url",
    ["https://feed.invalid/", "https://a b/", "https://a..b/", f"https://{'a' * 300}.invalid/"],
)
def test_host_that_cannot_be_found_is_an_outage(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, url: str, version: int
) -> None:
    """No such name, or none at all."""

    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    caplog.set_level(logging.DEBUG)
    assert isinstance(failure(feed_settings(url=url, version=version)), FeedOutage)
    assert KEY not in caplog.text


@both
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(serve: Serve, status: int, version: int) -> None:
    """The other server sees no request, and so no key."""
    other = serve(answer(PAGE))
    target = f"Location: {other.url()}elsewhere"
    server = serve(answer(PAGE, target, status=f"{status} Moved"))
    error = failure(feed_settings(url=server.url(), version=version))
    assert isinstance(error, FeedInvalid)
    assert "redirect" in str(error)
    assert len(server.requests) == 1
    assert other.requests == []


@both
@pytest.mark.parametrize("length", [True, False])
def test_body_over_the_cap_is_invalid(serve: Serve, version: int, *, length: bool) -> None:
    """One byte too many, announced or not."""
    body = PAGE + b" " * (LARGEST_BODY + 1 - len(PAGE))
    server = serve(answer(body, length=length))
    error = failure(feed_settings(url=server.url(), version=version))
    assert isinstance(error, FeedInvalid)
    assert str(LARGEST_BODY) in str(error)


def test_body_of_the_cap_is_read(serve: Serve) -> None:
    """The bound itself is inside."""
    server = serve(answer(PAGE + b" " * (LARGEST_BODY - len(PAGE))))
    assert isinstance(FeedClient(feed_settings(url=server.url())).banned(), Page)


@both
def test_gzip_bomb_is_not_unpacked(serve: Serve, version: int) -> None:
    """64 MB in a few kB: refused before they are in memory."""
    server = serve(answer(gzip.compress(bytes(64 << 20)), GZIP))
    tracemalloc.start()
    try:
        error = failure(feed_settings(url=server.url(), version=version))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(error, FeedInvalid)
    assert peak < 16 << 20


def test_gzip_that_nobody_asked_for_is_read(serve: Serve) -> None:
    """A proxy may compress all the same."""
    server = serve(answer(gzip.compress(PAGE), GZIP))
    assert isinstance(FeedClient(feed_settings(url=server.url())).banned(), Page)


def test_v1_request_on_the_wire(serve: Serve) -> None:
    """One GET with our name, asking for plain JSON; no cookie, no authorisation."""
    server = serve(answer(PAGE))
    assert isinstance(FeedClient(feed_settings(url=server.url(), version=1)).banned(), Page)
    (request,) = server.requests
    lines = request.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines)}
    assert lines[0] == f"GET /api/{KEY}/banned/100 HTTP/1.1"
    assert headers["user-agent"].startswith("apiban-kamailio/")
    assert headers["accept"] == "application/json"
    assert headers["accept-encoding"] == "identity"
    assert not {"authorization", "cookie", "content-length"} & headers.keys()


def test_v2_request_on_the_wire(serve: Serve) -> None:
    """One POST of JSON with the key in its header and nowhere else."""
    server = serve(answer(NOT_LISTED, status="400 Bad Request"))
    client = FeedClient(feed_settings(url=server.url(), version=2))
    assert client.check("192.0.2.1") == CheckResult(listed=False)
    (request,) = server.requests
    head, _, body = request.decode().partition("\r\n\r\n")
    assert head.startswith("POST /api/check HTTP/1.1\r\n")
    assert f"\r\nAuthorization: Bearer {KEY}\r\n" in f"{head}\r\n"
    assert "\r\nContent-Type: application/json" in head
    assert json.loads(body) == {"set": "sip", "ipaddress": "192.0.2.1"}
    assert request.count(KEY.encode()) == 1


def test_odd_key_arrives_quoted(serve: Serve) -> None:
    """The HTTP library does not undo the quoting."""
    server = serve(answer(PAGE))
    key = type(feed_settings().key)("a/b?c#d%2e..")
    FeedClient(feed_settings(url=server.url(), key=key)).banned()
    assert server.requests[0].startswith(b"GET /api/a%2Fb%3Fc%23d%252e../banned/100 HTTP/1.1\r\n")


def test_cookies_are_not_kept(serve: Serve) -> None:
    """Each question stands alone."""
    server = serve(answer(PAGE, "Set-Cookie: id=1; Path=/"))
    client = FeedClient(feed_settings(url=server.url()))
    client.banned()
    client.banned()
    assert len(server.requests) == 2
    assert b"cookie" not in server.requests[1].lower()


def test_retry_after_of_the_header(serve: Serve) -> None:
    """It reaches the error as seconds."""
    server = serve(answer(b"", "Retry-After: 42", status="429 Too Many Requests"))
    error = failure(feed_settings(url=server.url()))
    assert isinstance(error, FeedRateLimited)
    assert error.retry_after == 42


@pytest.mark.parametrize("status", ["500 Oops", "503 Service Unavailable", "599 ?"])
def test_5xx_over_http(serve: Serve, status: str) -> None:
    """The service itself says that it is out."""
    assert isinstance(
        failure(feed_settings(url=serve(answer(PAGE, status=status)).url())), FeedOutage
    )


@both
def test_self_signed_certificate_is_refused(
    serve: Serve, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture, version: int
) -> None:
    """No request is sent to who cannot prove to be the feed."""
    caplog.set_level(logging.DEBUG)
    server = serve(answer(PAGE), tls=tls)
    error = failure(feed_settings(url=server.url("https"), version=version))
    assert isinstance(error, FeedOutage)
    assert "TLS" in str(error)
    assert server.requests == []
    assert KEY not in caplog.text


@both
def test_ca_file_makes_it_trusted(
    serve: Serve, tls: ssl.SSLContext, certificate: Path, version: int
) -> None:
    """feed.ca_file is who vouches for a feed of one's own."""
    server = serve(answer(PAGE), tls=tls)
    settings = feed_settings(url=server.url("https"), ca_file=certificate, version=version)
    assert isinstance(FeedClient(settings).banned(), Page)


def test_certificate_of_another_host_is_refused(
    serve: Serve, tls: ssl.SSLContext, certificate: Path
) -> None:
    """It is for 127.0.0.1, not for localhost."""
    server = serve(answer(PAGE), tls=tls)
    url = f"https://localhost:{server.port}/"
    error = failure(feed_settings(url=url, ca_file=certificate))
    assert isinstance(error, FeedOutage)
    assert server.requests == []


@pytest.mark.parametrize("name", ["none.pem", ".", "empty.pem"])
def test_ca_file_that_is_none_is_an_outage(
    serve: Serve, tls: ssl.SSLContext, tmp_path: Path, name: str
) -> None:
    """Missing, a folder, or without a certificate: nothing is trusted instead."""
    (tmp_path / "empty.pem").touch()
    server = serve(answer(PAGE), tls=tls)
    settings = feed_settings(url=server.url("https"), ca_file=tmp_path / name)
    assert isinstance(failure(settings), FeedOutage)
    assert server.requests == []


@both
def test_netrc_does_not_replace_the_key(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: int
) -> None:
    """An entry for the host in the home folder of whoever runs Kamailio changes nothing."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login other password word\n", encoding="ascii")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    server = serve(answer(PAGE))
    assert isinstance(FeedClient(feed_settings(url=server.url(), version=version)).banned(), Page)
    (request,) = server.requests
    assert b"Basic" not in request
    assert (b"Bearer " + KEY.encode() in request) == (version == 2)


def test_proxy_of_the_environment_is_used(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many hosts get out in no other way."""
    proxy = serve(answer(PAGE))
    monkeypatch.setenv("http_proxy", proxy.url())
    settings = feed_settings(url="http://feed.invalid/api/", version=2)
    assert isinstance(FeedClient(settings).banned(), Page)
    assert proxy.requests[0].startswith(b"POST http://feed.invalid/api/get HTTP/1.1\r\n")


def test_no_proxy_is_respected(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the operator excepts goes straight."""
    proxy, server = serve(answer(PAGE)), serve(answer(PAGE))
    monkeypatch.setenv("http_proxy", proxy.url())
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    FeedClient(feed_settings(url=server.url())).banned()
    assert (len(proxy.requests), len(server.requests)) == (0, 1)


@pytest.mark.parametrize("status", ["403 Forbidden", "502 Bad Gateway"])
def test_proxy_that_refuses_is_an_outage(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """The proxy's word about a tunnel is not the feed's; its password stays unsaid too."""
    proxy = serve(answer(b"", status=status))
    monkeypatch.setenv("https_proxy", f"http://me:pass-word@127.0.0.1:{proxy.port}")
    error = failure(feed_settings(url="https://feed.invalid/api/"))
    assert isinstance(error, FeedOutage)
    assert "proxy" in str(error)
    assert "pass-word" not in str(error)
    assert KEY.encode() not in proxy.requests[0]


def test_deadline_ends_a_proxy(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that never gets there is cut off as well."""
    proxy = serve(trickle(b"", b"H"))
    monkeypatch.setenv("https_proxy", proxy.url())
    begin = time.monotonic()
    error = failure(feed_settings(url="https://feed.invalid/api/", timeout=TIMEOUT))
    assert time.monotonic() - begin < LATE
    assert isinstance(error, FeedOutage)


def test_no_file_stays_open(serve: Serve) -> None:
    """Years of failures use up no descriptors."""
    server = serve(answer(PAGE), BROKEN["truncated"], say(b"junk"), answer(PAGE, status="500 Oops"))
    client = FeedClient(feed_settings(url=server.url()))
    client.banned()

    def count() -> int:
        gc.collect()  # what earlier tests left behind is not ours
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = count()
    for _ in range(5):
        with pytest.raises(FeedOutage):
            client.banned()
    assert count() <= before
