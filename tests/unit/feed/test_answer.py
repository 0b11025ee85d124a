import json
from typing import Any

import pytest
from apiban.errors import (
    FeedError,
    FeedInvalid,
    FeedOutage,
    FeedRateLimited,
    FeedUnauthorized,
)
from apiban.feed.answer import CheckResult, EndOfList, Page, read_check, read_page
from hypothesis import given
from hypothesis import strategies as st

IP = "192.0.2.1"


def body(ipaddress: object, cursor: object = "987654321") -> bytes:
    """Give the body of an answer."""
    return json.dumps({"ipaddress": ipaddress, "ID": cursor}).encode()


PAGE = body([IP, "192.0.2.2"])
END = body(["no new bans"], "none")

# Bodies that the contract does not know, whatever is asked for.
NO_ANSWERS = {
    "empty": b"",
    "space": b" \n",
    "html": b"<html><body>Bad gateway: no new bans, not blocked</body></html>",
    "text": b"no new bans",
    "json text": b'"no new bans"',
    "json number": b"100",
    "null": b"null",
    "nan": b"NaN",
    "object": b"{}",
    "list": b"[]",
    "list of answers": b'[{"ipaddress":["no new bans"],"ID":"none"}]',
    "truncated": END[:-1],
    "truncated page": PAGE[:-20],
    "two documents": END + END,
    "deep list": b"[" * 100_000,
    "deep object": b'{"ipaddress":' * 100_000,
    "not unicode": b'{"ipaddress":["\xff\xfe"],"ID":"none"}',
    "no id": b'{"ipaddress":["no new bans"]}',
    "no ipaddress": b'{"ID":"none"}',
    "other case": b'{"IPADDRESS":["no new bans"],"id":"none"}',
    "null id": b'{"ipaddress":["no new bans"],"ID":null}',
    "null ipaddress": b'{"ipaddress":null,"ID":"none"}',
    "nan id": b'{"ipaddress":["192.0.2.1"],"ID":NaN}',
    "infinite id": b'{"ipaddress":["192.0.2.1"],"ID":Infinity}',
    "broken id": b'{"ipaddress":["192.0.2.1"],"ID":987.5}',
    "boolean id": b'{"ipaddress":["192.0.2.1"],"ID":true}',
    "list id": b'{"ipaddress":["192.0.2.1"],"ID":["987"]}',
    "negative id": b'{"ipaddress":["192.0.2.1"],"ID":-1}',
    "huge id": b'{"ipaddress":["192.0.2.1"],"ID":' + b"9" * 5000 + b"}",
    "id of 41 digits": b'{"ipaddress":["192.0.2.1"],"ID":' + b"9" * 41 + b"}",
    "boolean ipaddress": body(ipaddress=True),
    "nested": body({"ipaddress": ["no new bans"]}, "none"),
    "error": b'{"error":"not blocked"}',
}

ANSWERS = {"page": PAGE, "end": END, "refused": body("none", "unauthorized")}


def named(bodies: dict[str, bytes]) -> pytest.MarkDecorator:
    """Try each body under its name."""
    return pytest.mark.parametrize("raw", bodies.values(), ids=bodies.keys())


@pytest.mark.parametrize("status", [200, 400, 403, 404, 408])
@pytest.mark.parametrize("words", [["no new bans"], "no new bans"])
def test_end_of_list(status: int, words: object) -> None:
    """In a list or bare, with every status that was seen, it is the end, and no error."""
    assert read_page(status, body(words, "none")) == EndOfList()


def test_page() -> None:
    """Addresses in the order of the body, networks and IPv6 too, and the ID for what follows."""
    page = read_page(200, body([IP, "2001:db8::1", "198.51.100.0/24", "::ffff:192.0.2.3"]))
    assert isinstance(page, Page)
    assert page.cursor == "987654321"
    shown = [str(one) for one in page.networks]
    assert shown == [IP, "2001:db8::1", "198.51.100.0/24", "192.0.2.3"]


@pytest.mark.parametrize("cursor", ["0", "100", "9876543210", "9" * 40])
def test_id_of_a_page_is_a_decimal_text(cursor: str) -> None:
    """It comes back as it was sent, be it short or long."""
    page = read_page(200, body([IP], cursor))
    assert isinstance(page, Page)
    assert page.cursor == cursor


@pytest.mark.parametrize("number", [0, 987654321, 10**40 - 1])
def test_id_that_is_a_json_number_is_taken(number: int) -> None:
    """A service that sends a number means the same."""
    page = read_page(200, body([IP], number))
    assert isinstance(page, Page)
    assert page.cursor == str(number)


@pytest.mark.parametrize("count", [1, 249, 250])
def test_page_holds_up_to_250(count: int) -> None:
    """One address is a page, and so are 250."""
    page = read_page(200, body([f"192.0.2.{number}" for number in range(count)]))
    assert isinstance(page, Page)
    assert len(page.networks) == count


PAGES_THAT_ARE_NONE = {
    "251 addresses": body([IP] * 251),
    "no address": body([]),
    "bare address": body(IP),
    "not an address": body([IP, "192.0.2.256"]),
    "a name": body(["scanner.example"]),
    "empty text": body([IP, ""]),
    "host bits": body(["192.0.2.1/24"]),
    "number": body([IP, 3221225985]),
    "null inside": body([IP, None]),
    "list inside": body([[IP]]),
    "object inside": body([{"ip": IP}]),
    "boolean inside": body([True]),
    "id of letters": body([IP], "abc"),
    "id empty": body([IP], ""),
    "id signed": body([IP], "+5"),
    "id negative": body([IP], "-5"),
    "id with space": body([IP], " 5"),
    "id with line break": body([IP], "5\n"),
    "id with fraction": body([IP], "5.0"),
    "id of other digits": body([IP], "\u0665"),
    "id superscript": body([IP], "\u00b2"),
    "id hexadecimal": body([IP], "0x10"),
    "id underscored": body([IP], "1_0"),
    "id too long": body([IP], "9" * 41),
    "id none": body([IP], "none"),
    "end without none": body(["no new bans"], "987"),
    "end among addresses": body([IP, "no new bans"], "none"),
    "end twice": body(["no new bans"] * 2, "none"),
    "end in capitals": body(["No New Bans"], "none"),
    "end and a space": body("no new bans ", "none"),
    "end with None": body(["no new bans"], "None"),
    "an answer to check": body(["not blocked"], "none"),
    "old answer to check": body("ok", "0"),
    "old blocked": body("blocked", "987"),
    "none": body("none", "none"),
}


@named(PAGES_THAT_ARE_NONE | NO_ANSWERS)
@pytest.mark.parametrize("status", [200, 400, 404])
def test_what_is_no_page_is_invalid(raw: bytes, status: int) -> None:
    """Neither a page nor the end of the list, however near it comes."""
    with pytest.raises(FeedInvalid):
        read_page(status, raw)


@pytest.mark.parametrize("status", [201, 204, 206, 400, 401, 403, 404, 408, 418])
def test_page_with_another_status_is_invalid(status: int) -> None:
    """Addresses in an error are not listed addresses."""
    with pytest.raises(FeedInvalid, match=str(status)):
        read_page(status, PAGE)


@pytest.mark.parametrize("status", [201, 204, 401, 402, 410, 418])
def test_end_of_list_with_an_unseen_status_is_invalid(status: int) -> None:
    """A status that contradicts the body is not explained away."""
    with pytest.raises(FeedInvalid):
        read_page(status, END)


@pytest.mark.parametrize(
    ("status", "ipaddress", "cursor"),
    [
        (200, [IP], "987654321"),
        (200, IP, "987654321"),
        (200, [IP], 987654321),
        (200, "blocked", "987654321"),
        (200, ["blocked"], "1"),
        (200, ["::ffff:192.0.2.1"], "987654321"),
    ],
)
def test_listed(status: int, ipaddress: object, cursor: object) -> None:
    """The address itself, or the old word, with a number."""
    assert read_check(status, body(ipaddress, cursor), IP) == CheckResult(listed=True)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("2001:db8::1", "2001:DB8:0:0:0:0:0:1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[2001:db8::1]", "2001:db8::1"),
    ],
)
def test_listed_in_another_spelling(asked: str, told: str) -> None:
    """Addresses are compared, not texts."""
    assert read_check(200, body([told]), asked) == CheckResult(listed=True)


@pytest.mark.parametrize("status", [200, 400, 404])
@pytest.mark.parametrize(
    ("ipaddress", "cursor"),
    [
        (["not blocked"], "none"),
        ("not blocked", "none"),
        ("ok", "0"),
        (["ok"], "0"),
        ("ok", 0),
    ],
)
def test_not_listed(status: int, ipaddress: object, cursor: object) -> None:
    """The words of the new and of the old reference."""
    assert read_check(status, body(ipaddress, cursor), IP) == CheckResult(listed=False)


CHECKS_THAT_ARE_NONE = {
    "another address": body(["192.0.2.2"]),
    "longer address": body(["192.0.2.11"]),
    "two addresses": body([IP, "192.0.2.2"]),
    "its network": body(["192.0.2.0/24"]),
    "no address": body([]),
    "empty": body(""),
    "number": body([5]),
    "listed without id": body([IP], "none"),
    "listed with zero": body([IP], "0"),
    "listed with letters": body([IP], "abc"),
    "blocked with none": body("blocked", "none"),
    "blocked with zero": body("blocked", "0"),
    "not blocked with id": body(["not blocked"], "987"),
    "not blocked with zero": body(["not blocked"], "0"),
    "ok with none": body("ok", "none"),
    "ok with id": body("ok", "1"),
    "not blocked twice": body(["not blocked"] * 2, "none"),
    "not blocked in capitals": body(["Not blocked"], "none"),
    "near it": body(["not blocked."], "none"),
    "end of list": body(["no new bans"], "none"),
    "none": body("none", "none"),
}


@named(CHECKS_THAT_ARE_NONE | NO_ANSWERS)
@pytest.mark.parametrize("status", [200, 400, 404])
def test_what_is_no_check_is_invalid(raw: bytes, status: int) -> None:
    """An unknown answer is never "not banned"."""
    with pytest.raises(FeedInvalid):
        read_check(status, raw, IP)


@pytest.mark.parametrize("status", [201, 400, 401, 403, 404])
@pytest.mark.parametrize("words", [[IP], "blocked"])
def test_listed_with_an_error_status_is_invalid(status: int, words: object) -> None:
    """A status that contradicts the body is not explained away."""
    with pytest.raises(FeedInvalid):
        read_check(status, body(words), IP)


@pytest.mark.parametrize("status", [201, 204, 206])
@pytest.mark.parametrize(("words", "cursor"), [("ok", "0"), (["not blocked"], "none")])
def test_not_listed_with_an_unseen_status_is_invalid(
    status: int, words: object, cursor: str
) -> None:
    """No service says it that way, so who does is not the service."""
    with pytest.raises(FeedInvalid):
        read_check(status, body(words, cursor), IP)


def test_check_of_what_is_no_address_names_nothing() -> None:
    """The answer cannot be about it."""
    with pytest.raises(FeedInvalid):
        read_check(200, body(["nonsense"]), "nonsense")


def _page(status: int, raw: bytes, retry_after: str | None = None) -> object:
    return read_page(status, raw, retry_after)


def _check(status: int, raw: bytes, retry_after: str | None = None) -> object:
    return read_check(status, raw, IP, retry_after)


both = pytest.mark.parametrize("read", [_page, _check])


@both
@pytest.mark.parametrize("status", [200, 401, 403])
@pytest.mark.parametrize("words", ["none", ["none"]])
def test_refused_key(read: Any, status: int, words: object) -> None:
    """Bare or in a list, with every status that was seen."""
    with pytest.raises(FeedUnauthorized):
        read(status, body(words, "unauthorized"))


@both
@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"<html>403</html>", body("none", "none"), body([IP], "unauthorized")]
)
def test_bare_403_is_not_a_refused_key(read: Any, status: int, raw: bytes) -> None:
    """A firewall between us and the service says 403 too; only the API speaks of our key."""
    with pytest.raises(FeedInvalid):
        read(status, raw)


@both
@pytest.mark.parametrize("status", [200, 400, 403, 429])
@pytest.mark.parametrize("words", ["rate limit exceeded", ["rate limit exceeded"]])
def test_rate_limited(read: Any, status: int, words: object) -> None:
    """The words say it with any status."""
    with pytest.raises(FeedRateLimited) as caught:
        read(status, body(words, "unauthorized"))
    assert caught.value.retry_after is None


@both
@named(ANSWERS | NO_ANSWERS)
def test_429_is_rate_limited_whatever_the_body(read: Any, raw: bytes) -> None:
    """The status alone is enough: a proxy's page may be the body."""
    with pytest.raises(FeedRateLimited):
        read(429, raw)


@both
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("17", 17.0),
        ("120", 120.0),
        ("-1", None),
        ("1.5", None),
        ("1e9", None),
        ("nan", None),
        (" 17", None),
        ("\u0661", None),
        ("9" * 500, None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_retry_after(read: Any, header: str | None, seconds: float | None) -> None:
    """Seconds are taken; a date or junk leaves the pause to us."""
    with pytest.raises(FeedRateLimited) as caught:
        read(429, b"", header)
    assert caught.value.retry_after == seconds


@both
@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 599])
@named(ANSWERS | NO_ANSWERS)
def test_5xx_is_an_outage_whatever_the_body(read: Any, status: int, raw: bytes) -> None:
    """A failing service's body is not believed."""
    with pytest.raises(FeedOutage, match=str(status)):
        read(status, raw)


@both
@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
@pytest.mark.parametrize("raw", [b"", PAGE, END, body(["not blocked"], "none")])
def test_redirect_is_invalid_whatever_the_body(read: Any, status: int, raw: bytes) -> None:
    """Somebody wants us elsewhere; it is no answer."""
    with pytest.raises(FeedInvalid, match="redirect"):
        read(status, raw)


STATUSES = st.sampled_from([200, 400, 401, 403, 404, 408, 429, 500, 503, 302]) | st.integers(0, 999)
WORDS = st.sampled_from(
    ["no new bans", "none", "unauthorized", "blocked", "not blocked", "ok", "0", "1", "100", IP]
)
SCALARS = WORDS | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner),
    max_leaves=6,
)
NEAR = st.fixed_dictionaries(
    {"ipaddress": SCALARS | st.lists(SCALARS, max_size=2), "ID": SCALARS | st.lists(SCALARS)}
)
BODIES = (
    st.binary(max_size=200)
    | VALUES.map(lambda value: json.dumps(value).encode())
    | NEAR.map(lambda value: json.dumps(value).encode())
    | st.text(alphabet='{}[]",:ipadresID nowb0', max_size=40).map(str.encode)
)


def _says(raw: bytes, *pairs: tuple[str, str]) -> bool:
    """Tell whether a body says precisely one of these, bare or in a list."""
    document = json.loads(raw)
    if not isinstance(document, dict) or isinstance(document.get("ID"), bool):
        return False
    words, cursor = document.get("ipaddress"), document.get("ID")
    return any(words in (word, [word]) and str(cursor) == said for word, said in pairs)


@given(STATUSES, BODIES, st.none() | st.text(max_size=9))
def test_any_body_gives_a_page_an_end_or_a_typed_error(
    status: int, raw: bytes, retry_after: str | None
) -> None:
    """Nothing else gets out, and the end of the list is what a body says in so many words."""
    try:
        answer = read_page(status, raw, retry_after)
    except FeedError:
        return
    if isinstance(answer, EndOfList):
        assert _says(raw, ("no new bans", "none"))
        assert status in {200, 400, 403, 404, 408}
    else:
        assert status == 200
        assert 1 <= len(answer.networks) <= 250
        assert answer.cursor.isdecimal()


@given(STATUSES, BODIES, st.sampled_from([IP, "2001:db8::1", "junk", ""]))
def test_any_body_gives_a_check_or_a_typed_error(status: int, raw: bytes, ip: str) -> None:
    """Nothing else gets out, and "not listed" is what a body says in so many words."""
    try:
        answer = read_check(status, raw, ip)
    except FeedError:
        return
    if answer.listed:
        assert status == 200
        assert ip.encode() in raw or b"blocked" in raw
    else:
        assert _says(raw, ("not blocked", "none"), ("ok", "0"))
        assert status in {200, 400, 404}


@given(st.lists(st.ip_addresses().map(str), min_size=1, max_size=250), st.integers(0, 10**40 - 1))
def test_good_page_is_read_whole(addresses: list[str], cursor: int) -> None:
    """As many networks as addresses, in their order."""
    page = read_page(200, body(addresses, str(cursor)))
    assert isinstance(page, Page)
    assert len(page.networks) == len(addresses)
    assert page.cursor == str(cursor)
