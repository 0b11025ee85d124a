"""What the doctor says of the way to the feed, and that it sends no key there."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest
from apiban.doctor.feed import check_certificate, check_clock, check_feed
from apiban.doctor.finding import Finding
from apiban.settings import load_settings

from tests.unit.feed.conftest import Serve
from tests.unit.feed.local import answer

NOW = 1_800_000_000.0
DAY = 86400.0


def rfc(at: float) -> str:
    """Give a time as HTTP does."""
    return format_datetime(datetime.fromtimestamp(at, UTC), usegmt=True)


def look(url: str, now: float, **more: str) -> list[Finding]:
    """Give the findings for a feed at this URL."""
    environ = {"APIBAN_FEED_URL": url, "APIBAN_KEY": "kkeeyy", **more}
    settings = load_settings(Path("/nonexistent"), environ)
    return list(check_feed(settings.feed, now=lambda: now))


def test_plain_feed_on_loopback(serve: Serve) -> None:
    """It is asked for the head of "/" alone: no key, none of the API's paths."""
    server = serve(answer(b"", f"Date: {rfc(NOW)}", status="404 Not Found"))
    found = look(server.url(), NOW + 1)
    assert [one.level for one in found] == ["ok", "ok"]
    (asked,) = server.requests
    assert asked.startswith(b"HEAD / HTTP/1.1\r\n")
    assert b"kkeeyy" not in asked
    assert b"api" not in asked


def test_trusted_certificate(serve: Serve, certificate: Path, tls: ssl.SSLContext) -> None:
    """TLS with the roots of the settings, and how long its certificate is good for."""
    now = datetime.now(UTC).timestamp()
    server = serve(answer(b"", f"Date: {rfc(now)}"), tls=tls)
    found = look(server.url("https"), now, APIBAN_FEED_CA_FILE=str(certificate))
    assert [(one.check, one.level) for one in found] == [("feed", "warn"), ("clock", "ok")]
    assert "1 days" in found[0].what
    assert b"kkeeyy" not in server.requests[0]


def test_certificate_that_nobody_vouches_for(serve: Serve, tls: ssl.SSLContext) -> None:
    """A certificate from elsewhere fails, and nothing is sent."""
    server = serve(answer(), tls=tls)
    found = look(server.url("https"), NOW)
    assert found[-1].level == "fail"
    assert "not trusted" in found[-1].what
    assert server.requests == []


def test_no_tls_at_all(serve: Serve) -> None:
    """A server that speaks no TLS fails with a word on it."""
    server = serve(lambda connection, _: connection.sendall(b"SSH-2.0-none\r\n"), reads=False)
    found = look(server.url("https"), NOW)
    assert found[-1].level == "fail"
    assert "no TLS" in found[-1].what


def test_closed_port() -> None:
    """Nobody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = look(f"http://127.0.0.1:{port}/", NOW)
    assert found[-1].level == "fail"
    assert "Connection refused" in found[-1].what


def test_unknown_name() -> None:
    """A name that cannot exist is said as such."""
    found = look("https://feed.invalid/", NOW)
    assert [one.level for one in found] == ["fail"]
    assert "feed.invalid" in found[0].what


def test_way_through_a_proxy(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the sync goes through a proxy, the doctor looks at that, and says no more."""
    server = serve(answer())
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:word@127.0.0.1:{server.port}")
    (finding,) = look("https://feed.invalid/", NOW)
    assert finding.level == "note"
    assert str(server.port) in finding.what
    assert "word" not in finding.what


@pytest.mark.parametrize(("days", "level"), [(90, "ok"), (13, "warn")])
def test_days_of_a_certificate(days: int, level: str) -> None:
    """Two weeks before its end there is a warning."""
    ends = datetime.fromtimestamp(NOW + days * DAY, UTC).strftime("%b %d %H:%M:%S %Y GMT")
    finding = check_certificate(ends, now=NOW)
    assert finding.level == level
    assert f"{days} days" in finding.what


@pytest.mark.parametrize(
    ("ours", "level"), [(0, "ok"), (59, "ok"), (61, "warn"), (-61, "warn"), (3601, "fail")]
)
def test_clock(ours: float, level: str) -> None:
    """A minute beside the server's clock is a warning, an hour is a fault."""
    assert check_clock(rfc(NOW), now=NOW + ours).level == level


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_no_date(date: str | None) -> None:
    """A server that says no time proves nothing."""
    assert check_clock(date, now=NOW).level == "note"
