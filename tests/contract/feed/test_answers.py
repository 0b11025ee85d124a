from typing import Any

import pytest

from tests.contract.feed.conftest import BLOCK, IPV6, LISTED
from tests.support.feedservice import END, MALFORMED, NOT_LISTED, REFUSED, FeedService, host


def test_pages_are_whole_in_order_and_end(shared: FeedService, version: int) -> None:
    """250 addresses a page, oldest first, and then the end at 400."""
    pages = list(shared.pages(shared.keys["reader"], version=version))
    assert [len(page) for _, page in pages] == [250, 250, 100]
    assert [one for _, page in pages for one in page] == LISTED


@pytest.mark.parametrize("cursor", ["0", "1", "100", "00100"])
def test_small_ids_are_the_start(shared: FeedService, version: int, cursor: str) -> None:
    """100 is the convention; an ID before the first is no error."""
    assert shared.listed(shared.keys["reader"], cursor, version)[:1] == LISTED[:1]


def test_no_id_is_the_start(shared: FeedService) -> None:
    """``banned`` alone, and an empty object of v2, give the first page."""
    key = shared.keys["reader"]
    first = shared.banned(1, key)
    assert first.document["ipaddress"] == LISTED[:250]
    for answer in (shared.get(f"{key}/banned"), shared.post("get", key, {})):
        assert answer.shown == first.shown
    assert shared.post("get", key, {"id": 100}).shown == first.shown


@pytest.mark.parametrize("cursor", ["9" * 18, "9" * 19, str(2**63), "9" * 40])
def test_ids_beyond_the_last_are_the_end(shared: FeedService, version: int, cursor: str) -> None:
    """Or malformed, when no ID can be so large; never an error of the database."""
    assert shared.banned(version, shared.keys["reader"], cursor).shown in (END, MALFORMED)


@pytest.mark.parametrize(
    "cursor", ["abc", "-1", "1.5", "1e3", "%20", "%00", "0x10", "%D9%A1%D9%A2", "none", "9" * 5000]
)
def test_malformed_id(shared: FeedService, cursor: str) -> None:
    """Malformed, and never the end of the list."""
    assert shared.get(f"{shared.keys['reader']}/banned/{cursor}").shown == MALFORMED


@pytest.mark.parametrize(
    "body",
    [
        {"id": "abc"},
        {"id": "-1"},
        {"id": -1},
        {"id": 1.5},
        {"id": None},
        {"id": True},
        {"id": ["100"]},
        {"id": {}},
        {"id": "\u0661\u0662"},
        {"id": "100\x00"},
        {"id": "9" * 3000},
        {"id": "100", "set": "smtp"},
        {"id": "100", "set": None},
        {"id": "100", "set": ["sip"]},
        {"id": "100", "set": "sip\x00"},
        [],
        "get",
        None,
        17,
    ],
    ids=lambda body: str(body)[:20],
)
def test_malformed_v2_question(shared: FeedService, body: Any) -> None:
    """Malformed, and never the end of the list."""
    assert shared.post("get", shared.keys["reader"], body).shown == MALFORMED


@pytest.mark.parametrize("name", ["sip", "http", "all"])
def test_sets(shared: FeedService, name: str) -> None:
    """What was listed as sip is in sip and in all, not in http."""
    answer = shared.post("get", shared.keys["reader"], {"set": name, "id": "100"})
    if name == "http":
        assert answer.shown == END
    else:
        assert answer.document["ipaddress"] == LISTED[:250]


def test_check_tells_listed_from_not_listed(shared: FeedService, version: int) -> None:
    """The address itself with its ID, or "not blocked"."""
    answer = shared.check(version, shared.keys["reader"], LISTED[3])
    assert answer.status == 200
    assert answer.document["ipaddress"] == [LISTED[3]]
    assert answer.document["ID"].isdecimal()
    assert shared.check(version, shared.keys["reader"], host(70_000)).shown == NOT_LISTED


@pytest.mark.parametrize(
    "address",
    [
        "x",
        "45.80.0.256",
        "45.80.0",
        "45.80.0.0/24",
        "1",
        "0x2d500000",
        "045.080.000.001",
        "::g",
        "%20",
    ],
)
def test_check_of_what_is_no_address(shared: FeedService, version: int, address: str) -> None:
    """Malformed, and never "not blocked"."""
    answer = shared.check(version, shared.keys["reader"], address)
    assert answer.shown in (MALFORMED, (404, {}))


@pytest.mark.parametrize("body", [{}, {"ipaddress": None}, {"ipaddress": ["45.80.0.1"]}, [], 5])
def test_malformed_v2_check(shared: FeedService, body: Any) -> None:
    """Malformed, and never "not blocked"."""
    assert shared.post("check", shared.keys["reader"], body).shown == MALFORMED


def test_ipv6_and_blocks_are_for_keys_that_have_them(shared: FeedService, version: int) -> None:
    """Every other key sees IPv4 hosts alone, in pages, in checks and in the plain list."""
    plain, both = shared.keys["reader"], shared.keys["every"]
    assert set(shared.listed(both, version=version)) == {*LISTED, IPV6, BLOCK}
    assert set(shared.listed(plain, version=version)) == set(LISTED)
    assert shared.check(version, both, IPV6).document["ipaddress"] == [IPV6]
    assert shared.check(version, plain, IPV6).shown == NOT_LISTED
    assert shared.check(version, both, "45.95.4.9").status == 200
    assert shared.check(version, plain, "45.95.4.9").shown == NOT_LISTED
    assert set(shared.ask("GET", f"/ipset/{both}/list").body.decode().split()) == {
        *LISTED,
        IPV6,
        BLOCK,
    }


def test_check_reads_any_spelling(shared: FeedService, version: int) -> None:
    """An IPv6 address is one, however it is written, and a mapped IPv4 address is IPv4."""
    key = shared.keys["every"]
    for address in ("2A0E:1BC0::0:77", "2a0e:1bc0:0:0:0:0:0:77", f"::ffff:{LISTED[0]}"):
        assert shared.check(version, key, address).status == 200


def test_ipset_is_plain_text(shared: FeedService) -> None:
    """An address a line, each once."""
    answer = shared.ask("GET", f"/ipset/{shared.keys['reader']}/list")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.body.decode("ascii") == "".join(f"{one}\n" for one in LISTED)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/{key}"),
        ("GET", "/api/{key}/"),
        ("GET", "/api/{key}/banned/"),
        ("GET", "/api/{key}/banned/100/"),
        ("GET", "/api/{key}/banned/100/1"),
        ("GET", "/api/{key}/check"),
        ("GET", "/api/{key}/check/"),
        ("GET", "/api/{key}/check/45.80.0.1/"),
        ("GET", "//api/{key}/banned"),
        ("GET", "/api//{key}/banned"),
        ("GET", "/api/{key}//banned"),
        ("GET", "/api/{key}/list"),
        ("GET", "/{key}/banned"),
        ("GET", "/ipset/{key}"),
        ("GET", "/ipset/{key}/list/"),
        ("GET", "/ipset//{key}/list"),
        ("GET", "/api/{key}/../{key}/banned/"),
        ("POST", "/api/{key}/banned"),
        ("PUT", "/api/{key}/banned"),
        ("DELETE", "/api/{key}/banned/100"),
        ("PATCH", "/api/{key}/check/45.80.0.1"),
        ("OPTIONS", "/api/{key}/banned"),
        ("TRACE", "/api/{key}/banned"),
        ("BREW", "/api/{key}/banned"),
        ("DELETE", "/ipset/{key}/list"),
        ("GET", "/api/get"),
        ("PUT", "/api/get"),
        ("GET", "/api/report"),
        ("GET", "/api/check"),
        ("POST", "/api/get/"),
        ("POST", "/api/nothing"),
        ("POST", "/health"),
        ("DELETE", "/openapi.json"),
        ("GET", "/favicon.ico/{key}"),
    ],
)
def test_what_does_not_exist(shared: FeedService, method: str, path: str) -> None:
    """An empty object and a status that says so; never a redirect that holds the key."""
    key = shared.keys["reader"]
    answer = shared.ask(method, path.format(key=key))
    assert answer.status in {400, 403, 404, 405}
    assert answer.document == {} or answer.shown == REFUSED
    assert key not in str(answer.headers)


@pytest.mark.parametrize("path", ["/api/{key}/banned", "/ipset/{key}/list", "/api/get", "/health"])
def test_head_has_no_body(shared: FeedService, path: str) -> None:
    """Whatever its status, and the next request on the connection is answered well."""
    request = f"HEAD {path.format(key=shared.keys['reader'])} HTTP/1.1\r\nHost: x\r\n\r\n"
    then = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    heads = shared.exchange((request + then).encode(), 5)
    assert heads.count(b"HTTP/1.1 ") == 2
    first, _, rest = heads.partition(b"\r\n\r\n")
    assert b" 500 " not in first
    assert rest.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_health_needs_no_key(shared: FeedService, path: str) -> None:
    """A container's health check has none."""
    assert shared.ask("GET", path).shown == (200, {"status": "ok"})


def test_pages_for_people_and_programs(shared: FeedService) -> None:
    """The status page, the metrics and the API's document are where they are said to be."""
    page = shared.ask("GET", "/")
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    assert b"apiban_feed_" in shared.ask("GET", "/metrics").body
    paths = shared.ask("GET", "/openapi.json").document["paths"]
    assert {
        "/api/{key}/banned",
        "/api/{key}/banned/{ID}",
        "/api/{key}/check/{ip}",
        "/api/get",
        "/api/check",
        "/api/report",
        "/ipset/{key}/list",
        "/health",
        "/ready",
    } <= set(paths)


def test_operator_pages_are_not_for_who_comes_through_a_proxy(shared: FeedService) -> None:
    """Loopback is the operator, unless a proxy speaks for somebody else."""
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
        answer = shared.ask("GET", "/metrics", headers={name: "for=203.0.113.9"})
        assert answer.status in {401, 403}, name


def test_status_page_shows_no_key(shared: FeedService) -> None:
    """Not even to the operator."""
    page = shared.ask("GET", "/").body.decode()
    metrics = shared.ask("GET", "/metrics").body.decode()
    for key in shared.keys.values():
        assert key not in page
        assert key not in metrics
