import base64
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from apiban.errors import StoreError
from apiban.feed.server.page import page_router, routes
from apiban.feed.server.page.figures import Figures
from apiban.settings.secret import Secret
from fastapi import FastAPI

from tests.contract.asgi import Raw, call
from tests.support.filled import CLIENT_KEY, HOSTILE, PASSWORD, SOURCE, FilledFeed, sqlite_in

PRIVATE = ("pot-north", "client-west", SOURCE, "198.51.100.8", "203.0.113.9", "192.0.9.0",
           "secret-partner", "a farm", "owned", CLIENT_KEY)  # fmt: skip


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[FilledFeed]:
    """Give a feed with something of everything, and a password."""
    with closing(FilledFeed(sqlite_in(tmp_path))) as feed:
        feed.operator.set_password(Secret(PASSWORD))
        yield feed


def body(answer: Raw, status: int = 200) -> str:
    """Give the text of an answer that has this status."""
    assert answer.status == status
    return answer.body.decode()


def is_safe(answer: Raw) -> bool:
    """Tell whether the headers let nothing happen but what the stylesheet says."""
    style = re.search(r"<style>(.*?)</style>", answer.body.decode(), re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    return (
        policy.startswith("default-src 'none'; ")
        and f"style-src 'sha256-{digest}';" in policy
        and "unsafe" not in policy
        and "script" not in policy
        and answer.headers["x-content-type-options"] == "nosniff"
        and answer.headers["referrer-policy"] == "no-referrer"
    )


def test_everyone_sees_figures_and_charts(feed: FilledFeed) -> None:
    """The numbers, and a drawing for each subject."""
    text = body(feed.get("/"))
    assert "1,240" in text
    assert "complete 2 min ago" in text
    assert "1 <small>of 1</small>" in text
    assert text.count("<svg ") == 7
    assert "REGISTER: 41, INVITE: 1" in text


def test_nobody_else_sees_keys_addresses_or_evidence(feed: FilledFeed) -> None:
    """Neither in the public page nor in what refuses the others."""
    for path in ("/", "/operator/", f"/operator/evidence?address={SOURCE}"):
        text = feed.get(path).body.decode()
        assert [word for word in PRIVATE if word in text] == []


def test_the_operator_sees_them(feed: FilledFeed) -> None:
    """On one page with the figures; never a key or its hash."""
    text = body(feed.get("/operator/", password=PASSWORD))
    seen = {word for word in PRIVATE if word in text}
    assert seen == set(PRIVATE) - {CLIENT_KEY, "203.0.113.9"}
    assert hashlib.sha256(CLIENT_KEY.encode()).hexdigest() not in text
    assert text.count("<svg ") == 8
    assert "60 in 60 s" in text
    assert "key made" in text


def test_the_public_page_is_the_same_for_the_operator(feed: FilledFeed) -> None:
    """It is kept for all, so it must not depend on who asks."""
    assert feed.get("/", password=PASSWORD).body == feed.get("/").body


def test_the_evidence_on_an_address(feed: FilledFeed) -> None:
    """All that is known, in any spelling of the address."""
    text = body(feed.get(f"/operator/evidence?address=%20{SOURCE}", password=PASSWORD))
    assert f"<h1>{SOURCE}</h1>" in text
    assert "file:secret-partner" in text
    assert "pot-north" in text


def test_forged_evidence_is_called_so(feed: FilledFeed) -> None:
    """An unproven source's page says that nobody is listed for it."""
    text = body(feed.get("/operator/evidence?address=203.0.113.9", password=PASSWORD))
    assert "may be forged" in text
    assert "Not listed" in text


@pytest.mark.parametrize(
    "address", ["", "x", "1.2.3.4/99", "%3Cscript%3E", "%00", "1.2.3.4'--", "9" * 5000]
)
def test_what_is_no_address_is_refused(feed: FilledFeed, address: str) -> None:
    """With a page that says so, and shows it as text."""
    answer = feed.get(f"/operator/evidence?address={address}", password=PASSWORD)
    assert "not a" in body(answer, 400)
    assert "<script" not in answer.body.decode()
    assert is_safe(answer)


@pytest.mark.parametrize("path", ["/operator/", f"/operator/evidence?address={SOURCE}"])
def test_what_came_in_packets_is_text(feed: FilledFeed, path: str) -> None:
    """No tag of a scanner's making, and no character that cannot be seen."""
    text = body(feed.get(path, password=PASSWORD))
    assert "<script" not in text
    assert "&lt;/td&gt;--&gt;&#34;&gt;&lt;script&gt;" in text
    assert "\\x1b[31m\\u202egnp.exe" in text
    assert all(one.isprintable() or one == "\n" for one in text)
    assert HOSTILE not in text


def test_every_answer_has_the_headers(feed: FilledFeed) -> None:
    """Good ones and refusals."""
    for answer in (
        feed.get("/"),
        feed.get("/operator/"),
        feed.get("/operator/", password=PASSWORD),
        feed.get(f"/operator/evidence?address={SOURCE}", password=PASSWORD),
    ):
        assert is_safe(answer)


def test_only_the_public_page_may_be_kept(feed: FilledFeed) -> None:
    """What is the operator's, or tells of it, is stored nowhere."""
    assert feed.get("/").headers["cache-control"] == "public, max-age=5"
    for path in ("/operator", "/operator/", f"/operator/evidence?address={SOURCE}"):
        for password in (None, PASSWORD):
            assert feed.get(path, password=password).headers["cache-control"] == "no-store"


def test_the_login_is_asked_for_where_the_pages_lie(feed: FilledFeed) -> None:
    """/operator leads to /operator/, relative so that a prefix does no harm, and that asks."""
    answer = feed.get("/operator")
    assert (answer.status, answer.headers["location"]) == (308, "operator/")
    for path in ("/operator/", "/operator/evidence"):
        refused = feed.get(path)
        assert refused.status == 401
        assert refused.headers["www-authenticate"].startswith("Basic realm=")


def test_too_many_tries_are_told(feed: FilledFeed) -> None:
    """With when to come again, and no new question for a password."""
    for _ in range(5):
        assert feed.get("/operator/", password="wrong password").status == 401
    answer = feed.get("/operator/", password=PASSWORD)
    assert (answer.status, answer.headers["retry-after"]) == (429, "60")
    assert "www-authenticate" not in answer.headers
    assert is_safe(answer)


def test_this_machine_needs_no_password(tmp_path: Path) -> None:
    """When it is trusted; through a proxy it is asked."""
    with closing(FilledFeed(sqlite_in(tmp_path), trust_loopback=True)) as feed:
        here: dict[str, Any] = {"client": "127.0.0.1", "headers": {"Host": "localhost"}}
        assert SOURCE in body(feed.get("/operator/", **here))
        here["headers"]["X-Forwarded-For"] = "192.0.2.1"
        assert feed.get("/operator/", **here).status == 401


@pytest.mark.parametrize("path", ["/", "/operator/", "/operator/evidence", "/operator"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed_here(feed: FilledFeed, path: str, method: str) -> None:
    """The pages are for reading."""
    assert call(feed.app, method, path).status == 405


def test_the_routes_are_not_in_the_api_document(feed: FilledFeed) -> None:
    """It tells of the API alone."""
    assert feed.app.openapi()["paths"] == {}


def test_a_flood_of_views_costs_one_look(feed: FilledFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is made anew when it is some seconds old, or the clock was set back."""
    looks = counted(monkeypatch, lambda: None)
    pages = {feed.get("/").body for _ in range(20)}
    assert (len(looks), len(pages)) == (1, 1)
    feed.clock.tick(4.9)
    feed.get("/")
    assert len(looks) == 1
    feed.clock.tick(0.1)
    feed.get("/")
    assert len(looks) == 2
    feed.clock.set_wall(feed.clock.now() - 3600)
    feed.get("/")
    assert len(looks) == 3


def test_visitors_do_not_wait_for_a_slow_database(
    feed: FilledFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one makes the page, the others get the last one."""
    before = feed.get("/").body
    feed.clock.tick(60)
    working, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        working.set()
        assert go_on.wait(30)

    looks = counted(monkeypatch, hang)
    answers: list[Raw] = []
    slow = threading.Thread(target=lambda: answers.append(feed.get("/")))
    slow.start()
    try:
        assert working.wait(30)
        assert feed.get("/").body == before
    finally:
        go_on.set()
        slow.join()
    assert len(looks) == 1
    assert b"As of 2027-01-15 08:01 UTC" in answers[0].body


class WatchedLock:
    """A lock that tells when somebody comes while another one holds it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.release = self._lock.release
        self.contended = threading.Event()

    def acquire(self, *, timeout: float) -> bool:
        """Take it, or wait."""
        if self._lock.acquire(blocking=False):
            return True
        self.contended.set()
        return self._lock.acquire(timeout=timeout)


@pytest.mark.parametrize(("patience", "status"), [(30, 200), (0, 503)])
def test_the_first_visitors_wait_for_one_page(
    feed: FilledFeed, monkeypatch: pytest.MonkeyPatch, patience: float, status: int
) -> None:
    """When there is none yet, it is made once for all; who waited too long is told to come back."""
    lock = WatchedLock()
    monkeypatch.setattr(routes, "threading", SimpleNamespace(Lock=lambda: lock))
    monkeypatch.setattr(routes, "_PATIENCE", patience)
    app = FastAPI()
    app.include_router(page_router(feed.database, feed.clock.now, feed.operator))
    answers: list[Raw] = []
    second = threading.Thread(target=lambda: answers.append(call(app, "GET", "/")))

    def visit() -> None:
        second.start()
        assert lock.contended.wait(30)

    looks = counted(monkeypatch, visit)
    first = call(app, "GET", "/")
    second.join()
    assert len(looks) == 1
    assert (first.status, answers[0].status) == (200, status)
    assert (answers[0].body == first.body) is (status == 200)


def test_a_database_that_fails_is_said(feed: FilledFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everywhere with 503 and none of its own words; a flood does not reach it either."""

    def fail() -> None:
        raise StoreError("secret words of the driver")

    looks = counted(monkeypatch, fail)
    for _ in range(3):
        answer = feed.get("/")
        assert "cannot be read" in body(answer, 503)
        assert "secret words" not in answer.body.decode()
        assert is_safe(answer)
    assert len(looks) == 1
    assert feed.get("/operator/", password=PASSWORD).status == 503
    feed.clock.tick(5)
    monkeypatch.undo()
    assert feed.get("/").status == 200


def test_the_prefix_of_a_proxy_does_no_harm(feed: FilledFeed) -> None:
    """Every link is relative."""
    for path in ("/", "/operator/", f"/operator/evidence?address={SOURCE}"):
        text = body(feed.get(path, password=PASSWORD))
        links = re.findall(r'(?:href|action|src)="([^"]*)"', text)
        assert links
        assert [link for link in links if link.startswith("/") or "//" in link] == []


def test_it_can_be_kept_longer(feed: FilledFeed) -> None:
    """For as long as the application says, and browsers are told."""
    app = FastAPI()
    router = page_router(feed.database, feed.clock.now, feed.operator, cache_seconds=60)
    app.include_router(router)
    before = call(app, "GET", "/")
    feed.clock.tick(59)
    assert call(app, "GET", "/").body == before.body
    assert before.headers["cache-control"] == "public, max-age=60"


def counted(monkeypatch: pytest.MonkeyPatch, first: Callable[[], None]) -> list[Figures | None]:
    """Count the looks at the database, and do something before each."""
    looks: list[Figures | None] = []
    real = routes.figures_at

    def look(*arguments: Any) -> Figures:
        looks.append(None)
        first()
        return real(*arguments)

    monkeypatch.setattr(routes, "figures_at", look)
    return looks
