"""For every setting: a good value, a bad one, and what the error must say is allowed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apiban.address import parse_address, parse_network
from apiban.firewall.rules import Port
from apiban.settings import Mode, Secret, Settings, Upstream

KEY = "kkeeyy-5f1c0a99"


@dataclass(frozen=True)
class Sample:
    """``toml`` and ``variable`` both mean ``value``; ``bad`` is refused, ``allowed`` said."""

    default: Any
    toml: str
    variable: str
    value: Any
    bad: str
    allowed: str


_DAY = 86400.0
_SWITCH = Sample(
    default=False,
    toml="true",
    variable="yes",
    value=True,
    bad='"perhaps"',
    allowed="true or false",
)
_URL = 'a URL such as "https://apiban.org/api/"'
_NETWORKS = (parse_network("192.0.2.0/24"), parse_address("2001:db8::1"))
_PEERS = (parse_address("192.0.2.7"), parse_address("2001:db8::7"))
_AGENTS = (
    "friendly-scanner",
    "friendly-request",
    "sipvicious",
    "sip-scan",
    "sipscan",
    "sundayddr",
    "pplsip",
    "siparmyknife",
    "sivus",
    "sippts",
)
_UPSTREAMS = (
    Upstream(parse_address("192.0.2.9"), 5070, "tcp"),
    Upstream(parse_address("2001:db8::9"), 5060, "udp"),
)


def _number(default: float, value: float, bad: str, allowed: str) -> Sample:
    return Sample(default, f"{value:g}", f"{value:g}", value, bad, allowed)


SAMPLES = {
    "mode": Sample(
        Mode.ENFORCE, '"shadow"', "shadow", Mode.SHADOW, '"on"', "one of enforce, shadow, off"
    ),
    "feed.url": Sample(
        "https://apiban.org/api/",
        '"https://feed.example/v"',
        "https://feed.example/v",
        "https://feed.example/v/",
        '"ftp://feed.example/"',
        _URL,
    ),
    "feed.key": Sample(
        Secret(), f'"{KEY}"', KEY, Secret(KEY), "5", "a text of printable characters"
    ),
    "feed.key_file": Sample(
        None, '"/etc/apiban/key"', "/etc/apiban/key", Path("/etc/apiban/key"), '"key"', "absolute"
    ),
    "feed.version": Sample(1, "2", "2", 2, "3", "1 or 2"),
    "feed.set": Sample("sip", '"all"', "all", "all", '"smtp"', "one of sip, http, all"),
    "feed.interval": _number(120.0, 30.5, "0", "a number from 1 to 86400"),
    "feed.timeout": _number(30.0, 0.5, "0.4", "a number from 0.5 to 300"),
    "feed.requests": _number(5, 11, "1.5", "a whole number from 1 to 10000"),
    "feed.window": _number(120.0, 60.0, "-1", "a number from 1 to 3600"),
    "feed.reconcile_every": _number(_DAY, 3600.0, "nan", "a number from 1 to"),
    "feed.confirm_passes": _number(3, 7, "101", "a whole number from 1 to 100"),
    "feed.confirm_after": _number(_DAY, 0.0, "-0.1", "a number from 0 to"),
    "feed.retry_unauthorized": _number(900.0, 60.0, "inf", "a number from 1 to 86400"),
    "feed.ban_for": _number(7 * _DAY, 3600.0, "true", "a number from 1 to"),
    "feed.stale_max": _number(7 * _DAY, 0.0, "[]", "a number from 0 to"),
    "feed.max_entries": _number(1_000_000, 500, "0", "a whole number from 1 to"),
    "feed.widest_ipv4": _number(16, 24, "33", "a whole number from 1 to 32"),
    "feed.widest_ipv6": _number(32, 48, "0", "a whole number from 1 to 128"),
    "feed.max_growth": _number(1.0, 0.25, "-1", "a number from 0 to 1000"),
    "feed.accept_private": _SWITCH,
    "feed.allow_http": _SWITCH,
    "feed.ca_file": Sample(
        None,
        '"/etc/ssl/certs/ca-certificates.crt"',
        "/etc/ssl/certs/ca-certificates.crt",
        Path("/etc/ssl/certs/ca-certificates.crt"),
        "1",
        "absolute",
    ),
    "allow.networks": Sample(
        (),
        '["192.0.2.0/24", "2001:db8::1"]',
        "192.0.2.0/24, 2001:db8::1",
        _NETWORKS,
        '["192.0.2.1/24"]',
        "a list of addresses or networks such as 192.0.2.0/24",
    ),
    "allow.from_kamailio": Sample(
        ("dispatcher", "permissions"),
        '["permissions"]',
        "permissions",
        ("permissions",),
        '["carrierroute"]',
        "a list of dispatcher and permissions",
    ),
    "allow.permissions_groups": Sample(
        (), "[1, 20]", "1, 20", (1, 20), '["one"]', "a list of numbers of groups such as 1"
    ),
    "node.peers": Sample(
        (),
        '["192.0.2.7", "2001:db8::7"]',
        "192.0.2.7 2001:db8::7",
        _PEERS,
        '["192.0.2.0/24"]',
        "a list of addresses such as 192.0.2.7",
    ),
    "edge.upstreams": Sample(
        (),
        '["sip:192.0.2.9:5070;transport=TCP", "[2001:db8::9]"]',
        "sip:192.0.2.9:5070;transport=tcp,sip:[2001:db8::9]:5060",
        _UPSTREAMS,
        '["sip.example.org"]',
        "a list of SIP servers such as",
    ),
    "calls.grace": _number(0.0, 30.5, "-1", "a number from 0 to 86400"),
    "detect.enabled": _SWITCH,
    "detect.failures": _number(10, 0, "0.5", "a whole number from 0 to"),
    "detect.failures_window": _number(300.0, 60.0, "0", "a number from 1 to 86400"),
    "detect.failures_ban": _number(3600.0, 600.0, "0", "a number from 1 to"),
    "detect.users": _number(10, 3, "-1", "a whole number from 0 to"),
    "detect.users_window": _number(300.0, 60.0, "0", "a number from 1 to 86400"),
    "detect.users_ban": _number(7 * _DAY, 600.0, "0", "a number from 1 to"),
    "detect.agents": Sample(
        _AGENTS, '["BadPhone"]', "BadPhone", ("badphone",), '["ab"]', "a list of parts of"
    ),
    "detect.agents_ban": _number(7 * _DAY, 600.0, "0", "a number from 1 to"),
    "detect.requests": _number(0, 100, "-1", "a whole number from 0 to"),
    "detect.requests_window": _number(10.0, 60.0, "0", "a number from 1 to 3600"),
    "detect.requests_ban": _number(600.0, 60.0, "0", "a number from 1 to"),
    "report.url": Sample(
        "",
        '"https://feed.example/v"',
        "https://feed.example/v",
        "https://feed.example/v/",
        '"ftp://feed.example/"',
        _URL,
    ),
    "report.key": Sample(
        Secret(), f'"{KEY}"', KEY, Secret(KEY), "5", "a text of printable characters"
    ),
    "report.key_file": Sample(
        None, '"/etc/apiban/key"', "/etc/apiban/key", Path("/etc/apiban/key"), '"key"', "absolute"
    ),
    "report.interval": _number(10.0, 0.5, "0", "a number from 0.1 to 3600"),
    "report.batch": _number(500, 11, "1.5", "a whole number from 1 to 1000"),
    "report.timeout": _number(30.0, 0.5, "0.4", "a number from 0.5 to 300"),
    "report.allow_http": _SWITCH,
    "report.ca_file": Sample(
        None,
        '"/etc/ssl/certs/ca-certificates.crt"',
        "/etc/ssl/certs/ca-certificates.crt",
        Path("/etc/ssl/certs/ca-certificates.crt"),
        "1",
        "absolute",
    ),
    "htable.mirror": Sample(
        "", '"apiban"', "apiban", "apiban", '"api-ban"', "the name of a hash table of yours"
    ),
    "firewall.backend": Sample(
        "nftables", '"ipset"', "ipset", "ipset", '"pf"', "one of nftables, ipset, dry-run"
    ),
    "firewall.sources": Sample(
        "all", '"flooding"', "flooding", "flooding", '"some"', "one of all, flooding"
    ),
    "firewall.flood_rate": _number(100.0, 5.0, "0", "a number from 1 to 1e+06"),
    "firewall.flood_for": _number(600.0, 60.0, "9", "a number from 10 to 86400"),
    "firewall.hooks": Sample(
        ("input",),
        '["forward", "input"]',
        "forward, input",
        ("forward", "input"),
        '["output"]',
        "input and forward",
    ),
    "firewall.ports": Sample(
        (),
        '["udp/5060", "tcp/5060-5061"]',
        "udp/5060 tcp/5060-5061",
        (Port("udp", 5060, 5060), Port("tcp", 5060, 5061)),
        '["sip"]',
        "ports such as udp/5060",
    ),
    "firewall.interfaces": Sample(
        (), '["eth0", "vlan.7"]', "eth0,vlan.7", ("eth0", "vlan.7"), '["eth/0"]', "such as eth0"
    ),
    "firewall.established": Sample(
        "drop", '"keep"', "keep", "keep", '"accept"', "one of drop, keep"
    ),
    "firewall.conntrack": replace(
        _SWITCH, default=True, toml="false", variable="false", value=False
    ),
    "firewall.interval": _number(10.0, 5.0, "0.5", "a number from 1 to 60"),
    "firewall.on_exit": Sample(
        "keep", '"remove"', "remove", "remove", '"ask"', "one of keep, remove"
    ),
    "log.interval": _number(60.0, 5.0, '"often"', "a number from 1 to 86400"),
    "log.first_drops": _number(10, 0, "-1", "a whole number from 0 to 1000"),
    "paths.state": Sample(
        Path("/var/lib/apiban"), '"/srv/state"', "/srv/state", Path("/srv/state"), '""', "absolute"
    ),
    "paths.runtime": Sample(
        Path("/run/apiban"), '"/srv/run"', "/srv/run", Path("/srv/run"), '"run"', "absolute"
    ),
}


def value_of(settings: Settings, name: str) -> Any:
    """Give the setting of a dotted name."""
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def toml_of(values: dict[str, str]) -> str:
    """Write settings as TOML: dotted names, TOML values."""
    return "".join(f"{name} = {text}\n" for name, text in values.items())
