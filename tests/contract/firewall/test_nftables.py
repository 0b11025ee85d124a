"""What only nftables has: versions of nft, owners of tables, and its netlink."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
from apiban.errors import FirewallError
from apiban.firewall import nftables, nftjson
from apiban.firewall.elements import FOREVER, Change
from apiban.firewall.netlink import ruleset_generation
from apiban.firewall.nftables import NftablesBackend
from apiban.firewall.rules import Rules
from apiban.firewall.tool import Done

from tests.contract.firewall.kits import KITS, Kit
from tests.contract.firewall.parts import LISTED, block, rules, same
from tests.contract.firewall.world import World, run

pytestmark = pytest.mark.parametrize(
    "kit", [kit for kit in KITS if kit.name == "nftables"], ids=["nftables"], indirect=True
)
ONE = {block(LISTED): FOREVER}


@pytest.fixture
def other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nft show all rules in other words than those that this package knows."""
    real = nftjson.shape_wanted

    def wanted(asked: Rules) -> nftjson.Shape:
        return real(replace(asked, interfaces=("unknown words",)))

    monkeypatch.setattr(nftjson, "shape_wanted", wanted)


@pytest.mark.usefixtures("other_words")
def test_another_versions_words_are_learned(backend: NftablesBackend) -> None:
    """After one rebuild of its own the backend knows how this nft shows its rules."""
    now = time.time()
    backend.apply(Change(add=ONE, rebuild=True), rules(), now=now)
    assert same(backend.read(rules(), now=now), ONE, frozenset())
    more = {block("198.51.100.9"): FOREVER}
    backend.apply(Change(add=more), rules(), now=now)
    assert same(backend.read(rules(), now=now), ONE | more, frozenset())
    run("nft", "add rule inet apiban_firewall banned accept")
    held = backend.read(rules(), now=now)
    assert held is not None
    assert not held.intact


@pytest.mark.usefixtures("other_words")
def test_what_somebody_touched_is_not_learned(backend: NftablesBackend) -> None:
    """A foreign rule that came right after the rebuild never passes for one of ours."""
    now = time.time()
    backend.apply(Change(add=ONE, rebuild=True), rules(), now=now)
    run("nft", "insert rule inet apiban_firewall banned accept")
    backend.apply(Change(add={block("198.51.100.9"): FOREVER}), rules(), now=now)
    held = backend.read(rules(), now=now)
    assert held is not None
    assert not held.intact


@pytest.fixture
def right_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stranger's rule come in the instant after each transaction of ours."""
    real = nftables.run

    def with_a_stranger(words: Sequence[str], text: str = "") -> Done:
        done = real(words, text)
        if text:
            run("nft", "insert rule inet apiban_firewall banned accept")
        return done

    monkeypatch.setattr(nftables, "run", with_a_stranger)


@pytest.mark.usefixtures("right_after")
def test_what_came_right_after_a_change_is_not_taken_for_ours(backend: NftablesBackend) -> None:
    """The mark that a change gives is not the one that the stranger made."""
    mark = backend.apply(
        Change(add=ONE, rebuild=True), rules(), now=time.time(), since=backend.mark()
    )
    assert backend.mark() != mark


@pytest.mark.usefixtures("other_words", "right_after")
def test_what_came_with_our_own_change_is_not_learned(backend: NftablesBackend) -> None:
    """A foreign rule that came in the instant after our transaction is none of ours either."""
    now = time.time()
    backend.apply(Change(add=ONE, rebuild=True), rules(), now=now)
    held = backend.read(rules(), now=now)
    assert held is not None
    assert not held.intact


def test_an_address_in_the_wrong_set(backend: NftablesBackend) -> None:
    """It cannot be removed by a change: the table is not intact, and made anew."""
    backend.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    run("nft", "add element inet apiban_firewall ranges_ipv4 { 192.0.2.77 }")
    held = backend.read(rules(), now=time.time())
    assert held is not None
    assert not held.intact


@contextmanager
def owned() -> Iterator[None]:
    """Have a process own a table of our name: the kernel lets nobody else change it."""
    with subprocess.Popen(
        ["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as owner:
        assert owner.stdin is not None
        before = ruleset_generation()
        owner.stdin.write("add table inet apiban_firewall { flags owner; }\n")
        owner.stdin.flush()
        end = time.monotonic() + 10
        while ruleset_generation() == before:
            assert time.monotonic() < end
            time.sleep(0.01)
        yield
        owner.stdin.close()


def test_a_table_that_somebody_owns(backend: NftablesBackend) -> None:
    """The line says that it may be another program's; nothing is changed."""
    with owned():
        before = run("nft", "list ruleset")
        with pytest.raises(FirewallError, match="no other program may own") as raised:
            backend.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
        assert "\n" not in str(raised.value)
        assert run("nft", "list ruleset") == before


def test_what_the_kernel_ends_is_no_foreign_change(
    kit: Kit, backend: NftablesBackend, world: World
) -> None:
    """The mark stays when an element's time is over."""
    now = time.time()
    backend.apply(Change(add={block(LISTED): int(now) + 2}, rebuild=True), rules(), now=now)
    mark = backend.mark()
    while not world.sends(LISTED):
        assert time.time() < now + 10
    assert backend.mark() == mark
