"""Every setting: its name, how its value is read, its default, and what is allowed.

docs/settings.md describes the same names for operators; a test holds the two together.
A reader takes a value from TOML, or a text from the environment, and either gives the typed
value or raises ``ValueError`` with what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from apiban.address import Network, parse_address, parse_network
from apiban.settings.model import Mode, Upstream

__all__ = ["SCHEMA", "Setting"]

Reader = Callable[[Any], Any]

_DAY: Final = 86400.0
_PLAIN_URL = re.compile(r"(?:(?![?#@])[!-~])+")  # printable ASCII without a query or a user
_UPSTREAM = re.compile(
    r"(?:sip:)?(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9.]+)(?::(?P<port>\d{1,5}))?"
    r"(?:;transport=(?P<transport>[a-zA-Z]+))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. ``name`` is ``section.name``, or a bare name at the top of the file."""

    name: str
    read: Reader
    default: Any

    @property
    def variable(self) -> str:
        """The environment variable that overrides it, such as ``APIBAN_FEED_INTERVAL``."""
        return "APIBAN_" + self.name.replace(".", "_").upper()


def _number(low: float, high: float, *, whole: bool = False) -> Reader:
    kind = "a whole number" if whole else "a number"
    allowed = f"{kind} from {low:g} to {high:g}"

    def read(value: Any) -> float | int:
        if isinstance(value, str):
            try:
                value = int(value) if whole else float(value)
            except ValueError:
                raise ValueError(allowed) from None
        good = isinstance(value, int) or (isinstance(value, float) and not whole)
        if isinstance(value, bool) or not good or not low <= value <= high:
            raise ValueError(allowed)
        return int(value) if whole else float(value)

    return read


def _boolean(value: Any) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, str):
        value = known.get(value.lower())
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004 - every reader says so with one type
    return value


def _choice(*allowed: str) -> Reader:
    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise ValueError("one of " + ", ".join(allowed))
        return value

    return read


def _mode(value: Any) -> Mode:
    text: str = _choice("enforce", "shadow", "off")(value)
    return Mode[text.upper()]


def _version(value: Any) -> int:
    if str(value) not in {"1", "2"} or isinstance(value, bool):
        raise ValueError("1 or 2")
    return int(value)


def _url(value: Any) -> str:
    allowed = 'a URL such as "https://apiban.org/api/", without a key, a user or a query in it'
    if not isinstance(value, str):
        raise ValueError(allowed)  # noqa: TRY004
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"https", "http"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not _PLAIN_URL.fullmatch(value):
        raise ValueError(allowed)
    return value if value.endswith("/") else value + "/"


def _path(value: Any) -> Path:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError("an absolute path")
    return Path(value)


def _optional_path(value: Any) -> Path | None:
    return None if value == "" else _path(value)


def _list_of(read_one: Callable[[str], Any], allowed: str) -> Reader:
    def read(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str):
            value = [part for part in re.split(r"[,\s]+", value) if part]
        if not isinstance(value, list):
            raise ValueError(f"a list of {allowed}")  # noqa: TRY004
        found, wrong = [], []
        for item in value:
            try:
                found.append(read_one(item if isinstance(item, str) else ""))
            except ValueError as error:
                wrong.append(str(error))
        if wrong:
            raise ValueError(f"a list of {allowed}; " + "; ".join(wrong))
        return tuple(found)

    return read


def _network(text: str) -> Network:
    return parse_network(text)


def _upstream(text: str) -> Upstream:
    allowed = f"not a SIP server: {text[:80]!r}"
    match = _UPSTREAM.fullmatch(text)
    if match is None:
        raise ValueError(allowed)
    port = int(match["port"] or 5060)
    transport = (match["transport"] or "udp").lower()
    if transport not in {"udp", "tcp", "tls"} or not 0 < port < 65536:
        raise ValueError(allowed)
    return Upstream(parse_address(match["host"]), port, transport)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value.isascii():
        raise ValueError("a text of printable characters")
    return value


_networks = _list_of(_network, "addresses or networks such as 192.0.2.0/24")
_peers = _list_of(parse_address, "addresses such as 192.0.2.7")
_upstreams = _list_of(
    _upstream, 'SIP servers such as "sip:192.0.2.9:5060;transport=udp" (an address, not a name)'
)

SCHEMA: Final[tuple[Setting, ...]] = (
    Setting("mode", _mode, Mode.ENFORCE),
    Setting("feed.url", _url, "https://apiban.org/api/"),
    Setting("feed.key", _text, ""),
    Setting("feed.key_file", _optional_path, None),
    Setting("feed.version", _version, 1),
    Setting("feed.set", _choice("sip", "http", "all"), "sip"),
    Setting("feed.interval", _number(1, _DAY), 120.0),
    Setting("feed.timeout", _number(0.5, 300), 30.0),
    Setting("feed.requests", _number(1, 10_000, whole=True), 5),
    Setting("feed.window", _number(1, 3600), 120.0),
    Setting("feed.reconcile_every", _number(1, 30 * _DAY), _DAY),
    Setting("feed.confirm_passes", _number(1, 100, whole=True), 3),
    Setting("feed.confirm_after", _number(0, 30 * _DAY), _DAY),
    Setting("feed.retry_unauthorized", _number(1, _DAY), 900.0),
    Setting("feed.ban_for", _number(1, 365 * _DAY), 7 * _DAY),
    Setting("feed.stale_max", _number(0, 365 * _DAY), 7 * _DAY),
    Setting("feed.max_entries", _number(1, 10_000_000, whole=True), 1_000_000),
    Setting("feed.widest_ipv4", _number(1, 32, whole=True), 16),
    Setting("feed.widest_ipv6", _number(1, 128, whole=True), 32),
    Setting("feed.accept_private", _boolean, default=False),
    Setting("feed.allow_http", _boolean, default=False),
    Setting("feed.ca_file", _optional_path, None),
    Setting("allow.networks", _networks, ()),
    Setting("node.peers", _peers, ()),
    Setting("edge.upstreams", _upstreams, ()),
    Setting("log.interval", _number(1, _DAY), 60.0),
    Setting("log.first_drops", _number(0, 1000, whole=True), 10),
    Setting("paths.state", _path, Path("/var/lib/apiban")),
    Setting("paths.runtime", _path, Path("/run/apiban")),
)
