"""The client of an APIBAN service, v1 and v2.

v1 carries the key in the URL's path, and every exception of an HTTP library names the URL. So no
exception leaves this module with its cause, and ours say what happened in words of our own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urlsplit

import requests
import urllib3
from requests.utils import get_environ_proxies

from apiban import __version__
from apiban.address import is_loopback
from apiban.errors import FeedInvalid, FeedOutage
from apiban.feed.answer import FROM_START, CheckResult, EndOfList, Page, read_check, read_page
from apiban.feed.deadline import Deadline, DeadlineAdapter
from apiban.settings.model import FeedSettings

__all__ = ["Feed", "FeedClient", "HttpRequest", "HttpResponse", "HttpSettings"]
__all__ += ["RequestsTransport", "Transport"]

# A page of 250 addresses is about 10 kB; nothing that the API documents is near this.
LARGEST_BODY: Final = 1 << 20
_CONNECT_TIMEOUT: Final = 10.0


class Feed(Protocol):
    """What the sync needs of a feed."""

    def banned(self, cursor: str = FROM_START) -> Page | EndOfList:
        """Give the batch after ``cursor``."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class HttpRequest:
    """A request; its repr holds neither the URL nor the headers, since either holds the key."""

    method: str
    url: str
    headers: dict[str, str]
    json: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"HttpRequest({self.method})"


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An answer, whole: the status, the decoded body, and the Retry-After header."""

    status: int
    body: bytes
    retry_after: str | None = None


class Transport(Protocol):
    """Sends one request and gives the whole answer, or raises FeedOutage or FeedInvalid."""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Send it."""
        ...


class FeedClient:
    """Asks one service with one key. Each method is exactly one HTTP request."""

    def __init__(self, settings: FeedSettings, transport: Transport | None = None) -> None:
        self._settings = settings
        self._transport = transport or RequestsTransport(settings)

    def banned(self, cursor: str = FROM_START) -> Page | EndOfList:
        """Ask for the batch after ``cursor``, a decimal ID.

        Raises:
            FeedOutage, FeedInvalid, FeedUnauthorized, FeedRateLimited

        """
        if self._settings.version == 1:
            request = self._get("banned", cursor)
        else:
            request = self._post("get", {"set": self._settings.set, "id": cursor})
        response = self._transport(request)
        answer = read_page(response.status, response.body, response.retry_after)
        if isinstance(answer, Page) and int(answer.cursor) <= int(cursor):
            raise FeedInvalid("the page's ID does not grow, so paging would never end")
        return answer

    def check(self, ip: str) -> CheckResult:
        """Ask whether one address is listed now.

        Raises:
            FeedOutage, FeedInvalid, FeedUnauthorized, FeedRateLimited

        """
        if self._settings.version == 1:
            request = self._get("check", ip)
        else:
            request = self._post("check", {"set": self._settings.set, "ipaddress": ip})
        response = self._transport(request)
        return read_check(response.status, response.body, ip, response.retry_after)

    def _get(self, verb: str, what: str) -> HttpRequest:
        key = quote(self._settings.key.reveal(), safe="")
        url = f"{self._settings.url}{key}/{verb}/{quote(what, safe=':')}"
        return HttpRequest("GET", url, {})

    def _post(self, verb: str, body: dict[str, str]) -> HttpRequest:
        bearer = {"Authorization": f"Bearer {self._settings.key.reveal()}"}
        return HttpRequest("POST", self._settings.url + verb, bearer, body)


class _Session(requests.Session):
    """A session for which no answer is a redirect: it would read that one's body unbounded."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Give nowhere."""
        del resp
        return None


class HttpSettings(Protocol):
    """What the transport needs to know."""

    @property
    def timeout(self) -> float:
        """Of a whole exchange, in seconds."""
        ...

    @property
    def ca_file(self) -> Path | None:
        """A CA bundle, or None for the system's."""
        ...


class RequestsTransport:
    """The real transport: TLS verified, no redirects, total deadline, bounded body.

    A session lives for one request: polls are minutes apart, and no connection or cookie is kept.
    ``.netrc`` is not read, since it would replace the key; the proxy variables are honoured.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._timeout = settings.timeout
        # urllib3 writes whole URLs to these, and in v1 a URL holds the key.
        for name in ("connection", "connectionpool", "util.retry"):
            logging.getLogger(f"urllib3.{name}").disabled = True
        self._verify: bool | str = str(settings.ca_file) if settings.ca_file else True

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Send it and read the answer to its end.

        Raises:
            FeedOutage: no connection, a broken one, or no whole answer within the deadline.
            FeedInvalid: an answer larger than any that the API documents.

        """
        with Deadline(self._timeout) as deadline, _Session() as session:
            session.trust_env = False
            session.mount("https://", DeadlineAdapter(deadline))
            session.mount("http://", DeadlineAdapter(deadline))
            try:
                response = self._exchange(session, request)
                if not deadline.expired:  # an answer cut off by it may look like a whole one
                    return response
                why = "no whole answer in time"
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                why = "no whole answer in time" if deadline.expired else _reason(error)
            except ValueError:
                why = "the request could not be made"
        raise FeedOutage(f"{urlsplit(request.url).hostname}: {why}")

    def _exchange(self, session: requests.Session, request: HttpRequest) -> HttpResponse:
        host = urlsplit(request.url).hostname or ""
        with session.request(
            request.method,
            request.url,
            json=request.json,
            headers={
                "User-Agent": f"apiban-kamailio/{__version__}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                **request.headers,
            },
            timeout=(min(_CONNECT_TIMEOUT, self._timeout), self._timeout),
            allow_redirects=False,
            stream=True,
            verify=self._verify,
            # The key of a feed on this host stays on it: plain http is fine there alone.
            proxies={} if is_loopback(host) else get_environ_proxies(request.url),
        ) as response:
            response.raw.enforce_content_length = True  # urllib3 of Debian 12 takes less as whole
            body = bytearray()
            for chunk in response.raw.stream(8192, decode_content=True):
                body += chunk
                if len(body) > LARGEST_BODY:
                    raise FeedInvalid(f"an answer of over {LARGEST_BODY} bytes")
            return HttpResponse(
                response.status_code, bytes(body), response.headers.get("Retry-After")
            )


def _reason(error: BaseException) -> str:
    """Say what kind of failure it was without any of the error's own text: it holds the URL."""
    if isinstance(error, requests.exceptions.SSLError):
        return "its TLS certificate is not trusted, or TLS failed"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy did not take us there"
    if isinstance(error, requests.exceptions.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "no connection"
    return "the answer broke off"
