"""What only nftables has: versions of nft, owners of tables, and its netlink."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from apiban.errors import FirewallError
from apiban.firewall import nftables, nftjson
from apiban.firewall.elements import FOREVER, Change, Wanted
from apiban.firewall.kernel import Kernel
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
ROOT = Path(__file__).parents[3]
_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
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
def test_anothers_changes_elsewhere_end_in_no_rebuild(backend: NftablesBackend) -> None:
    """The rules are known from the first instant, though others change theirs before a reading."""
    now = time.time()
    backend.apply(Change(add=ONE, rebuild=True), rules(), now=now)
    run("nft", "add table inet others")
    assert same(backend.read(rules(), now=now), ONE, frozenset())


def test_the_frame_is_of_our_rules_alone(kit: Kit, backend: NftablesBackend) -> None:
    """It stays when others change theirs, and when our sets change; rules made anew are others."""
    assert backend.frame() is None
    now = time.time()
    backend.apply(Change(add=ONE, rebuild=True), rules(hooks=("input", "forward")), now=now)
    frame = backend.frame()
    assert frame is not None
    run("nft", "add table inet others")
    run("nft", "add chain inet others input { type filter hook input priority 0; }")
    run("nft", "add rule inet others input accept")
    more = {block("198.51.100.9"): FOREVER, block("203.0.113.0/24"): FOREVER}
    backend.apply(Change(add=more), rules(), now=now)
    assert backend.frame() == frame
    run("nft", "insert rule inet apiban_firewall banned accept")
    assert backend.frame() != frame
    for name in ("rule of the hook deleted", "table switched off", "chain added"):
        backend.apply(Change(add=ONE, rebuild=True), rules(), now=now)
        frame = backend.frame()
        kit.tampers[name]()
        assert backend.frame() != frame


def test_ranges_keep_their_ends_to_the_second(backend: NftablesBackend) -> None:
    """However often others beside them are changed."""
    now = time.time()
    kept = {block("10.64.0.0/10"): int(now) + 900}
    backend.apply(Change(add=kept, rebuild=True), rules(), now=now)
    for number in range(8):
        more = {block(f"10.{number}.0.0/16"): FOREVER}
        backend.apply(Change(add=more), rules(), now=time.time())
    held = backend.read(rules(), now=time.time())
    assert held is not None
    # As the kernel tells it: what is left in full seconds, and it had it in full ones.
    assert abs(held.banned[block("10.64.0.0/10")] - kept[block("10.64.0.0/10")]) <= 1


def test_where_counters_are_gone(backend: NftablesBackend) -> None:
    """They are no zeros: who asks knows that the table is gone."""
    backend.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    assert backend.counters().keys() == {"ipv4", "ipv6"}
    run("nft", "delete table inet apiban_firewall")
    assert backend.counters() == {}


def test_a_ban_set_again_right_after_its_end(
    backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel ends it later than our clock does: it gets the new end, on older kernels, too."""
    fed: list[str] = []
    real = nftables.run

    def noted(words: Sequence[str], text: str = "", **more: float) -> Done:
        fed.append(text)
        return real(words, text, **more)

    one, clock = block(LISTED), {"now": time.time()}
    kernel = Kernel(backend, clock=time.monotonic)

    def bring(end: int) -> None:
        now = clock["now"]
        kernel.is_foreign(rules(), now=now, uptime=now, every=10)
        kernel.bring(Wanted({one: end}), now=now, uptime=now, afresh=True)

    first = int(clock["now"]) + 2
    bring(first)
    clock["now"] = first + 0.01  # ours goes before the kernel's: it has the element yet
    monkeypatch.setattr(nftables, "run", noted)
    bring(first + 600)
    held = backend.read(rules(), now=time.time())
    assert held is not None
    assert abs(held.banned[one] - (first + 600)) <= 4
    verbs = [next(iter(json.loads(line.rstrip(",")))) for line in fed[0].splitlines()[1:-1]]
    assert verbs == ["delete", "add"]


def test_a_list_that_takes_several_messages(backend: NftablesBackend) -> None:
    """Where the kernel lends little room, as to a container that is no root of the host."""
    probe = subprocess.run([*_NOBODY, "unshare", "-Urn", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("the kernel makes no user namespace here, as it never does in a chroot")
    script = (
        "import time\n"
        "from tests.contract.firewall.parts import LISTED6, block, blocks, many, rules, same\n"
        "from apiban.firewall.elements import FOREVER, Change\n"
        "from apiban.firewall.nftables import NftablesBackend\n"
        "backend, now = NftablesBackend(), time.time()\n"
        "banned = many(30_000) | {block(LISTED6): FOREVER}\n"
        "banned[block('203.0.113.0/24')] = int(now) + 90\n"
        "allowed = blocks('192.0.2.1')\n"
        "since = backend.mark()\n"
        "change = Change(add=banned, allow=allowed, rebuild=True)\n"
        "mark = backend.apply(change, rules(), now=now, since=since)\n"
        "assert mark == backend.mark() > since + 3, mark\n"
        "assert same(backend.read(rules(), now=time.time()), banned, allowed, since=now)\n"
        "more = many(30_000, '12.0.0.0')\n"
        "gone = frozenset(many(20_000))\n"
        "backend.apply(Change(add=more, remove=gone), rules(), now=now)\n"
        "left = {one: end for one, end in (banned | more).items() if one not in gone}\n"
        "assert same(backend.read(rules(), now=time.time()), left, allowed, since=now)\n"
    )
    done = subprocess.run(
        [*_NOBODY, "unshare", "-Urn", sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'kemi'}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


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

    def with_a_stranger(words: Sequence[str], text: str = "", **more: float) -> Done:
        done = real(words, text, **more)
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
