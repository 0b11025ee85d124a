"""What nft reads and writes as JSON (libnftables-json(5)): our table, and what is in its sets.

::

    table inet apiban_firewall
    +-- chains "input", "forward"      for the hooks: whom and what the list is not for
    +-- chain "banned"                 the sets of the list: count, drop
    +-- sets allowed_ipv4, _ipv6       blocks
    +-- sets banned_ipv4, _ipv6        single addresses, in hash tables: each costs the same
    +-- sets ranges_ipv4, _ipv6        blocks: few, and a change of one is all of them anew
    +-- counters ipv4, ipv6

What a packet's source decides is in ``docs/adr/0017-single-addresses-in-hash-sets.md``.
"""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from apiban.address import Family
from apiban.firewall.elements import FOREVER, Block, Elements
from apiban.firewall.rules import Port, Rules

__all__ = [
    "ALLOWED",
    "BANNED",
    "COUNTERS",
    "FAMILIES",
    "RANGES",
    "TABLE",
    "Shape",
    "add",
    "delete",
    "document",
    "elements_of",
    "flush",
    "listed",
    "rebuild",
    "shape_of",
    "shape_wanted",
]

TABLE: Final = "apiban_firewall"
_CHAIN: Final = "banned"
FAMILIES: Final[tuple[Family, Family]] = (4, 6)
ALLOWED: Final[Mapping[Family, str]] = {4: "allowed_ipv4", 6: "allowed_ipv6"}
BANNED: Final[Mapping[Family, str]] = {4: "banned_ipv4", 6: "banned_ipv6"}
RANGES: Final[Mapping[Family, str]] = {4: "ranges_ipv4", 6: "ranges_ipv6"}

# Before the host's own filter, which most likely accepts what is established; after conntrack.
_PRIORITY: Final = -10
COUNTERS: Final[Mapping[Family, str]] = {4: "ipv4", 6: "ipv6"}
_OURS: Final = {"family": "inet", "table": TABLE}
_SOCKET: Final[Mapping[Family, int]] = {4: socket.AF_INET, 6: socket.AF_INET6}
_WIDTH: Final[Mapping[Family, int]] = {4: 4, 6: 16}

# What a listing shows of tables, chains, sets and counters, in one order, and of each chain's
# rules, in theirs; without numbers, counts and elements.
Shape = tuple[frozenset[str], tuple[tuple[str, tuple[str, ...]], ...]]
_VARYING: Final = frozenset({"handle", "elem", "packets", "bytes"})
_LISTED: Final = ("table", "chain", "set", "map", "counter", "flowtable")


def document(commands: Iterable[str]) -> str:
    """Make what nft is fed: one transaction, a command a line."""
    return '{"nftables": [\n' + ",\n".join(commands) + "\n]}\n"


def rebuild(rules: Rules) -> list[str]:
    """Give the commands for the table anew, with empty sets."""
    table = {"table": {"family": "inet", "name": TABLE}}
    # The first one is for the second, which fails where nothing is there.
    return [
        _command("add", table),
        _command("delete", table),
        *(_command("add", part) for part in _parts(rules)),
    ]


def flush(name: str) -> str:
    """Give the command that empties a set."""
    return _command("flush", {"set": {**_OURS, "name": name}})


def add(name: str, banned: Mapping[Block, int], now: float) -> Iterator[str]:
    """Give the command that puts blocks into a set, if there are any whose ban has not ended."""
    # Made by hand: 100,000 of them are a second's work for ``json``.
    items = [
        f'{{"elem": {{"val": {_value(block)}, "timeout": {max(1, math.ceil(end - now))}}}}}'
        if end != FOREVER
        else _value(block)
        for block, end in banned.items()
        if now < end  # a timeout of 0 would be a ban for good
    ]
    if items:
        yield _element("add", name, items)


def delete(name: str, blocks: Iterable[Block]) -> Iterator[str]:
    """Give the command that takes blocks out of a set, if there are any."""
    items = [_value(block) for block in blocks]
    if items:
        yield _element("delete", name, items)


def listed(text: str) -> list[dict[str, Any]]:
    """Read a listing.

    Raises:
        ValueError: it is none.

    """
    try:
        objects = json.loads(text)["nftables"]
    except (KeyError, TypeError) as error:
        raise ValueError("no listing") from error
    if not isinstance(objects, list):
        raise ValueError("no listing")  # noqa: TRY004 - one type for what is no listing
    return objects


def elements_of(objects: Iterable[Mapping[str, Any]], name: str, now: float) -> Elements:
    """Give what is in one set of a listing, with the ends of the bans.

    Raises:
        ValueError: an element is none of ours.

    """
    found: Elements = {}
    try:
        for one in objects:
            if one.get("set", {}).get("name") == name:
                for item in one["set"].get("elem", ()):
                    block, end = _read(item, now)
                    found[block] = end
    except (KeyError, TypeError, AttributeError, OSError) as error:
        raise ValueError(f"an element that is none of ours in {name}") from error
    return found


def shape_wanted(rules: Rules) -> Shape:
    """Give the shape that rules have when nobody changed anything, as nft 1.0 and 1.1 show it."""
    return shape_of(_parts(rules))


def shape_of(objects: Iterable[Mapping[str, Any]]) -> Shape:
    """Give a listing's shape."""
    things: set[str] = set()
    rules: dict[str, list[str]] = {}
    for one in objects:
        for kind in _LISTED:
            if kind in one:
                things.add(json.dumps({kind: _plain(one[kind])}, sort_keys=True))
        if "rule" in one:
            text = json.dumps(_plain(one["rule"]), sort_keys=True)
            rules.setdefault(one["rule"]["chain"], []).append(text)
    return frozenset(things), tuple((name, tuple(rules[name])) for name in sorted(rules))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        plain = {key: _plain(one) for key, one in value.items() if key not in _VARYING}
        flags = plain.get("flags")
        if isinstance(flags, str):  # one flag, as newer versions show it
            plain["flags"] = [flags]
        if isinstance(plain.get("set"), list):
            plain["set"].sort(key=json.dumps)
        return plain
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value


def _command(verb: str, what: Mapping[str, Any]) -> str:
    return json.dumps({verb: what})


def _element(verb: str, name: str, items: list[str]) -> str:
    return (
        f'{{"{verb}": {{"element": {{"family": "inet", "table": "{TABLE}", "name": "{name}", '
        f'"elem": [{", ".join(items)}]}}}}}}'
    )


def _value(block: Block) -> str:
    family, first, last = block
    if first == last:
        return f'"{_text(family, first)}"'
    return f'{{"range": ["{_text(family, first)}", "{_text(family, last)}"]}}'


def _text(family: Family, address: int) -> str:
    return socket.inet_ntop(_SOCKET[family], address.to_bytes(_WIDTH[family], "big"))


def _read(item: Any, now: float) -> tuple[Block, int]:
    end = FOREVER
    if isinstance(item, dict) and "elem" in item:
        item = item["elem"]
        if "timeout" in item:
            end = math.ceil(now + item.get("expires", 0))
        item = item["val"]
    if isinstance(item, str):
        family, first = _number(item)
        return (family, first, first), end
    if "range" in item:
        family, first = _number(item["range"][0])
        _, last = _number(item["range"][1])
    else:
        family, first = _number(item["prefix"]["addr"])
        last = first + (1 << 8 * _WIDTH[family] - item["prefix"]["len"]) - 1
    return (family, first, last), end


def _number(text: str) -> tuple[Family, int]:
    family: Family = 6 if ":" in text else 4
    return family, int.from_bytes(socket.inet_pton(_SOCKET[family], text), "big")


def _parts(rules: Rules) -> Iterator[dict[str, Any]]:
    """Give all of the table, in the form in which nft lists it."""
    yield {"table": {"family": "inet", "name": TABLE}}
    for family in FAMILIES:
        yield {"counter": {**_OURS, "name": COUNTERS[family]}}
    for names, flags in (
        (ALLOWED, ["interval"]),
        (BANNED, ["timeout"]),
        (RANGES, ["interval", "timeout"]),
    ):
        for family in FAMILIES:
            kind = f"ipv{family}_addr"
            yield {"set": {**_OURS, "name": names[family], "type": kind, "flags": flags}}
    yield {"chain": {**_OURS, "name": _CHAIN}}
    for hook in rules.hooks:
        yield {
            "chain": {
                **_OURS,
                "name": hook,
                "type": "filter",
                "hook": hook,
                "prio": _PRIORITY,
                "policy": "accept",
            }
        }
    for names in (BANNED, RANGES):
        for family in FAMILIES:
            counted = [_source(family, names), {"counter": COUNTERS[family]}]
            yield _rule(_CHAIN, *counted, *([{"drop": None}] if rules.drops else ()))
    for hook in rules.hooks:
        for expressions in _before(rules):
            yield _rule(hook, *expressions)


def _before(rules: Rules) -> Iterator[list[dict[str, Any]]]:
    """Give what a hook's packets meet until they come to the list."""
    leave: dict[str, Any] = {"return": None}
    if rules.interfaces:
        here = _match("!=", {"meta": {"key": "iifname"}}, _any_of(sorted(set(rules.interfaces))))
        yield [here, leave]
    for family in FAMILIES:
        yield [_source(family, ALLOWED), leave]
    if rules.established == "keep":
        yield [_match("in", {"ct": {"key": "state"}}, ["established", "related"]), leave]
    go_on: dict[str, Any] = {"jump": {"target": _CHAIN}}
    if not rules.ports:
        yield [go_on]
    for protocol in ("udp", "tcp"):
        ports = _joined(port for port in rules.ports if port.protocol == protocol)
        if ports:
            there = {"payload": {"protocol": protocol, "field": "dport"}}
            yield [_match("==", there, _any_of(ports)), go_on]


def _joined(ports: Iterable[Port]) -> list[Any]:
    """Give ports as ranges that do not touch each other."""
    joined: list[tuple[int, int]] = []
    for port in sorted(ports, key=lambda one: one.first):
        if joined and port.first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], port.last))
        else:
            joined.append((port.first, port.last))
    return [first if first == last else {"range": [first, last]} for first, last in joined]


def _any_of(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else {"set": values}


def _source(family: Family, names: Mapping[Family, str]) -> dict[str, Any]:
    protocol = "ip" if family == 4 else "ip6"
    return _match("==", {"payload": {"protocol": protocol, "field": "saddr"}}, f"@{names[family]}")


def _match(operator: str, left: Any, right: Any) -> dict[str, Any]:
    return {"match": {"op": operator, "left": left, "right": right}}


def _rule(chain: str, *expressions: dict[str, Any]) -> dict[str, Any]:
    return {"rule": {**_OURS, "chain": chain, "expr": list(expressions)}}
