"""Hostile and odd input that once got through; each test is a fault that was found."""

import gzip
import json
import logging
import socket
import time
import tracemalloc
from pathlib import Path

import pytest
from apiban.address import parse_address, parse_network
from apiban.errors import AddressError, FeedInvalid, FeedOutage, SettingsError
from apiban.feed.answer import CheckResult, read_check, read_page
from apiban.feed.client import FeedClient, HttpResponse
from apiban.log import LONGEST_VALUE, clean
from apiban.settings import load_settings

from tests.contract.asgi import call
from tests.contract.conftest import Service
from tests.unit.feed.conftest import Serve
from tests.unit.feed.local import answer
from tests.unit.feed.parts import KEY, feed_settings
from tests.unit.feed.test_transport import PAGE, failure

BEARER = {"Authorization": f"Bearer {KEY}"}


def test_redirects_body_is_not_read(serve: Serve) -> None:
    """A bomb behind a redirect is not unpacked."""
    bomb = gzip.compress(bytes(64 << 20))
    server = serve(answer(bomb, "Location: /x", "Content-Encoding: gzip", status="302 Found"))
    tracemalloc.start()
    try:
        error = failure(feed_settings(url=server.url()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(error, FeedInvalid)
    assert peak < 16 << 20


@pytest.mark.parametrize("location", ["http://[::bad/", "http://", "\\\\", "http://a b/"])
def test_redirect_to_nonsense_is_a_redirect(serve: Serve, location: str) -> None:
    """Wherever it points, a redirect is an invalid answer."""
    server = serve(answer(b"", f"Location: {location}", status="302 Found"))
    assert isinstance(failure(feed_settings(url=server.url())), FeedInvalid)


@pytest.mark.parametrize("level", [logging.DEBUG, logging.WARNING])
def test_key_is_in_no_log(serve: Serve, caplog: pytest.LogCaptureFixture, level: int) -> None:
    """urllib3 logs whole URLs, and in v1 those hold the key."""
    caplog.set_level(level)
    server = serve(answer(PAGE, "no colon here"))
    FeedClient(feed_settings(url=server.url(), version=1)).banned()
    assert KEY not in caplog.text


@pytest.mark.parametrize("body", [b'{"set":[]}', b'{"set":{}}'])
@pytest.mark.parametrize("headers", [{}, BEARER])
def test_set_that_is_no_text(tmp_path: Path, body: bytes, headers: dict[str, str]) -> None:
    """A set that is no text is a malformed request, not a fault."""
    app = Service(tmp_path, ["192.0.2.1"], 5, KEY).app
    assert call(app, "POST", "/api/get", headers, [body]).status in (400, 403)


@pytest.mark.parametrize(
    "text",
    [
        "feed.interval = " + "1" * 5000,
        "feed.interval = 0x" + "f" * 5000,
        "feed.interval" + ".a" * 5000 + " = 1",
        "feed.version" + ".a" * 5000 + " = 1",
    ],
)
def test_number_or_nesting_beyond_python(tmp_path: Path, text: str) -> None:
    """What Python cannot print or nest is a mistake like any other."""
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(SettingsError):
        load_settings(path, {})


@pytest.mark.parametrize("word", [f"/api/{KEY}/banned/100", KEY])
def test_feed_that_echoes_the_key(word: str) -> None:
    """A page that echoes our URL does not bring the key into an error."""
    client = FeedClient(
        feed_settings(),
        lambda _: HttpResponse(200, json.dumps({"ipaddress": [word], "ID": "987"}).encode()),
    )
    with pytest.raises(FeedInvalid) as caught:
        client.banned()
    assert KEY not in str(caught.value)


def test_error_of_a_page_is_short() -> None:
    """A page's text does not make an error long."""
    raw = json.dumps({"ipaddress": ["x" * 500_000 + "/"], "ID": "987"}).encode()
    with pytest.raises(FeedInvalid) as caught:
        read_page(200, raw)
    assert len(str(caught.value)) < 500


def test_connects_share_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six dead addresses take no longer than one."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for one in fillers:
            one.setblocking(False)  # noqa: FBT003
            one.connect_ex(full.getsockname())
        found = socket.getaddrinfo("127.0.0.1", full.getsockname()[1], type=socket.SOCK_STREAM)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found * 6)
        begin = time.monotonic()
        with pytest.raises(FeedOutage):
            FeedClient(feed_settings(url="http://feed.example/", timeout=0.5)).banned()
        took = time.monotonic() - begin
        for one in fillers:
            one.close()
    assert took < 1.5


def test_key_for_this_host_takes_no_proxy(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key for loopback does not leave this host by a proxy."""
    proxy, server = serve(answer(PAGE)), serve(answer(PAGE))
    monkeypatch.setenv("http_proxy", proxy.url())
    FeedClient(feed_settings(url=server.url())).banned()
    assert proxy.requests == []


@pytest.mark.parametrize("path", ["banned/", "banned/100/", "check/192.0.2.1/"])
def test_trailing_slash_is_unknown(tmp_path: Path, path: str) -> None:
    """A redirect would show the key in its Location."""
    raw = call(Service(tmp_path, ["192.0.2.1"], 5, KEY).app, "GET", f"/api/{KEY}/{path}")
    assert (raw.status, raw.body) == (404, b"{}")
    assert KEY not in str(raw.headers)


@pytest.mark.parametrize("status", [401, 403, 408, 410, 422])
def test_not_listed_with_any_4xx(status: int) -> None:
    """The contract says 4xx, whichever."""
    raw = b'{"ipaddress":["not blocked"],"ID":"none"}'
    assert read_check(status, raw, "192.0.2.1") == CheckResult(listed=False)


def test_client_that_leaves_is_no_fault(tmp_path: Path) -> None:
    """A client that goes away in the middle of its body is no fault of ours."""
    import asyncio

    app = Service(tmp_path, ["192.0.2.1"], 5, KEY).app
    messages = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    async def send(_message: object) -> None:
        pass

    asyncio.run(
        app(
            {
                "type": "http",
                "method": "POST",
                "path": "/api/get",
                "raw_path": b"/api/get",
                "headers": [],
                "query_string": b"",
                "http_version": "1.1",
                "scheme": "http",
                "root_path": "",
                "server": ("x", 80),
                "client": None,
                "asgi": {"version": "3.0"},
            },
            receive,
            send,
        )
    )


@pytest.mark.parametrize(
    "url", ["https://x/api/?", "https://x/api/#", "https://a\n.b/", "https://x y/"]
)
def test_url_that_loses_the_key(url: str) -> None:
    """A URL in which the key would not be part of the path is refused."""
    with pytest.raises(SettingsError):
        load_settings(Path("/nonexistent"), {"APIBAN_FEED_URL": url})


def test_problem_is_one_line() -> None:
    """A line break in a value does not make two lines."""
    with pytest.raises(SettingsError) as caught:
        load_settings(Path("/nonexistent"), {"APIBAN_FEED_KEY_FILE": "/no\nwhere"})
    assert "\n" not in str(caught.value)


def test_empty_settings_variable_is_unset() -> None:
    """An empty variable names no file."""
    load_settings(Path("/nonexistent"), {"APIBAN_SETTINGS": ""})


def test_float_is_bounded() -> None:
    """A number is cut like a text."""
    assert len(clean(1e308)) <= LONGEST_VALUE


def test_huge_int_can_be_logged() -> None:
    """A number that Python does not print is named by its type."""
    clean(1 << 20000)


@pytest.mark.parametrize("text", ["[::1", "::1]", "]::1[", "[[::1]]"])
def test_half_brackets(text: str) -> None:
    """Brackets come in pairs."""
    with pytest.raises(AddressError):
        parse_address(text)


@pytest.mark.parametrize(
    "text", ["fe80::%eth0/64", "::ffff:0:0%a/96", "192.0.2.0/255.255.255.0", "192.0.2.0/0.0.0.255"]
)
def test_scope_and_masks(text: str) -> None:
    """A scope or a netmask is no prefix."""
    with pytest.raises(AddressError):
        parse_network(text)


def test_key_in_key_file_setting_not_shown(tmp_path: Path) -> None:
    """Who puts the key in the place of its file does not read it in the log."""
    with pytest.raises(SettingsError) as caught:
        load_settings(Path("/nonexistent"), {"APIBAN_FEED_KEY_FILE": KEY})
    assert KEY not in str(caught.value)


def test_feed_eq_key(tmp_path: Path) -> None:
    """Nor who puts it in the place of the section."""
    path = tmp_path / "a.toml"
    path.write_text(f'feed = "{KEY}"')
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {})
    assert KEY not in str(caught.value)


def test_url_userinfo_with_slash() -> None:
    """Nor who puts it into the URL as a user."""
    with pytest.raises(SettingsError) as caught:
        load_settings(
            Path("/nonexistent"), {"APIBAN_FEED_URL": f"https://user:{KEY}/x@feed.example/"}
        )
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("port", ["\u0665\u0660\u0666\u0660"])
def test_port_of_other_digits(port: str) -> None:
    """A port is of ASCII digits."""
    with pytest.raises(SettingsError):
        load_settings(Path("/nonexistent"), {"APIBAN_EDGE_UPSTREAMS": f"192.0.2.1:{port}"})


def test_list_with_bom(tmp_path: Path) -> None:
    """A list file may begin with a byte order mark."""
    from apiban.feed.server.listfile import read_list

    p = tmp_path / "l"
    p.write_bytes(b"\xef\xbb\xbf192.0.2.1\n")
    assert len(read_list(p)) == 1
