import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.contract.feed.conftest import LISTED
from tests.support.feedservice import HOST, MALFORMED, QUEUE, REFUSED, FeedService

DEEP = 100_000
CLOSES_WITHIN = 16.0

# What is tested here ends before the database.
pytestmark = pytest.mark.parametrize("shared", ["sqlite"], indirect=True)


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"nonsense",
        b"set=sip&id=100",
        b"\x00",
        b"\xff\xfe{\x00}\x00",
        b'{"id":"\xff\xff"}',
        b"\xef\xbb\xbf{",
        b"[" * 4000,
        b'{"id":' * 600,
        b'{"id":NaN}',
        b'{"id":-Infinity}',
        b'{"id":1e999}',
        b'{"id":' + b"9" * 3900 + b"}",
        b'{"id":"\\ud800"}',
        b'{"id":"100","set":"\\ud800"}',
        b'{"id":"\\u0000"}',
        b'{"ipaddress":"\\ud800"}',
        b'{"ipaddress":"45.80.0.1\\u0000"}',
        b'{"ipaddress":"\\u0664\\u0665.80.0.1","id":"x"}',
    ],
    ids=lambda raw: repr(raw[:24]),
)
@pytest.mark.parametrize("verb", ["get", "check", "report"])
def test_bodies_that_are_no_question(shared: FeedService, verb: str, raw: bytes) -> None:
    """Malformed, in all three places that read a body."""
    if verb == "get" and raw.startswith(b'{"ipaddress":"45'):
        pytest.skip("a page may be asked for with a member too many")
    if verb == "get" and raw == b'{"ipaddress":"\\ud800"}':
        pytest.skip("the same")
    key = shared.keys["pot" if verb == "report" else "reader"]
    assert shared.post(verb, key, raw).shown == MALFORMED


@pytest.mark.parametrize("verb", ["get", "check", "report"])
@pytest.mark.parametrize(
    "raw",
    [b"[" * DEEP, b'{"a":' * DEEP, b'{"x":' + b"[" * DEEP + b"]" * DEEP + b"}"],
    ids=["lists", "objects", "closed"],
)
def test_deep_bodies(shared: FeedService, verb: str, raw: bytes) -> None:
    """A hundred thousand brackets are malformed, or too large; the service goes on."""
    key = shared.keys["pot" if verb == "report" else "reader"]
    assert shared.post(verb, key, raw).shown in (MALFORMED, (413, {}))
    assert shared.ask("GET", "/ready").status == 200


def test_deep_sighting_is_not_fatal(shared: FeedService) -> None:
    """Nesting within a sighting's field, closed well: that sighting is refused, or all of it."""
    deep = "[" * 50_000 + "]" * 50_000
    raw = f'{{"queue":"{QUEUE}","sightings":[{{"sequence":1,"source":{deep}}}]}}'.encode()
    answer = shared.post("report", shared.keys["pot"], raw)
    assert answer.shown == MALFORMED or answer.document["accepted"] == 0


@pytest.mark.parametrize(("verb", "size"), [("get", 1 << 20), ("report", (1 << 20) + 1)])
def test_too_large_by_its_length(shared: FeedService, verb: str, size: int) -> None:
    """413 at once, without reading; or after reading, when it was sent."""
    key = shared.keys["pot" if verb == "report" else "reader"]
    assert shared.post(verb, key, b" " * size).shown == (413, {})
    got, seconds = first_byte(shared, request(verb, key, f"Content-Length: {1 << 40}"))
    assert got.startswith(b"HTTP/1.1 413 ")
    assert seconds < 5


def test_too_large_in_chunks(shared: FeedService) -> None:
    """A body without a length is counted as it comes."""
    head = request("report", shared.keys["pot"], "Transfer-Encoding: chunked", "Connection: close")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    assert shared.exchange(head + chunk * 40 + b"0\r\n\r\n", 8).startswith(b"HTTP/1.1 413 ")


def test_report_of_the_greatest_size_is_taken(shared: FeedService) -> None:
    """Blanks up to 1 MiB are within the limit."""
    body = json.dumps({"queue": QUEUE, "sightings": []}).encode()
    answer = shared.post("report", shared.keys["pot"], body.ljust(1 << 20))
    assert answer.shown == (200, {"accepted": 0, "repeated": 0, "refused": []})


def request(verb: str, key: str, *headers: str) -> bytes:
    """Give the head of a v2 request."""
    lines = [f"POST /api/{verb} HTTP/1.1", "Host: x", f"Authorization: Bearer {key}"]
    lines += ["Content-Type: application/json", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def trickle(service: FeedService, start: bytes, drip: bytes, seconds: float = 30) -> float:
    """Send a start and then a drip each half second; give the time until the service closes."""
    began = time.monotonic()
    with socket.create_connection((HOST, service.port), timeout=5) as connection:
        connection.sendall(start)
        connection.settimeout(0.5)
        while time.monotonic() - began < seconds:
            try:
                if drip:
                    connection.sendall(drip)
                if not connection.recv(65536):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    return time.monotonic() - began


def first_byte(service: FeedService, start: bytes) -> tuple[bytes, float]:
    """Send a start and no more; give what comes back first, and after how many seconds."""
    began = time.monotonic()
    with socket.create_connection((HOST, service.port), timeout=30) as connection:
        connection.sendall(start)
        return connection.recv(65536), time.monotonic() - began


def test_slow_requests_end(shared: FeedService) -> None:
    """Slow heads, bodies and silence end within 15 s (a body by 408); others are served."""
    key = shared.keys["reader"]
    body = request("get", key, "Content-Length: 4000")
    stranger = request("get", "x", "Content-Length: 4000")
    report = request("report", shared.keys["pot"], "Content-Length: 4000")
    chunked = request("get", key, "Transfer-Encoding: chunked")
    slow: dict[str, Callable[[], float]] = {
        "silence": lambda: trickle(shared, b"", b""),
        "request line": lambda: trickle(shared, b"GET /", b"a"),
        "header's name": lambda: trickle(shared, b"GET /health HTTP/1.1\r\nX", b"a"),
        "many headers": lambda: trickle(shared, b"GET /health HTTP/1.1\r\n", b"A: b\r\n"),
        "blank lines": lambda: trickle(shared, b"\r\n", b"\r\n"),
        "no body": lambda: trickle(shared, body, b""),
        "body": lambda: trickle(shared, body, b" "),
        "stranger's body": lambda: trickle(shared, stranger, b" "),
        "report": lambda: trickle(shared, report, b" "),
        "chunks": lambda: trickle(shared, chunked, b"1\r\n \r\n"),
        "after an answer": lambda: trickle(
            shared, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /", b"a"
        ),
        "body of another": lambda: trickle(
            shared, b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n", b" "
        ),
    }
    with ThreadPoolExecutor(len(slow) * 4 + 1) as pool:
        late = pool.submit(first_byte, shared, body + b"{")
        ends = {name: [pool.submit(one) for _ in range(4)] for name, one in slow.items()}
        for _ in range(20):
            assert shared.banned(2, key).document["ipaddress"] == LISTED[:250]
        took = {name: max(end.result() for end in each) for name, each in ends.items()}
    assert late.result()[0].startswith(b"HTTP/1.1 408 ")
    assert 8 <= late.result()[1] <= 12
    assert {name: took[name] for name in took if took[name] > CLOSES_WITHIN} == {}


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 50_000 + b"\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"A" * 500_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
        b"GET /health HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 9, 10\r\n\r\n",
        b"GET /health HTTP/1.1\r\nBad Header\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/\x00/banned HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=lambda head: repr(head[:30]),
)
def test_requests_that_are_none(shared: FeedService, head: bytes) -> None:
    """An answer that says so, or none; never a fault, and the service goes on."""
    got = shared.exchange(head, 3, close=True)
    assert not got or got.startswith(b"HTTP/1.1 ")
    assert not got.startswith(b"HTTP/1.1 5")
    assert shared.ask("GET", "/health").status == 200


def test_hostile_authorization_headers(shared: FeedService) -> None:
    """Bytes that are no text, and much of it."""
    for bearer in (b"\xff\xfe", b"a" * 30_000, b"\xc3\xa9", b"", b"a\tb", b"x" * 4000 + b" y"):
        head = b"POST /api/get HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n"
        got = shared.exchange(head + b"Authorization: Bearer " + bearer + b"\r\n\r\n{}", 5)
        assert got.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 400 ", b"HTTP/1.1 431 ")), bearer[:9]


def test_pipelining(shared: FeedService) -> None:
    """Requests sent at once are answered in their order."""
    key = shared.keys["reader"]
    one = f"GET /api/{key}/check/{LISTED[0]} HTTP/1.1\r\nHost: x\r\n\r\n"
    two = f"GET /api/{key}/check/x HTTP/1.1\r\nHost: x\r\n\r\n"
    body = '{"ipaddress":"45.90.9.9"}'
    three = request("check", key, f"Content-Length: {len(body)}").decode() + body
    last = "GET /api/x/banned HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    got = shared.exchange((one + two + three + last).encode(), 5)
    statuses = [part.split()[0] for part in got.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"400", b"400", b"403"]
    assert LISTED[0].encode() in got
    assert b"not blocked" in got


def test_many_pipelined_requests(shared: FeedService) -> None:
    """Two thousand on one connection are answered, or refused, and others are served meanwhile."""
    one = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with ThreadPoolExecutor(1) as pool:
        flood = pool.submit(shared.exchange, one * 2000, 10, close=True)
        began = time.monotonic()
        assert shared.ask("GET", "/health").status == 200
        assert time.monotonic() - began < 3
        assert flood.result().startswith(b"HTTP/1.1 200 ")


def test_body_of_a_get_is_ignored_or_refused(shared: FeedService) -> None:
    """It never becomes the next request (a smuggled one)."""
    inner = b"GET /api/x/banned HTTP/1.1\r\nHost: x\r\n\r\n"
    head = f"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(inner)}"
    got = shared.exchange(head.encode() + b"\r\n\r\n" + inner, 3, close=True)
    assert got.count(b"HTTP/1.1 ") == 1


def test_expect_continue(shared: FeedService) -> None:
    """A client that asks before it sends is told to go on."""
    head = request(
        "get",
        shared.keys["reader"],
        "Content-Length: 2",
        "Expect: 100-continue",
        "Connection: close",
    )
    got = shared.exchange(head + b"{}", 5)
    assert b"HTTP/1.1 200 " in got


def test_after_all_this_it_still_refuses_strangers(shared: FeedService) -> None:
    """And has printed no fault."""
    assert shared.banned(1, "stranger").shown == REFUSED
    assert "Traceback" not in shared.output()
    assert "event=fault" not in shared.output()
