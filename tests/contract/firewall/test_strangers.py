"""What others do to our rules is seen; what is theirs stays."""

from __future__ import annotations

import time

import pytest
from apiban.firewall.backend import Backend
from apiban.firewall.elements import FOREVER, Change

from tests.contract.firewall.kits import KITS, Kit
from tests.contract.firewall.parts import LISTED, block, rules, same

ONE = {block(LISTED): FOREVER, block("203.0.113.0/24"): FOREVER}


def test_nobody_changed_anything(backend: Backend) -> None:
    """Looking, and time that goes by, leave the mark as it is; a change of ours does not."""
    now = time.time()
    backend.apply(Change(add=ONE, rebuild=True), rules(), now=now)
    mark = backend.mark()
    assert mark is not None
    backend.read(rules(), now=now)
    backend.counters()
    assert backend.mark() == mark


def test_a_change_tells_its_mark(backend: Backend) -> None:
    """It is the mark that the kernel has from then on; nothing is known of what was before."""
    now, more = time.time(), Change(add={block("192.0.2.9"): FOREVER})
    mark = backend.apply(Change(add=ONE, rebuild=True), rules(), now=now, since=backend.mark())
    assert mark is not None
    assert mark == backend.mark()
    mark = backend.apply(more, rules(), now=now, since=mark)
    assert mark is not None
    assert mark == backend.mark()
    assert backend.apply(Change(), rules(), now=now, since=mark) == mark


def test_what_others_did_before_a_change_is_not_taken_for_ours(kit: Kit, backend: Backend) -> None:
    """From the mark on that the change was made from."""
    now, more = time.time(), Change(add={block("192.0.2.9"): FOREVER})
    backend.apply(Change(add=ONE, rebuild=True), rules(), now=now)
    mark = backend.mark()
    kit.tampers["element deleted"]()
    assert backend.apply(more, rules(), now=now, since=mark) != backend.mark()


@pytest.mark.parametrize(
    ("kit", "name"),
    [(kit, name) for kit in KITS for name in kit.tampers],
    indirect=["kit"],
    ids=lambda one: one.name if isinstance(one, Kit) else one,
)
def test_foreign_changes_are_seen_and_mended(kit: Kit, name: str, backend: Backend) -> None:
    """Each one changes the mark, is told by a reading, and a rebuild mends it."""
    backend.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    mark = backend.mark()
    kit.tampers[name]()
    assert backend.mark() != mark
    assert not same(backend.read(rules(), now=time.time()), ONE, frozenset())
    backend.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    assert same(backend.read(rules(), now=time.time()), ONE, frozenset())


def test_what_is_not_ours_stays(kit: Kit, backend: Backend) -> None:
    """Building, changing and removing leave the tables of others as they are."""
    look = kit.stranger()
    before = look()
    backend.apply(Change(add=ONE, rebuild=True), rules(hooks=("input", "forward")), now=time.time())
    assert look() == before
    backend.apply(Change(remove=frozenset(ONE)), rules(), now=time.time())
    backend.remove()
    assert look() == before
