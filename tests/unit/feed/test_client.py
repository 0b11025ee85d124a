import json
import traceback
from collections.abc import Callable
from dataclasses import replace

import pytest
from apiban.errors import FeedError, FeedInvalid, FeedOutage, FeedRateLimited, FeedUnauthorized
from apiban.feed.answer import CheckResult, EndOfList, Page
from apiban.feed.client import FeedClient, HttpRequest, HttpResponse
from apiban.settings import Secret

from tests.unit.feed.parts import KEY, feed_settings

ODD_KEY = "k/%?#&+;:@=\"'<>\\{}"
ODD_KEY_QUOTED = "k%2F%25%3F%23%26%2B%3B%3A%40%3D%22%27%3C%3E%5C%7B%7D"

Ask = Callable[[FeedClient], object]

both = pytest.mark.parametrize("version", [1, 2])


class Script:
    """A transport that gives one answer and keeps the requests."""

    def __init__(self, status: int, document: object, retry_after: str | None = None) -> None:
        self.requests: list[HttpRequest] = []
        self._response = HttpResponse(status, json.dumps(document).encode(), retry_after)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Take the request, give the answer."""
        self.requests.append(request)
        return self._response


def page(cursor: str = "987") -> Script:
    """Answer with a page of one address."""
    return Script(200, {"ipaddress": ["192.0.2.1"], "ID": cursor})


def end() -> Script:
    """Answer with the end of the list."""
    return Script(400, {"ipaddress": ["no new bans"], "ID": "none"})


def not_listed() -> Script:
    """Answer a check."""
    return Script(400, {"ipaddress": ["not blocked"], "ID": "none"})


@pytest.mark.parametrize(
    ("ask", "answer", "path"),
    [
        (lambda client: client.banned(), page, "banned/100"),
        (lambda client: client.banned("9876543210"), end, "banned/9876543210"),
        (lambda client: client.check("192.0.2.1"), not_listed, "check/192.0.2.1"),
        (lambda client: client.check("2001:db8::1"), not_listed, "check/2001:db8::1"),
        (lambda client: client.check("../x?y#z"), not_listed, "check/..%2Fx%3Fy%23z"),
    ],
)
def test_v1_request(ask: Ask, answer: Callable[[], Script], path: str) -> None:
    """A GET with the key in the path, no body, and the key in no header."""
    transport = answer()
    ask(FeedClient(feed_settings(version=1), transport))
    (request,) = transport.requests
    assert (request.method, request.json) == ("GET", None)
    assert request.url == f"https://feed.example/api/{KEY}/{path}"
    assert KEY not in str(request.headers)


@pytest.mark.parametrize(
    ("ask", "answer", "path", "body"),
    [
        (lambda client: client.banned(), page, "get", {"set": "http", "id": "100"}),
        (lambda client: client.banned("987"), end, "get", {"set": "http", "id": "987"}),
        (
            lambda client: client.check("2001:db8::1"),
            not_listed,
            "check",
            {"set": "http", "ipaddress": "2001:db8::1"},
        ),
    ],
)
def test_v2_request(
    ask: Ask, answer: Callable[[], Script], path: str, body: dict[str, str]
) -> None:
    """A POST with a bearer key, whose URL holds no key."""
    transport = answer()
    ask(FeedClient(feed_settings(version=2, set="http"), transport))
    (request,) = transport.requests
    assert (request.method, request.json) == ("POST", body)
    assert request.url == f"https://feed.example/api/{path}"
    assert request.headers == {"Authorization": f"Bearer {KEY}"}


def test_v1_quotes_the_key() -> None:
    """Whatever signs a key has, it is one segment of the path."""
    transport = page()
    FeedClient(feed_settings(version=1, key=Secret(ODD_KEY)), transport).banned()
    (request,) = transport.requests
    assert request.url == f"https://feed.example/api/{ODD_KEY_QUOTED}/banned/100"


def test_v2_sends_the_key_as_it_is() -> None:
    """A header needs no quoting."""
    transport = page()
    FeedClient(feed_settings(version=2, key=Secret(ODD_KEY)), transport).banned()
    assert transport.requests[0].headers["Authorization"] == f"Bearer {ODD_KEY}"


@both
def test_page_comes_back(version: int) -> None:
    """The networks and the next ID."""
    answer = FeedClient(feed_settings(version=version), page()).banned("986")
    assert isinstance(answer, Page)
    assert [str(one) for one in answer.networks] == ["192.0.2.1"]
    assert answer.cursor == "987"


@both
def test_end_of_list_comes_back(version: int) -> None:
    """An answer, not an error, at whatever ID."""
    assert FeedClient(feed_settings(version=version), end()).banned("987") == EndOfList()


@both
@pytest.mark.parametrize("cursor", ["987", "986", "0", "0987", "00000000000987"])
def test_id_that_does_not_grow_is_invalid(version: int, cursor: str) -> None:
    """Else paging would never end; IDs are compared as numbers."""
    client = FeedClient(feed_settings(version=version), page(cursor))
    with pytest.raises(FeedInvalid, match="does not grow"):
        client.banned("987")


@both
def test_ids_grow_as_numbers(version: int) -> None:
    """1000 is after 999, though not as a text."""
    answer = FeedClient(feed_settings(version=version), page("1000")).banned("999")
    assert isinstance(answer, Page)


@both
def test_check_comes_back(version: int) -> None:
    """Listed and not listed."""
    listed = Script(200, {"ipaddress": ["192.0.2.1"], "ID": "9"})
    settings = feed_settings(version=version)
    assert FeedClient(settings, listed).check("192.0.2.1") == CheckResult(listed=True)
    assert FeedClient(settings, not_listed()).check("192.0.2.1") == CheckResult(listed=False)
    with pytest.raises(FeedInvalid):
        FeedClient(settings, listed).check("192.0.2.2")


@both
@pytest.mark.parametrize(
    ("script", "error"),
    [
        ((403, {"ipaddress": "none", "ID": "unauthorized"}), FeedUnauthorized),
        ((429, {}, "7"), FeedRateLimited),
        ((500, {}), FeedOutage),
        ((404, {}), FeedInvalid),
        ((302, {}), FeedInvalid),
    ],
)
def test_each_failure_has_its_type(
    version: int, script: tuple[int, object], error: type[FeedError]
) -> None:
    """For pages and for checks; the key is in no error."""
    for ask in (FeedClient.banned, lambda client: client.check("192.0.2.1")):
        with pytest.raises(error) as caught:
            ask(FeedClient(feed_settings(version=version), Script(*script)))
        assert KEY not in "".join(traceback.format_exception(caught.value))
        if isinstance(caught.value, FeedRateLimited):
            assert caught.value.retry_after == 7


@both
def test_failure_of_the_transport_passes_through(version: int) -> None:
    """It has the right type already."""

    def broken(_request: HttpRequest) -> HttpResponse:
        raise FeedOutage("no connection")

    with pytest.raises(FeedOutage, match="no connection"):
        FeedClient(feed_settings(version=version), broken).banned()


@both
def test_each_question_is_one_request(version: int) -> None:
    """The budget counts questions, so none may hide a second request."""
    transport = page()
    client = FeedClient(feed_settings(version=version), transport)
    client.banned()
    client.banned("986")
    assert len(transport.requests) == 2


@both
def test_request_does_not_show_the_key(version: int) -> None:
    """Its repr is fit for a log."""
    transport = page()
    FeedClient(feed_settings(version=version), transport).banned()
    assert KEY not in f"{transport.requests[0]!r} {transport.requests[0]}"


def test_base_with_a_path_is_kept() -> None:
    """A feed of one's own may live below a path."""
    transport = page()
    settings = replace(feed_settings(version=1), url="https://hub.example/a/b/")
    FeedClient(settings, transport).banned()
    assert transport.requests[0].url == f"https://hub.example/a/b/{KEY}/banned/100"
