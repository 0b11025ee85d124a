"""The status page in a real browser: Chromium, headless, on loopback."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
import uvicorn
from apiban.settings.secret import Secret
from starlette.responses import Response

from tests.support.filled import HOSTILE, PASSWORD, SOURCE, FilledFeed, sqlite_in

_CHROMIUM = (
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-proxy-server", "--hide-scrollbars", "--enable-logging=stderr",
)  # fmt: skip
_DARK = "--blink-settings=preferredColorScheme=0"
_LIGHT = "--blink-settings=preferredColorScheme=1"


class Browser:
    """Chromium with a profile of its own; ``console`` is what the pages made it say."""

    def __init__(self, folder: Path, base: str) -> None:
        self._folder = folder
        self._base = base
        self.console: list[str] = []

    def dom(self, path: str) -> str:
        """Give the document as the browser has it once it is loaded."""
        return self._run(path, "--dump-dom")

    def picture(self, path: str, *options: str, width: int = 1280) -> Picture:
        """Give what the page looks like."""
        file = self._folder / "page.png"
        self._run(path, f"--screenshot={file}", f"--window-size={width},1200", *options)
        return Picture(file.read_bytes())

    def _run(self, path: str, *options: str) -> str:
        profile = f"--user-data-dir={self._folder / 'profile'}"
        done = subprocess.run(
            [*_CHROMIUM, profile, *options, self._base + path],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        # Chromium has pages of its own, which speak when the machine is slow.
        self.console += [
            line
            for line in done.stderr.splitlines()
            if "CONSOLE" in line and ", source: chrome://" not in line
        ]
        return done.stdout


class Picture:
    """A PNG of 8 bits a channel, as Chromium writes it."""

    def __init__(self, data: bytes) -> None:
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        chunks = list(_chunks(data[8:]))
        head = next(body for kind, body in chunks if kind == b"IHDR")
        self.width, self.height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", head)
        assert (depth, interlaced) == (8, 0)
        size = {2: 3, 6: 4}[colour]
        raw = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
        rows = _unfiltered(raw, self.width * size, size)
        self.pixels = [[tuple(row[at : at + 3]) for at in range(0, len(row), size)] for row in rows]

    @property
    def colours(self) -> set[tuple[int, ...]]:
        """Every colour in it."""
        return {pixel for row in self.pixels for pixel in row}

    @property
    def brightness(self) -> float:
        """The mean of all channels, from 0 (black) to 255."""
        return sum(sum(map(sum, row)) for row in self.pixels) / (self.width * self.height * 3)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    while data:
        (length,) = struct.unpack(">I", data[:4])
        yield data[4:8], data[8 : 8 + length]
        data = data[12 + length :]


def _unfiltered(raw: bytes, width: int, size: int) -> Iterator[bytearray]:
    """Undo PNG's five row filters."""
    above = bytearray(width)
    for start in range(0, len(raw), width + 1):
        kind, row = raw[start], bytearray(raw[start + 1 : start + 1 + width])
        for at in range(width):
            left = row[at - size] if at >= size else 0
            corner = above[at - size] if at >= size else 0
            row[at] = (row[at] + _predicted(kind, left, above[at], corner)) & 255
        yield row
        above = row


def _predicted(kind: int, left: int, up: int, corner: int) -> int:
    if kind < 4:
        return (0, left, up, (left + up) // 2)[kind]
    guess = left + up - corner
    return min((left, up, corner), key=lambda one: abs(guess - one))


@contextmanager
def served(feed: FilledFeed) -> Iterator[str]:
    """Serve a feed's pages on a port of their own; give the base URL."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        config = uvicorn.Config(feed.app, lifespan="off", access_log=False, log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[FilledFeed]:
    """Give a filled feed that trusts this machine."""
    with closing(FilledFeed(sqlite_in(tmp_path), trust_loopback=True)) as feed:
        yield feed


@pytest.fixture
def browser(feed: FilledFeed, tmp_path: Path) -> Iterator[Browser]:
    """Give a browser; a word on its console, such as a breach of the policy, fails the test."""
    with served(feed) as base:
        browser = Browser(tmp_path, base)
        yield browser
    assert browser.console == []


def described(dom: str, chart: str) -> str:
    """Give what a chart says of itself."""
    found = re.search(rf'<desc id="{chart}-desc">(.*?)</desc>', dom)
    assert found is not None
    return found[1]


def test_everyone_sees_the_numbers_and_nothing_else(browser: Browser) -> None:
    """The charts hold what was reported; no address, name or key is in the document."""
    dom = browser.dom("/")
    assert described(dom, "methods") == "REGISTER: 41, INVITE: 1"
    assert described(dom, "tools") == "sipvicious: 41, sipcli: 1"
    assert described(dom, "active-7").startswith("sip: 1,240 at 2027-01-15 08:00 UTC, ")
    assert len(re.findall('<path class="line s[0-9]"', dom)) == 4
    private = (SOURCE, "198.51.100.8", "203.0.113.9", "pot-north", "client-west", "owned")
    assert [word for word in private if word in dom] == []


@pytest.mark.parametrize("path", ["/operator/", f"/operator/evidence?address={SOURCE}"])
def test_a_hostile_user_agent_is_text(browser: Browser, path: str) -> None:
    """It ran nothing: the title is ours, there is no script, and the text stands there."""
    dom = browser.dom(path)
    assert "<title>owned" not in dom
    assert "<script" not in dom
    shown = HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert shown.replace("<", "&lt;").replace(">", "&gt;") in dom


def test_the_policy_holds_in_the_browser(feed: FilledFeed, browser: Browser) -> None:
    """A script that got into a page is not run, and the console tells: the test sees breaches."""

    @feed.app.middleware("http")
    async def poison(request: object, call_next: Callable[..., object]) -> object:
        answer = await call_next(request)  # type: ignore[misc]
        body = b"".join([chunk async for chunk in answer.body_iterator])
        headers = {k: v for k, v in answer.headers.items() if k != "content-length"}
        script = b'<script>document.title="owned"</script></body>'
        return Response(body.replace(b"</body>", script), 200, headers)

    assert "<title>APIBAN feed</title>" in browser.dom("/")
    assert any("Content Security Policy" in line for line in browser.console)
    browser.console.clear()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_can_be_seen(browser: Browser, width: int) -> None:
    """In light and in dark, wide and narrow: neither blank, nor the one like the other."""
    light = browser.picture("/", _LIGHT, width=width)
    dark = browser.picture("/", _DARK, width=width)
    assert light.width == width
    assert light.brightness > 200
    assert dark.brightness < 60
    # The colours of the first line and of the second, in either scheme.
    assert {(0x0A, 0x5F, 0xB4), (0xB5, 0x47, 0x08)} <= light.colours
    assert {(0x6D, 0xB3, 0xF8), (0xF5, 0xA3, 0x5C)} <= dark.colours


def test_the_login_works_in_the_browser(tmp_path: Path) -> None:
    """Asked by 401, it sends the password, and goes on sending it to what lies below."""
    with closing(FilledFeed(sqlite_in(tmp_path))) as feed, served(feed) as base:
        feed.operator.set_password(Secret(PASSWORD))
        browser = Browser(tmp_path, base.replace("//", f"//operator:{quote(PASSWORD)}@"))
        assert SOURCE in browser.dom("/operator/")
        assert "pot-north" in browser.dom(f"/operator/evidence?address={SOURCE}")
        stranger = Browser(tmp_path, base.replace("//", "//operator:wrong-password@"))
        assert SOURCE not in stranger.dom("/operator/")


def test_a_scraper_on_this_machine_gets_metrics(feed: FilledFeed) -> None:
    """Over real HTTP; with a proxy's header it does not."""
    with served(feed) as base, requests.Session() as session:
        session.trust_env = False
        answer = session.get(base + "/metrics", timeout=10)
        assert 'apiban_feed_listings{dataset="sip"} 1240.0' in answer.text
        proxied = {"X-Forwarded-For": "192.0.2.1"}
        assert session.get(base + "/metrics", timeout=10, headers=proxied).status_code == 403
