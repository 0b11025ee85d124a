"""What nft is given, and what is made of its listings."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from apiban.firewall import nftjson
from apiban.firewall.elements import FOREVER, Block
from apiban.firewall.rules import Port, Rules
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_800_000_000.0
RULES = Rules(("input",), (), (), "drop", drops=True)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    """Any CIDR block of either family."""
    family, width = draw(st.sampled_from([(4, 32), (6, 128)]))
    bits = draw(st.integers(0, width))
    first = draw(st.integers(0, (1 << width) - 1)) >> bits << bits
    return family, first, first + (1 << bits) - 1  # type: ignore[return-value]


def shown(block: Block) -> Any:
    """Write a block as nft shows it."""
    family, first, last = block
    kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    if first == last:
        return str(kind(first))
    width = 32 if family == 4 else 128
    return {"prefix": {"addr": str(kind(first)), "len": width - (last - first).bit_length()}}


def listing(*items: Any, name: str = "s") -> str:
    """Write a listing of one set."""
    one = {"family": "inet", "name": name, "table": nftjson.TABLE, "elem": list(items)}
    return json.dumps({"nftables": [{"metainfo": {}}, {"set": one}]})


@given(held=st.dictionaries(blocks(), st.none() | st.integers(0, 10**9), max_size=20))
def test_elements_are_read_as_they_are_shown(held: dict[Block, int | None]) -> None:
    """Addresses and networks, with and without what is left of their time."""
    items = [
        shown(block)
        if left is None
        else {"elem": {"val": shown(block), "timeout": 10**9, "expires": left}}
        for block, left in held.items()
    ]
    read = nftjson.elements_of(nftjson.listed(listing(*items)), "s", NOW)
    assert read == {
        block: FOREVER if left is None else int(NOW) + left for block, left in held.items()
    }


@given(banned=st.dictionaries(blocks(), st.just(FOREVER) | st.integers(1, 2**32), max_size=20))
def test_elements_are_given_as_they_are_read(banned: dict[Block, int]) -> None:
    """What is fed is JSON; each ban that has not ended is in there, with the time left of it."""
    fed = json.loads(nftjson.document(nftjson.add("s", banned, NOW)))["nftables"]
    alive = {block: end for block, end in banned.items() if end > NOW}
    assert len(fed) == bool(alive)
    items = [item for one in fed for item in one["add"]["element"]["elem"]]
    for item in items:
        if isinstance(item, dict) and "elem" in item:
            item["elem"]["expires"] = item["elem"]["timeout"]
    assert nftjson.elements_of(nftjson.listed(listing(*items)), "s", NOW) == alive


def test_a_range_that_is_no_network() -> None:
    """Somebody else's element of any two addresses is read as well."""
    read = nftjson.elements_of(
        nftjson.listed(listing({"range": ["10.0.0.1", "10.0.0.5"]})), "s", NOW
    )
    assert read == {(4, 0x0A000001, 0x0A000005): FOREVER}


def test_a_ban_with_nothing_left_is_none_for_good() -> None:
    """An element in its last instant shows no rest."""
    item = {"elem": {"val": "10.0.0.1", "timeout": 5}}
    read = nftjson.elements_of(nftjson.listed(listing(item)), "s", NOW)
    assert read == {(4, 0x0A000001, 0x0A000001): int(NOW)}


@pytest.mark.parametrize("item", [5, None, {}, {"elem": {}}, "no address", {"prefix": {"len": 8}}])
def test_an_element_of_another_kind(item: Any) -> None:
    """What is none of ours is told, and nothing else is raised."""
    with pytest.raises(ValueError, match="none of ours"):
        nftjson.elements_of(nftjson.listed(listing(item)), "s", NOW)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"nftables": 1}', "{"])
def test_no_listing(text: str) -> None:
    """What is no listing is told."""
    with pytest.raises(ValueError):
        nftjson.listed(text)


def test_a_shape_is_the_same_however_it_is_shown() -> None:
    """Numbers, counts, elements, the order of a set's values and a lone flag do not count."""
    rules = Rules(
        ("input",), (Port("tcp", 1, 1), Port("tcp", 5, 5)), ("a", "b"), "keep", drops=True
    )
    objects = [
        json.loads(command)["add"] for command in nftjson.rebuild(rules) if '"add"' in command
    ]
    for number, one in enumerate(objects):
        for body in one.values():
            body["handle"] = number
    for one in objects:
        if "counter" in one:
            one["counter"] |= {"packets": 5, "bytes": 9}
        if one.get("set", {}).get("flags") == ["timeout"]:
            one["set"] |= {"flags": "timeout", "elem": ["10.0.0.1"]}
        for expression in one.get("rule", {}).get("expr", ()):
            right = expression.get("match", {}).get("right")
            if isinstance(right, dict) and "set" in right:
                right["set"].reverse()
    assert nftjson.shape_of(objects) == nftjson.shape_wanted(rules)


def test_the_order_of_rules_counts() -> None:
    """Two rules that changed places are another shape."""
    objects = [json.loads(command).get("add", {}) for command in nftjson.rebuild(RULES)]
    objects[-1], objects[-2] = objects[-2], objects[-1]
    assert nftjson.shape_of(objects) != nftjson.shape_wanted(RULES)


def test_ports_that_touch_are_one_range() -> None:
    """The kernel refuses ranges that overlap, and nft shows neighbours as one."""
    ports = (Port("udp", 5070, 5080), Port("udp", 5060, 5061), Port("udp", 5062, 5072))
    one = Rules(("input",), ports, (), "drop", drops=True)
    other = Rules(("input",), (Port("udp", 5060, 5080),), (), "drop", drops=True)
    assert nftjson.shape_wanted(one) == nftjson.shape_wanted(other)
