"""What an APIBAN service answers, as types.

Source of the shapes: the public API reference in its successive versions, and the public clients.
Statuses differ between versions, so the body decides, and the status must not contradict it:

========================  ==========================================  ======================
answer                    body                                        status
========================  ==========================================  ======================
page                      ``{"ipaddress": [1 to 250], "ID": "987"}``  200
end of list               ``no new bans`` (list or bare), ID none     200 400 403 404 408
unauthorized              ``ID`` is ``unauthorized``                  200 401 403
rate limited              ``rate limit exceeded``, or any body        any, or 429
listed (check)            the address, or ``blocked``; ID a number    200
not listed (check)        ``not blocked`` / ``ok``; ID none / 0       200 4xx
========================  ==========================================  ======================

Anything else is an outage (5xx) or invalid; it never means "not banned" or "end of list".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from apiban.address import Network, pack, parse_network
from apiban.errors import AddressError, FeedInvalid, FeedOutage, FeedRateLimited, FeedUnauthorized

__all__ = ["FROM_START", "CheckResult", "EndOfList", "Page", "read_check", "read_page"]

# The conventional ID that asks for the list from its start.
FROM_START: Final = "100"
LARGEST_PAGE: Final = 250

_LONGEST_ID: Final = 40
_END_STATUSES: Final = frozenset({200, 400, 403, 404, 408})
_REFUSED_STATUSES: Final = frozenset({200, 401, 403})


@dataclass(frozen=True, slots=True)
class Page:
    """One batch: 1 to 250 networks, and the ID that asks for what comes after them."""

    networks: tuple[Network, ...]
    cursor: str


@dataclass(frozen=True, slots=True)
class EndOfList:
    """Nothing new after the ID that was asked for, which stays valid."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Whether one address is listed now."""

    listed: bool


def read_page(status: int, body: bytes, retry_after: str | None = None) -> Page | EndOfList:
    """Read the answer to ``banned`` (v1) or ``get`` (v2).

    Raises:
        FeedOutage, FeedInvalid, FeedUnauthorized, FeedRateLimited

    """
    ipaddress, cursor = _read_common(status, body, retry_after)
    words = [ipaddress] if isinstance(ipaddress, str) else ipaddress
    if words == ["no new bans"] and cursor == "none" and status in _END_STATUSES:
        return EndOfList()
    if status != 200:
        raise FeedInvalid(f"status {status} with a body that the API does not document")
    if not isinstance(ipaddress, list) or not 1 <= len(ipaddress) <= LARGEST_PAGE:
        raise FeedInvalid(f"a page must hold a list of 1 to {LARGEST_PAGE} addresses")
    if not _is_number(cursor):
        raise FeedInvalid("the page's ID is not a decimal number")
    networks = []
    for number, text in enumerate(ipaddress, start=1):
        try:
            networks.append(parse_network(text if isinstance(text, str) else ""))
        except AddressError:
            # The text itself stays out of the error: it may echo our own URL.
            raise FeedInvalid(f"entry {number} of the page is no address") from None
    return Page(tuple(networks), cursor)


def read_check(status: int, body: bytes, ip: str, retry_after: str | None = None) -> CheckResult:
    """Read the answer to ``check`` for the address ``ip``.

    Raises:
        FeedOutage, FeedInvalid, FeedUnauthorized, FeedRateLimited

    """
    ipaddress, cursor = _read_common(status, body, retry_after)
    words = [ipaddress] if isinstance(ipaddress, str) else ipaddress
    if len(words) == 1 and isinstance(words[0], str):
        word = words[0]
        if status == 200 and _is_number(cursor) and cursor != "0" and _names(word, ip):
            return CheckResult(listed=True)
        if (status == 200 or 400 <= status < 500) and (word, cursor) in {
            ("not blocked", "none"),
            ("ok", "0"),
        }:
            return CheckResult(listed=False)
    raise FeedInvalid(f"status {status} with a body that is no answer to a check")


def _names(word: str, ip: str) -> bool:
    """Tell whether the answer speaks of the address asked for: compared as addresses."""
    if word == "blocked":
        return True
    try:
        return pack(word) == pack(ip)
    except AddressError:
        return False


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _LONGEST_ID


def _read_common(status: int, body: bytes, retry_after: str | None) -> tuple[list[Any] | str, str]:
    """Give ``ipaddress`` and ``ID`` of the body, once every general error is ruled out."""
    if status == 429:
        raise _rate_limited(retry_after)
    if status >= 500:
        raise FeedOutage(f"the feed answered with status {status}")
    if 300 <= status < 400:
        raise FeedInvalid(f"the feed answered with a redirect ({status}), which is not followed")
    ipaddress, cursor = _read_body(status, body)
    if cursor == "unauthorized":
        if ipaddress in ("rate limit exceeded", ["rate limit exceeded"]):
            raise _rate_limited(retry_after)
        if status in _REFUSED_STATUSES and ipaddress in ("none", ["none"]):
            raise FeedUnauthorized("the feed refused the key")
    return ipaddress, cursor


def _read_body(status: int, body: bytes) -> tuple[list[Any] | str, str]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise FeedInvalid(f"status {status} with a body that is not JSON") from None
    if not isinstance(document, dict):
        raise FeedInvalid(f"status {status} with JSON that is no object")
    ipaddress, cursor = document.get("ipaddress"), document.get("ID")
    if isinstance(cursor, int) and not isinstance(cursor, bool) and 0 <= cursor < 10**_LONGEST_ID:
        cursor = str(cursor)
    if not isinstance(ipaddress, list | str) or not isinstance(cursor, str):
        hint = "; feed.url must be the base URL alone, ending in /api/" if status == 404 else ""
        raise FeedInvalid(f"status {status} with a body that lacks ipaddress or ID{hint}")
    return ipaddress, cursor


def _rate_limited(retry_after: str | None) -> FeedRateLimited:
    """Take Retry-After in seconds; a date there is rare, and our own pause serves then."""
    seconds = float(retry_after) if retry_after and _is_number(retry_after) else None
    return FeedRateLimited("the feed says that we asked too often", seconds)
