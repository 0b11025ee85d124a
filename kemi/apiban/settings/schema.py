"""Every setting of a node: its name, how its value is read, its default, and what is allowed.

docs/settings.md describes the same names for operators; a test holds the two together.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from apiban.address import parse_address
from apiban.settings.model import Mode, Upstream
from apiban.settings.readers import (
    Setting,
    boolean,
    choice,
    list_of,
    network,
    number,
    optional_path,
    path,
    text,
    url,
    version,
)

__all__ = ["SCHEMA"]

_DAY: Final = 86400.0
_UPSTREAM = re.compile(
    r"(?:sip:)?(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9.]+)(?::(?P<port>\d{1,5}))?"
    r"(?:;transport=(?P<transport>[a-zA-Z]+))?",
    re.ASCII,
)


def _mode(value: Any) -> Mode:
    text: str = choice("enforce", "shadow", "off")(value)
    return Mode[text.upper()]


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


_networks = list_of(network, "addresses or networks such as 192.0.2.0/24")
_peers = list_of(parse_address, "addresses such as 192.0.2.7")
_upstreams = list_of(
    _upstream, 'SIP servers such as "sip:192.0.2.9:5060;transport=udp" (an address, not a name)'
)

SCHEMA: Final[tuple[Setting, ...]] = (
    Setting("mode", _mode, Mode.ENFORCE),
    Setting("feed.url", url, "https://apiban.org/api/"),
    Setting("feed.key", text, ""),
    Setting("feed.key_file", optional_path, None),
    Setting("feed.version", version, 1),
    Setting("feed.set", choice("sip", "http", "all"), "sip"),
    Setting("feed.interval", number(1, _DAY), 120.0),
    Setting("feed.timeout", number(0.5, 300), 30.0),
    Setting("feed.requests", number(1, 10_000, whole=True), 5),
    Setting("feed.window", number(1, 3600), 120.0),
    Setting("feed.reconcile_every", number(1, 30 * _DAY), _DAY),
    Setting("feed.confirm_passes", number(1, 100, whole=True), 3),
    Setting("feed.confirm_after", number(0, 30 * _DAY), _DAY),
    Setting("feed.retry_unauthorized", number(1, _DAY), 900.0),
    Setting("feed.ban_for", number(1, 365 * _DAY), 7 * _DAY),
    Setting("feed.stale_max", number(0, 365 * _DAY), 7 * _DAY),
    Setting("feed.max_entries", number(1, 10_000_000, whole=True), 1_000_000),
    Setting("feed.widest_ipv4", number(1, 32, whole=True), 16),
    Setting("feed.widest_ipv6", number(1, 128, whole=True), 32),
    Setting("feed.accept_private", boolean, default=False),
    Setting("feed.allow_http", boolean, default=False),
    Setting("feed.ca_file", optional_path, None),
    Setting("allow.networks", _networks, ()),
    Setting("node.peers", _peers, ()),
    Setting("edge.upstreams", _upstreams, ()),
    Setting("log.interval", number(1, _DAY), 60.0),
    Setting("log.first_drops", number(0, 1000, whole=True), 10),
    Setting("paths.state", path, Path("/var/lib/apiban")),
    Setting("paths.runtime", path, Path("/run/apiban")),
)
