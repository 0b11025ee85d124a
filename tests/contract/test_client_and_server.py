from itertools import chain

import pytest
from apiban.errors import FeedInvalid, FeedRateLimited, FeedUnauthorized
from apiban.feed.answer import CheckResult, EndOfList, Page
from apiban.feed.client import FeedClient

from tests.contract.conftest import Feed
from tests.unit.feed.parts import KEY

THOUSAND = [f"198.51.{number // 250}.{number % 250}" for number in range(1000)]


def pages(client: FeedClient, cursor: str = "100") -> tuple[list[list[str]], str]:
    """Page to the end; give the pages and the last ID."""
    found = []
    while isinstance(answer := client.banned(cursor), Page):
        found.append([str(one) for one in answer.networks])
        cursor = answer.cursor
    assert answer == EndOfList()
    return found, cursor


def test_thousand_addresses_are_paged(feed: Feed, version: int) -> None:
    """Four full pages, everything once and in order, then the end."""
    found, _ = pages(feed(THOUSAND).client(version))
    assert [len(page) for page in found] == [250] * 4
    assert list(chain(*found)) == THOUSAND


@pytest.mark.parametrize("count", [0, 1, 249, 250, 251])
def test_any_number_ends(feed: Feed, version: int, count: int) -> None:
    """A full page does not tell that there is more, nor a short one that there is not."""
    found, _ = pages(feed(THOUSAND[:count]).client(version))
    assert list(chain(*found)) == THOUSAND[:count]


def test_default_cursor_is_the_start(feed: Feed, version: int) -> None:
    """A client that knows nothing begins with the oldest."""
    answer = feed(THOUSAND).client(version).banned()
    assert isinstance(answer, Page)
    assert str(answer.networks[0]) == THOUSAND[0]


def test_what_comes_later_is_given_later(feed: Feed, version: int) -> None:
    """The ID at the end of the list stays good, and gives what is new."""
    service = feed(THOUSAND[:300])
    client = service.client(version)
    _, cursor = pages(client)
    assert client.banned(cursor) == EndOfList()
    service.clock.tick(60)
    service.list("2001:db8::/48", *THOUSAND[100:300])
    assert pages(client, cursor)[0] == [["2001:db8::/48"]]


@pytest.mark.parametrize(
    ("address", "listed"),
    [
        ("198.51.100.7", True),
        ("198.51.100.8", False),
        ("2001:db8::1", True),
        ("2001:DB8:0::0:1", True),
        ("2001:db8::2", False),
        ("::ffff:198.51.100.7", True),
        ("203.0.113.200", True),
        ("203.0.114.0", False),
    ],
)
def test_check(feed: Feed, version: int, address: str, listed: bool) -> None:  # noqa: FBT001
    """Hosts, hosts within a listed network, and any spelling."""
    client = feed(["198.51.100.7", "2001:db8::1", "203.0.113.0/24"]).client(version)
    assert client.check(address) == CheckResult(listed=listed)


@pytest.mark.parametrize("key", ["other", KEY + "x", KEY[:-1], KEY.upper(), "k%20y", "?", "get"])
def test_wrong_key(feed: Feed, version: int, key: str) -> None:
    """Refused for every question, and near is not enough."""
    client = feed(THOUSAND).client(version, key)
    with pytest.raises(FeedUnauthorized):
        client.banned()
    with pytest.raises(FeedUnauthorized):
        client.check(THOUSAND[0])


def test_wrong_key_is_refused_at_the_end_of_the_list_too(feed: Feed, version: int) -> None:
    """An empty list is not an open one."""
    with pytest.raises(FeedUnauthorized):
        feed().client(version, "other").banned("9" * 20)


def test_wrong_keys_do_not_use_up_the_budget(feed: Feed, version: int) -> None:
    """A stranger cannot keep the operator's nodes out."""
    service = feed(THOUSAND, limit=1)
    for _ in range(3):
        with pytest.raises(FeedUnauthorized):
            service.client(version, "other").banned()
    assert isinstance(service.client(version).banned(), Page)


@pytest.mark.parametrize("key", ["a.key_of~one's-own".replace("'", "") + "1234", "9" * 20])
def test_odd_key_is_understood(feed: Feed, version: int, key: str) -> None:
    """Every character that a key may hold is the same on both sides."""
    client = feed(THOUSAND[:1], key=key).client(version, key)
    assert isinstance(client.banned(), Page)


def test_rate_limit(feed: Feed, version: int) -> None:
    """Five in two minutes over all questions; then the wait is told, and is enough."""
    service = feed(THOUSAND, limit=5)
    client = service.client(version)
    client.banned()
    service.clock.tick(30.5)
    for _ in range(4):
        client.check("192.0.2.1")
    for wait in (90, 60):
        for ask in (client.banned, lambda: client.check("192.0.2.1")):
            with pytest.raises(FeedRateLimited) as caught:
                ask()
            assert caught.value.retry_after == wait
        service.clock.tick(30)
    service.clock.tick(30)
    assert isinstance(client.banned(), Page)
    with pytest.raises(FeedRateLimited):
        client.banned()


@pytest.mark.parametrize("cursor", ["abc", "-1", "1.5", "9" * 41, " ", "1/2", "1?x", "\u0661"])
def test_malformed_cursor(feed: Feed, version: int, cursor: str) -> None:
    """Never the end of the list."""
    with pytest.raises(FeedInvalid):
        feed(THOUSAND).client(version).banned(cursor)


@pytest.mark.parametrize(
    "address", ["x", "192.0.2.256", "192.0.2.0/24", "::g", "", "192.0.2.1,192.0.2.2", "not blocked"]
)
def test_malformed_address(feed: Feed, version: int, address: str) -> None:
    """Never "not listed"."""
    with pytest.raises(FeedInvalid):
        feed(THOUSAND).client(version).check(address)


@pytest.mark.parametrize("path", ["v9/", "api/", "health/", "%2e%2e/"])
def test_unknown_path(feed: Feed, version: int, path: str) -> None:
    """A wrong base URL is an error, never an empty list."""
    client = feed(THOUSAND).client(version, path=path)
    with pytest.raises(FeedInvalid):
        client.banned()
    with pytest.raises(FeedInvalid):
        client.check(THOUSAND[0])


@pytest.mark.parametrize("name", ["sip", "all"])
def test_sets(feed: Feed, version: int, name: str) -> None:
    """What probed SIP is in the sets that say so."""
    assert isinstance(feed(THOUSAND).client(version, set=name).banned(), Page)


def test_other_set(feed: Feed) -> None:
    """What probed SIP is not what probed HTTP."""
    assert feed(THOUSAND).client(2, set="http").banned() == EndOfList()


def test_unknown_set(feed: Feed) -> None:
    """A set that does not exist is not an empty one."""
    with pytest.raises(FeedInvalid):
        feed(THOUSAND).client(2, set="smtp").banned()
