import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.asgi import Raw, call
from tests.contract.conftest import Service
from tests.unit.feed.parts import KEY

BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Any]:
    """Give a service of one address with five requests to spend."""
    service = Service(tmp_path, ["192.0.2.1"], limit=5, key=KEY)
    yield service.app
    service.parts.close()


def post(app: Any, path: str, *chunks: bytes, headers: dict[str, str] | None = None) -> Raw:
    """Ask in v2."""
    return call(app, "POST", path, BEARER if headers is None else headers, chunks)


def shown(raw: Raw) -> tuple[int, object]:
    """Give the status and the document, which is declared as JSON."""
    assert raw.headers["content-type"] == "application/json"
    assert int(raw.headers["content-length"]) == len(raw.body)
    return raw.status, json.loads(raw.body)


PAGE = (200, {"ipaddress": ["192.0.2.1"], "ID": "1800000000000000"})
END = (400, {"ipaddress": ["no new bans"], "ID": "none"})
LISTED = PAGE
NOT_LISTED = (400, {"ipaddress": ["not blocked"], "ID": "none"})
REFUSED = (403, {"ipaddress": "none", "ID": "unauthorized"})
LIMITED = (429, {"ipaddress": "rate limit exceeded", "ID": "unauthorized"})
MALFORMED = (400, {})
TOO_LARGE = (413, {})
UNKNOWN = (404, {})
WRONG_METHOD = (405, {})


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (f"/api/{KEY}/banned", PAGE),
        (f"/api/{KEY}/banned/100", PAGE),
        (f"/api/{KEY}/banned/1799999999999999", PAGE),
        (f"/api/{KEY}/banned/1800000000000000", END),
        (f"/api/{KEY}/banned/none", MALFORMED),
        (f"/api/{KEY}/check/192.0.2.1", LISTED),
        (f"/api/{KEY}/check/192.0.2.2", NOT_LISTED),
        (f"/api/{KEY}/check/192.0.2.256", MALFORMED),
        ("/api/other/banned", REFUSED),
        ("/api/other/banned/none", REFUSED),
        ("/api/other/check/nonsense", REFUSED),
        ("/api/%ff%fe/banned", REFUSED),
        (f"/api/{KEY}", UNKNOWN),
        (f"/api/{KEY}/list", UNKNOWN),
        (f"/api/{KEY}/check", UNKNOWN),
        (f"/api/{KEY}/banned/100/more", UNKNOWN),
        ("/api/get", WRONG_METHOD),
        ("/api/check", WRONG_METHOD),
        (f"/{KEY}/banned", UNKNOWN),
    ],
)
def test_v1_answers(app: Any, path: str, wanted: object) -> None:
    """The statuses and bodies that v1's clients rely on."""
    assert shown(call(app, "GET", path)) == wanted


@pytest.mark.parametrize(
    ("path", "body", "wanted"),
    [
        ("/api/get", {"set": "sip", "id": "100"}, PAGE),
        ("/api/get", {"set": "all", "id": "100"}, PAGE),
        ("/api/get", {"id": 100}, PAGE),
        ("/api/get", {}, PAGE),
        ("/api/get", {"set": "sip", "id": "1800000000000000"}, END),
        ("/api/get", {"set": "sip", "id": "none"}, MALFORMED),
        ("/api/get", {"set": "sip", "id": True}, MALFORMED),
        ("/api/get", {"set": "sip", "id": ["100"]}, MALFORMED),
        ("/api/get", {"set": "sip", "id": None}, MALFORMED),
        ("/api/get", {"set": "sip", "id": 1e300}, MALFORMED),
        ("/api/get", {"set": "smtp", "id": "100"}, MALFORMED),
        ("/api/get", {"set": None, "id": "100"}, MALFORMED),
        ("/api/get", {"set": 5, "id": "100"}, MALFORMED),
        ("/api/check", {"set": "sip", "ipaddress": "192.0.2.1"}, LISTED),
        ("/api/check", {"set": "sip", "ipaddress": "192.0.2.2"}, NOT_LISTED),
        ("/api/check", {"set": "sip", "ipaddress": "192.0.2.256"}, MALFORMED),
        ("/api/check", {"set": "sip", "ipaddress": ["192.0.2.1"]}, MALFORMED),
        ("/api/check", {"set": "sip", "ipaddress": None}, MALFORMED),
        ("/api/check", {"set": "sip"}, MALFORMED),
        ("/api/nothing", {}, UNKNOWN),
    ],
)
def test_v2_answers(app: Any, path: str, body: object, wanted: object) -> None:
    """The statuses and bodies that v2's clients rely on."""
    assert shown(post(app, path, json.dumps(body).encode())) == wanted


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"[]",
        b"null",
        b'"get"',
        b"set=sip&id=100",
        b"\xff\xfe\x00",
        b"[" * 4000,
        b'{"id":' + b"1" * 4000 + b"}",
        b'{"id":NaN}',
    ],
)
@pytest.mark.parametrize("path", ["/api/get", "/api/check"])
def test_v2_body_that_is_no_question(app: Any, path: str, raw: bytes) -> None:
    """Malformed, and neither the end of the list nor "not listed"."""
    assert shown(post(app, path, raw)) == MALFORMED


@pytest.mark.parametrize("path", ["/api/get", "/api/check"])
@pytest.mark.parametrize(
    "chunks", [[b" " * 5000], [b" " * 1000] * 5, [b" " * 4096, b"{}"]], ids=["one", "many", "just"]
)
def test_v2_body_that_is_too_large(app: Any, path: str, chunks: list[bytes]) -> None:
    """However it is cut into pieces, 4 KiB is enough for any question."""
    assert shown(post(app, path, *chunks)) == TOO_LARGE


def test_v2_body_may_come_in_pieces(app: Any) -> None:
    """A slow client is a client."""
    assert shown(post(app, "/api/get", b'{"set":', b'"sip","id"', b':"100"}')) == PAGE


@pytest.mark.parametrize("header", [f"bearer {KEY}", f"BEARER {KEY}", f"Bearer   {KEY} "])
def test_v2_bearer_is_read_leniently(app: Any, header: str) -> None:
    """The scheme's case and the spaces do not matter (RFC 9110, 11.1)."""
    assert shown(post(app, "/api/get", b"{}", headers={"Authorization": header})) == PAGE


@pytest.mark.parametrize(
    "header",
    [None, "", KEY, "Bearer", "Bearer ", f"Basic {KEY}", "Bearer other", f"Bearer {KEY} x"],
)
@pytest.mark.parametrize("body", [b"{}", b"{", b" " * 5000])
def test_v2_without_the_key_is_refused(app: Any, header: str | None, body: bytes) -> None:
    """Whatever the body, a stranger learns nothing but that."""
    headers = {} if header is None else {"Authorization": header}
    for path in ("/api/get", "/api/check"):
        assert shown(post(app, path, body, headers=headers)) == REFUSED


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/api/get", f"/api/{KEY}/banned", "/health"])
def test_other_methods(app: Any, method: str, path: str) -> None:
    """Refused, and the right one is named."""
    raw = call(app, method, path)
    assert shown(raw) == WRONG_METHOD
    assert raw.headers["allow"] in {"GET", "POST"}


def test_budget_is_one_for_both_versions(app: Any) -> None:
    """A key's requests are counted together, malformed ones included; then 429 and the wait."""
    call(app, "GET", f"/api/{KEY}/banned")
    call(app, "GET", f"/api/{KEY}/banned/none")
    call(app, "GET", f"/api/{KEY}/check/192.0.2.1")
    post(app, "/api/get", b"{}")
    post(app, "/api/check", b"{")
    answers = [call(app, "GET", f"/api/{KEY}/banned"), post(app, "/api/get", b"{}")]
    for raw in answers:
        assert shown(raw) == LIMITED
        assert raw.headers["retry-after"] == "120"


def test_health_needs_no_key(app: Any) -> None:
    """A container's health check has none, and uses up nothing."""
    for _ in range(9):
        assert call(app, "GET", "/health").body == b'{"status":"ok"}'
    assert shown(call(app, "GET", f"/api/{KEY}/banned")) == PAGE


def test_no_answer_holds_the_key(app: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither its headers nor its body, nor what the server prints meanwhile."""
    paths = ["banned", "banned/100", "banned/x", "check/192.0.2.1", "check/x", "x", "check"]
    answers = [call(app, "GET", f"/api/{KEY}/{path}") for path in paths]
    answers += [post(app, path, b"{}") for path in ("/api/get", "/api/check", f"/api/{KEY}")]
    for raw in answers:
        assert KEY.encode() not in raw.body
        assert KEY not in str(raw.headers)
    assert KEY not in "".join(capfd.readouterr())
