"""The front in a real Kamailio: native code answers, and nothing goes by an old list."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from apiban.address import parse_network
from apiban.gate import DROP, Hits
from apiban.gate.board import SWEPT, Counts
from apiban.gate.front import COUNT_BITS, TABLE
from apiban.snapshot import Origin
from apiban.store import DETECTOR, LOCAL, Store

from tests.integration.test_native import configuration
from tests.support.node import NodeUnderTest, wait_for
from tests.support.sip import Sender

pytestmark = pytest.mark.kamailio

LISTED, OTHER, GOOD = "127.0.1.5", "127.0.1.6", "127.0.2.1"


def flood(node: NodeUnderTest, source: str, packets: int) -> Counts:
    """Send packets without losing one; give what became of them, once all are counted.

    The first ones come one by one, so that no two workers count for the source at the same time.
    """
    wait_for(lambda: node.board.words[SWEPT], "the front to be looked after")
    before = node.board.total()
    with Sender(source, node.target) as sender:
        for sent in range(packets):
            sender.send()
            ahead = 50 if sent >= 5 else 1
            if sent % ahead == ahead - 1:
                wait_for(
                    lambda n=sent + 1 - ahead: handled(node) - handled_of(before) > n, "the workers"
                )
    wait_for(lambda: handled(node) - handled_of(before) == packets, "every packet's count")
    return node.board.total() - before


def handled(node: NodeUnderTest) -> int:
    """Give how many messages were judged so far."""
    return handled_of(node.board.total())


def handled_of(counts: Counts) -> int:
    """Sum over the verdicts."""
    return counts.dropped + counts.passed + counts.would_drop


def in_front(node: NodeUnderTest, source: str) -> int:
    """Give what the table holds for a source."""
    (value,) = re.findall(r"value: (\d+)", node.kamailio.rpc("htable.get", TABLE, source))
    return int(value)


def ban(node: NodeUnderTest, source: str, by: str) -> None:
    """Ban a source by the operator's hand or the detector's, and wait until the workers know."""
    now = time.time()
    with Store(node.folder / "state" / "store.db") as store:
        network = parse_network(source)
        store.ban([network], source=by, reason="a test", expires=now + 3600, now=now)
        position = store.position()
    wait_for(lambda: node.board.position >= position, "the ban in force")


@pytest.mark.parametrize("native", [False, True])
def test_flood_is_dropped_without_python_and_counted(
    make_node: Callable[..., NodeUnderTest], tmp_path: Path, *, native: bool
) -> None:
    """From KEMI and native configurations: the workers see a few packets, the front the rest."""
    options = {}
    if native:
        options = {"configuration": configuration(tmp_path, before="#!define APIBAN_WITH_FRONT")}
    node = make_node((LISTED,), **options).start()
    counts = flood(node, LISTED, 1000)
    assert (counts.dropped, counts.passed, counts.faults) == (1000, 0, 0)
    assert node.board.front().dropped > 900
    assert in_front(node, LISTED) >> COUNT_BITS == DROP
    assert node.passes(GOOD)
    with Sender(LISTED, node.target) as sender:
        assert sender.ask(timeout=0.3) == b""


@pytest.mark.parametrize("native", [False, True])
def test_drops_are_counted_for_each_source_and_origin(
    make_node: Callable[..., NodeUnderTest], tmp_path: Path, *, native: bool
) -> None:
    """The front's numbers are what was sent, by source and by who banned it, and so is the sum."""
    options = {}
    if native:
        options = {"configuration": configuration(tmp_path, before="#!define APIBAN_WITH_FRONT")}
    node = make_node((LISTED,), **options).start()
    ban(node, OTHER, LOCAL)
    ban(node, "127.0.1.7", DETECTOR)
    sent = {LISTED: 1000, OTHER: 700, "127.0.1.7": 400}
    before = node.board.total()
    began = int(time.time())
    for source, packets in sent.items():
        flood(node, source, packets)
    counts = node.board.total() - before
    assert (counts.dropped, counts.passed, counts.faults) == (2100, 0, 0)
    assert (counts.dropped_feed, counts.dropped_local, counts.dropped_detector) == (1000, 700, 400)
    front = node.board.front()
    assert front.dropped_feed > 900
    assert front.dropped_local > 600
    assert front.dropped_detector > 300
    hits = Hits.open(node.folder / "runtime" / "hits")
    wait_for(lambda: sum(hit.dropped for hit in hits.all()) == 2100, "the sources' counts")
    assert {hit.source: hit.dropped for hit in hits.all()} == sent
    local = hits.of(OTHER)
    assert local is not None
    assert (local.origin, local.transport, local.would_drop) == (Origin.LOCAL, "udp", 0)
    assert local.line.startswith("OPTIONS sip:")
    assert began <= local.first_seen <= local.last_seen <= time.time()
    assert all(hit.exact for hit in hits.all())


def test_counts_of_a_source_outlive_the_emptying(
    make_node: Callable[..., NodeUnderTest],
) -> None:
    """A new list empties the table under a flood; no packet is lost to the total.

    Of the workers that meet the source anew in the same moment, one may lose its few to the others.
    """
    node = make_node((LISTED,)).start()
    hits = Hits.open(node.folder / "runtime" / "hits")
    for number in range(5):
        flood(node, LISTED, 300)
        ban(node, f"127.0.3.{number}", LOCAL)
    node.kamailio.rpc("app_python.reload")
    flood(node, LISTED, 300)

    def counted() -> int:
        hit = hits.of(LISTED)
        return 0 if hit is None else hit.dropped

    wait_for(lambda: node.board.total().dropped == 1800, "every drop")
    wait_for(lambda: 1780 <= counted() <= 1800, "the source's count")


def test_ban_of_another_origin_is_counted_as_that(
    make_node: Callable[..., NodeUnderTest],
) -> None:
    """A source in front that the operator bans for longer than the feed does changes its origin."""
    node = make_node((LISTED,)).start()
    flood(node, LISTED, 100)
    now = time.time()
    with Store(node.folder / "state" / "store.db") as store:
        store.ban([parse_network(LISTED)], source=LOCAL, reason="", expires=now + 1e8, now=now)
        position = store.position()
    wait_for(lambda: node.board.position >= position, "the ban in force")
    # Until the next tick of rtimer the entry of before answers.
    wait_for(lambda: flood(node, LISTED, 20).dropped_local == 20, "drops by the operator's ban")
    hits = Hits.open(node.folder / "runtime" / "hits")
    wait_for(lambda: hits.of(LISTED).origin is Origin.LOCAL, "the new origin")


def test_good_source_passes_without_python(node: NodeUnderTest) -> None:
    """Its packets are served and counted."""
    before = node.board.total()
    for _ in range(20):
        assert node.passes(GOOD)
    # The upstream's replies pass too, two of them at the most by Python in each worker.
    wait_for(lambda: (node.board.total() - before).passed == 40, "all counts")
    assert node.board.front().passed > 20


def test_delisted_under_its_flood(make_node: Callable[..., NodeUnderTest]) -> None:
    """An allowed source is answered within a second of the publication, though it never pauses."""
    node = make_node((LISTED, OTHER)).start()
    flood(node, LISTED, 100)
    published = len(node.events("published"))
    node.write_settings(allow__networks=[LISTED])
    with Sender(LISTED, node.target) as sender:
        give_up = time.monotonic() + 10
        while len(node.events("published")) == published:
            sender.send()
            assert time.monotonic() < give_up
        assert wait_for(lambda: sender.ask(timeout=0.05), "an answer") < 1
    assert node.is_dropped(OTHER)


def test_listed_while_it_is_in_front(make_node: Callable[..., NodeUnderTest]) -> None:
    """A source that native code passes is dropped within a second of the publication."""
    node = make_node((OTHER,)).start()
    for _ in range(5):
        assert node.passes(GOOD)
    published = len(node.events("published"))
    node.api.feed.add(GOOD)
    with Sender(GOOD, node.target) as sender:
        give_up = time.monotonic() + 10
        while len(node.events("published")) == published:
            sender.ask(timeout=0.2)
            assert time.monotonic() < give_up
        assert wait_for(lambda: not sender.ask(timeout=0.2), "silence") < 1


def test_modes_apply_to_what_is_in_front(node: NodeUnderTest) -> None:
    """Shadow lets a flooding source through and counts it; enforce drops it again."""
    flood(node, LISTED, 100)
    node.write_settings(mode="shadow")
    wait_for(lambda: node.passes(LISTED, timeout=1), "an answer in mode shadow", 4)
    # From now on nothing is in front: every packet counts as one that would have been dropped.
    before = node.board.total()
    for _ in range(20):
        assert node.passes(LISTED)
    # Native drops of before the change are counted a tick later, so only these are compared.
    assert (node.board.total() - before).would_drop == 20
    node.write_settings(mode="enforce")
    wait_for(lambda: node.is_dropped(LISTED), "silence in mode enforce", 4)


def test_reload_and_restart(node: NodeUnderTest) -> None:
    """After a reload the counts go on; after a restart the front is empty, and fills again."""
    flood(node, LISTED, 200)
    front = node.board.front().dropped
    node.kamailio.rpc("app_python.reload")
    flood(node, LISTED, 200)
    assert node.board.front().dropped > front + 150
    node.restart()
    assert node.board.total().dropped == 0
    assert flood(node, LISTED, 200).dropped == 200
    assert node.board.front().dropped > 150


def test_counts_survive_a_reset_of_statistics(node: NodeUnderTest) -> None:
    """What an operator resets in Kamailio is not ours."""
    flood(node, LISTED, 200)
    node.kamailio.rpc("stats.reset_statistics", "all")
    assert flood(node, LISTED, 200).dropped == 200


def test_forged_sources_of_one_slot_are_few(make_node: Callable[..., NodeUnderTest]) -> None:
    """However many unlisted sources come again and again, the table takes a thousand of them."""
    node = make_node((LISTED,)).start()
    data = b"\x00" * 40  # junk, so that nothing is answered or relayed
    with contextlib.ExitStack() as stack:
        senders = [
            stack.enter_context(Sender(f"127.0.{high}.{low}", node.target))
            for high in range(20, 28)
            for low in range(1, 251)
        ]
        before = handled(node)
        for number, sender in enumerate(senders * 5):
            sender.send(data)
            if number % 100 == 99:
                wait_for(lambda n=number: handled(node) - before > n - 100, "the workers")
    sizes = re.findall(r"all: (\d+)", node.kamailio.rpc("htable.stats"))
    # A worker that reads the count while another one writes it may add one more.
    assert 0 < int(sizes[0]) < 1100
    assert node.is_dropped(LISTED)
    assert node.passes(GOOD)
