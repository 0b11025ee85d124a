"""Every setting of a node: its name, how its value is read, its default, and what is allowed.

docs/settings.md describes the same names for operators; a test holds the two together.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, Literal

from apiban.address import parse_address
from apiban.firewall.rules import Port
from apiban.settings.model import Mode, Upstream
from apiban.settings.readers import (
    Setting,
    boolean,
    choice,
    list_of,
    network,
    number,
    optional_path,
    optional_url,
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


def _table(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_]{0,31}", value, re.ASCII):
        raise ValueError("the name of a hash table of yours, such as apiban")
    if value == "apiban_front":
        raise ValueError("the name of a hash table of yours: this one is not for others")
    return value


def _group(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise ValueError(f"not a group's number: {text[:20]!r}")
    return int(text)


def _groups(value: Any) -> tuple[int, ...]:
    if isinstance(value, list) and all(type(one) is int for one in value):
        value = [str(one) for one in value]
    groups: tuple[int, ...] = list_of(_group, "numbers of groups such as 1")(value)
    return groups


def _agent(text: str) -> str:
    if not text.isprintable() or not text.isascii() or len(text) < 3:
        raise ValueError(f"not three or more characters of a user agent: {text[:40]!r}")
    return text.lower()


# What scanners call themselves unless told otherwise.
_AGENTS: Final = (
    *("friendly-scanner", "friendly-request", "sipvicious", "sip-scan", "sipscan", "sundayddr"),
    *("pplsip", "siparmyknife", "sivus", "sippts"),
)

_PROTOCOLS: Final[tuple[Literal["udp", "tcp"], ...]] = ("udp", "tcp")
_trusted = list_of(choice("dispatcher", "permissions"), "dispatcher and permissions")
_networks = list_of(network, "addresses or networks such as 192.0.2.0/24")
_peers = list_of(parse_address, "addresses such as 192.0.2.7")
_upstreams = list_of(
    _upstream, 'SIP servers such as "sip:192.0.2.9:5060;transport=udp" (an address, not a name)'
)

_PORTS: Final = "ports such as udp/5060, tcp/5060-5061, or 5060 for udp and tcp"


def _port(text: str) -> tuple[Port, ...]:
    match = re.fullmatch(r"(?:(udp|tcp)/)?(\d{1,5})(?:-(\d{1,5}))?", text, re.ASCII)
    first, last = (int(match[2]), int(match[3] or match[2])) if match else (0, 0)
    if match is None or not 0 < first <= last < 65536:
        raise ValueError(f"not ports: {text[:40]!r}")
    return tuple(Port(kind, first, last) for kind in _PROTOCOLS if match[1] in {None, kind})


def _ports(value: Any) -> tuple[Port, ...]:
    if isinstance(value, list):
        value = [str(one) if type(one) is int else one for one in value]
    found: tuple[tuple[Port, ...], ...] = list_of(_port, _PORTS)(value)
    return tuple(dict.fromkeys(port for ports in found for port in ports))


def _interface(text: str) -> str:
    # Linux allows more, and no tool of the field takes that.
    if not re.fullmatch(r"[A-Za-z0-9_.:@-]{1,15}", text, re.ASCII):
        raise ValueError(f"not the name of an interface: {text[:40]!r}")
    return text


def _hooks(value: Any) -> tuple[str, ...]:
    hooks: tuple[str, ...] = list_of(choice("input", "forward"), "input and forward")(value)
    if not hooks:
        raise ValueError("a list of input and forward, or of one of them")
    return tuple(dict.fromkeys(hooks))


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
    Setting("feed.max_growth", number(0, 1000), 1.0),
    Setting("feed.accept_private", boolean, default=False),
    Setting("feed.allow_http", boolean, default=False),
    Setting("feed.ca_file", optional_path, None),
    Setting("allow.networks", _networks, ()),
    Setting("allow.from_kamailio", _trusted, ("dispatcher", "permissions")),
    Setting("allow.permissions_groups", _groups, ()),
    Setting("node.peers", _peers, ()),
    Setting("edge.upstreams", _upstreams, ()),
    Setting("calls.grace", number(0, _DAY), 0.0),
    Setting("detect.enabled", boolean, default=False),
    Setting("detect.failures", number(0, 1_000_000, whole=True), 10),
    Setting("detect.failures_window", number(1, _DAY), 300.0),
    Setting("detect.failures_ban", number(1, 365 * _DAY), 3600.0),
    Setting("detect.users", number(0, 1_000_000, whole=True), 10),
    Setting("detect.users_window", number(1, _DAY), 300.0),
    Setting("detect.users_ban", number(1, 365 * _DAY), 7 * _DAY),
    Setting("detect.agents", list_of(_agent, "parts of user agents"), _AGENTS),
    Setting("detect.agents_ban", number(1, 365 * _DAY), 7 * _DAY),
    Setting("detect.requests", number(0, 1_000_000, whole=True), 0),
    Setting("detect.requests_window", number(1, 3600), 10.0),
    Setting("detect.requests_ban", number(1, 365 * _DAY), 600.0),
    Setting("report.url", optional_url, ""),
    Setting("report.key", text, ""),
    Setting("report.key_file", optional_path, None),
    Setting("report.interval", number(0.1, 3600), 10.0),
    Setting("report.batch", number(1, 1000, whole=True), 500),
    Setting("report.timeout", number(0.5, 300), 30.0),
    Setting("report.allow_http", boolean, default=False),
    Setting("report.ca_file", optional_path, None),
    Setting("htable.mirror", _table, ""),
    Setting("firewall.backend", choice("nftables", "ipset", "dry-run"), "nftables"),
    Setting("firewall.sources", choice("all", "flooding"), "all"),
    Setting("firewall.flood_rate", number(1, 1_000_000), 100.0),
    Setting("firewall.flood_for", number(10, _DAY), 600.0),
    Setting("firewall.hooks", _hooks, ("input",)),
    Setting("firewall.ports", _ports, ()),
    Setting("firewall.interfaces", list_of(_interface, "names of interfaces such as eth0"), ()),
    Setting("firewall.established", choice("drop", "keep"), "drop"),
    Setting("firewall.conntrack", boolean, default=True),
    Setting("firewall.interval", number(1, 60), 10.0),
    Setting("firewall.on_exit", choice("keep", "remove"), "keep"),
    Setting("log.interval", number(1, _DAY), 60.0),
    Setting("log.first_drops", number(0, 1000, whole=True), 10),
    Setting("paths.state", path, Path("/var/lib/apiban")),
    Setting("paths.runtime", path, Path("/run/apiban")),
)
