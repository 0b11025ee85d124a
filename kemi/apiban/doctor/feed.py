"""Can the feed be reached? Looked at as far as TLS goes: no key is sent, no request is spent."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, select_proxy

from apiban.address import is_loopback
from apiban.doctor.finding import Finding, fail, note, ok, warn
from apiban.feed.deadline import Deadline
from apiban.settings.model import FeedSettings

__all__ = ["check_certificate", "check_clock", "check_feed"]

_WITHIN: Final = 8.0
_LONGEST_HEAD: Final = 16384
_DAY: Final = 86400.0
_RENEW_BEFORE: Final = 14 * _DAY
_SKEW: Final = 60.0
_LARGE_SKEW: Final = 3600.0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the feed is, or the proxy on the way to it."""

    host: str
    port: int


def check_feed(feed: FeedSettings, *, now: Callable[[], float]) -> Iterator[Finding]:
    """Look at the way to the feed step by step, until one fails: name, connection, TLS, clock."""
    url = urlsplit(feed.url)
    place = _Place(url.hostname or "", url.port or (443 if url.scheme == "https" else 80))
    proxy = _proxy(feed.url, place.host)
    if proxy is not None:
        place = proxy
    found = yield from _resolve(place)
    if not found:
        return
    with Deadline(_WITHIN) as deadline:
        try:
            plain = deadline.connect(place.host, place.port)
        except OSError as error:
            why = error.strerror or "no answer in time"
            yield fail(
                "feed",
                f"{place.host} port {place.port} does not take us: {why}",
                "let this host out to it, or set HTTPS_PROXY in Kamailio's environment",
            )
            return
        with plain:
            if proxy is not None:
                yield note(
                    "feed",
                    f"the proxy {place.host} port {place.port} takes us; what is behind it was not"
                    " looked at (and Kamailio's environment may name another)",
                )
            elif url.scheme == "https":
                yield from _look_at_tls(plain, place, feed, now=now)
            else:
                yield ok("feed", f"{place.host} port {place.port} takes us")
                yield from _look_at_clock(plain, place, now=now)


def check_certificate(ends: str, *, now: float) -> Finding:
    """Tell for how long the feed's certificate is good; ``ends`` is as TLS says it."""
    left = ssl.cert_time_to_seconds(ends) - now
    shown = f"TLS is good; the certificate ends in {left / _DAY:.0f} days"
    if left < _RENEW_BEFORE:
        return warn("feed", shown, "if it is yours: renew it; else tell who runs the feed")
    return ok("feed", shown)


def check_clock(date: str | None, *, now: float) -> Finding:
    """Compare this host's clock with the Date that the feed's server gave."""
    try:
        theirs = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return note("clock", "the feed's server says no time to compare with")
    skew = now - theirs
    shown = f"{abs(skew):,.0f} s {'ahead of' if skew > 0 else 'behind'} the feed's server"
    mend = "set the clock (timedatectl set-ntp true; chronyc tracking)"
    if abs(skew) >= _LARGE_SKEW:
        return fail("clock", f"{shown}: bans end at the wrong time", mend)
    if abs(skew) >= _SKEW:
        return warn("clock", shown, mend)
    return ok("clock", f"in step with the feed's server ({skew:+.0f} s)")


def _resolve(place: _Place) -> Generator[Finding, None, bool]:
    """Look the name up; it gives whether there is an address."""
    try:
        answers = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except OSError as error:
        yield fail(
            "feed",
            f"the name {place.host} is not found: {error.strerror}",
            "check feed.url, and the resolver (/etc/resolv.conf)",
        )
        return False
    addresses = sorted({str(answer[4][0]) for answer in answers})
    if addresses != [place.host]:
        yield ok("feed", f"{place.host} is {', '.join(addresses[:4])}")
    return True


def _look_at_tls(
    plain: socket.socket, place: _Place, feed: FeedSettings, *, now: Callable[[], float]
) -> Iterator[Finding]:
    """Shake hands as the sync does: with the same roots."""
    context = ssl.create_default_context(cafile=str(feed.ca_file or DEFAULT_CA_BUNDLE_PATH))
    try:
        secure = context.wrap_socket(plain, server_hostname=place.host)
    except ssl.SSLCertVerificationError as error:
        yield fail(
            "feed",
            f"{place.host}: its certificate is not trusted: {error.verify_message}",
            "check this host's clock; for a feed of your own set feed.ca_file",
        )
        return
    except OSError as error:
        yield fail(
            "feed",
            f"{place.host} port {place.port}: no TLS: {getattr(error, 'reason', error.strerror)}",
            "check feed.url; does something on the way break TLS?",
        )
        return
    with secure:
        certificate = secure.getpeercert() or {}
        yield check_certificate(str(certificate["notAfter"]), now=now())
        yield from _look_at_clock(secure, place, now=now)


def _look_at_clock(
    connection: socket.socket, place: _Place, *, now: Callable[[], float]
) -> Iterator[Finding]:
    """Ask for the head of "/", which is nobody's API, and read its Date."""
    asked = f"HEAD / HTTP/1.1\r\nHost: {place.host}\r\nConnection: close\r\n\r\n"
    head = b""
    try:
        connection.sendall(asked.encode("ascii"))
        while b"\r\n\r\n" not in head and len(head) < _LONGEST_HEAD:
            more = connection.recv(4096)
            if not more:
                break
            head += more
    except OSError:
        pass  # what came so far may have it
    dates = [
        line.partition(b":")[2].strip().decode("latin-1")
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"date:")
    ]
    yield check_clock(dates[0] if dates else None, now=now())


def _proxy(url: str, host: str) -> _Place | None:
    """Give the proxy that the environment names for this URL, as the sync would take it."""
    proxies: Mapping[str, str] = {} if is_loopback(host) else get_environ_proxies(url)
    chosen = select_proxy(url, dict(proxies))
    if not chosen:
        return None
    parts = urlsplit(chosen if "://" in chosen else f"http://{chosen}")
    return _Place(parts.hostname or "", parts.port or 8080)
