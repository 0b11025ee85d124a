"""The table of hits: who has a place, what is read of it, and who writes at the same time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from apiban.address import pack
from apiban.errors import BoardError
from apiban.gate.hits import DROPPED, IN_FRONT, WOULD_DROP, Details, Hits
from apiban.gate.tally import Tally
from apiban.snapshot import Origin
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = 1_800_000_000.0

# Later Pythons warn of a fork when any thread is alive: the children here do next to nothing.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def hits() -> Hits:
    """Give a table of this test's own."""
    return Hits.unnamed(now=NOW)


def count(
    hits: Hits,
    source: str,
    number: int = 1,
    *,
    word: int = DROPPED,
    origin: Origin | None = Origin.FEED,
    details: Details | None = None,
    now: float = NOW,
) -> bool:
    """Count for a source as a process does that has not met it yet."""
    given_details = details or Details("udp", 5060, f"OPTIONS sip:{source} SIP/2.0")
    place = hits.place(pack(source), origin, lambda: given_details, now=now)
    return place is not None and hits.add(place, word, number, now=now)


def address(number: int) -> str:
    """Give one of many addresses."""
    return f"198.{18 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def test_new_table_is_empty(hits: Hits) -> None:
    """Nobody was met."""
    assert hits.all() == []
    assert hits.of("192.0.2.1") is None
    assert hits.started == NOW


@pytest.mark.parametrize("source", ["192.0.2.1", "2001:db8::1", "0.0.0.0", "::1"])
def test_source_is_told_as_it_was_met(hits: Hits, source: str) -> None:
    """Of both families, with the counts of both kinds in one sum."""
    details = Details("tls", 65535, "REGISTER sip:x SIP/2.0")
    count(hits, source, 2, origin=Origin.DETECTOR, details=details)
    count(hits, source, 3, origin=Origin.DETECTOR, word=IN_FRONT, now=NOW + 9)
    count(hits, source, 4, origin=Origin.DETECTOR, word=WOULD_DROP, now=NOW + 9)
    (hit,) = hits.all()
    assert hit == hits.of(source)
    assert (hit.source, hit.origin, hit.dropped, hit.would_drop) == (source, Origin.DETECTOR, 5, 4)
    assert (hit.first_seen, hit.last_seen) == (NOW, NOW + 9)
    assert (hit.transport, hit.port, hit.line) == ("tls", 65535, "REGISTER sip:x SIP/2.0")
    assert hit.exact


def test_any_spelling_finds_it(hits: Hits) -> None:
    """And what is no address finds nothing."""
    count(hits, "::ffff:192.0.2.1")
    assert hits.of("192.0.2.1") == hits.of("::FFFF:c000:201") is not None
    assert hits.of("not an address") is None


def test_first_message_stays_the_first(hits: Hits) -> None:
    """Another process that meets the source later adds to it; the origin is the latest."""
    count(hits, "192.0.2.1", details=Details("udp", 1, "first"))
    count(hits, "192.0.2.1", details=Details("tcp", 2, "second"), origin=Origin.LOCAL, now=NOW + 5)
    hit = hits.of("192.0.2.1")
    assert hit is not None
    assert (hit.transport, hit.port, hit.line, hit.dropped) == ("udp", 1, "first", 2)
    assert (hit.first_seen, hit.last_seen, hit.origin) == (NOW, NOW + 5, Origin.LOCAL)


def test_origin_that_is_not_known_changes_none(hits: Hits) -> None:
    """A cached source is counted without it."""
    count(hits, "192.0.2.1", origin=Origin.LOCAL)
    count(hits, "192.0.2.1", origin=None)
    hit = hits.of("192.0.2.1")
    assert hit is not None
    assert hit.origin is Origin.LOCAL


@given(st.text(max_size=400))
def test_line_is_printable_and_bounded(line: str) -> None:
    """Whatever a message begins with, a terminal cannot be told anything by it."""
    hits = Hits.unnamed(now=NOW)
    count(hits, "192.0.2.1", details=Details("udp", 5060, line))
    hit = hits.of("192.0.2.1")
    assert hit is not None
    assert hit.line.isascii()
    assert hit.line.isprintable()
    if len(line) <= 100 and line.isascii() and line.isprintable() and "\\" not in line:
        assert hit.line == line


def test_sources_have_places_of_their_own(hits: Hits) -> None:
    """Nearly as many as there are places, all with their own counts."""
    met = [number for number in range(3000) if count(hits, address(number), number + 1)]
    assert len(met) > 2900
    told = {hit.source: hit.dropped for hit in hits.all()}
    assert told == {address(number): number + 1 for number in met}


def test_active_sources_keep_their_places(hits: Hits) -> None:
    """However many more come, none of those that were seen just now is forgotten for them."""
    first = {address(n) for n in range(2000) if count(hits, address(n))}
    for number in range(2000, 12_000):
        count(hits, address(number), now=NOW + 4)
    assert first <= {hit.source for hit in hits.all()}


def test_source_that_was_seen_longest_ago_goes_first(hits: Hits) -> None:
    """The newest are always told; what was counted for somebody else is not theirs."""
    for number in range(12_000):
        count(hits, address(number), 1000, now=NOW + number)
    told = {hit.source: hit for hit in hits.all()}
    assert len(told) <= 4096
    assert all(address(number) in told for number in range(11_900, 12_000))
    assert {hit.dropped for hit in told.values()} == {1000}
    assert all(hit.first_seen == hit.last_seen for hit in told.values())


def test_who_lost_its_place_counts_for_nobody(hits: Hits) -> None:
    """A process that still knows the place of before finds out."""
    place = hits.place(pack(address(0)), Origin.FEED, Details, now=NOW)
    assert place is not None
    for number in range(1, 40_000):
        count(hits, address(number), now=NOW + number)
    before = {hit.source: hit.dropped for hit in hits.all()}
    assert address(0) not in before
    assert not hits.add(place, DROPPED, 500, now=NOW)
    assert {hit.source: hit.dropped for hit in hits.all()} == before


def test_count_that_comes_late_is_not_the_next_sources(hits: Hits) -> None:
    """A worker that was about to write when the place changed hands leaves a tag behind."""
    old = hits.place(pack("192.0.2.1"), Origin.FEED, Details, now=NOW)
    assert old is not None
    hits.add(old, DROPPED, 7, now=NOW)
    late = hits.words[old[0] + DROPPED]
    new = hits.place(pack("192.0.2.2"), Origin.FEED, Details, now=NOW)
    assert new is not None
    hits.words[new[0] + DROPPED] = late
    hit = hits.of("192.0.2.2")
    assert hit is not None
    assert hit.dropped == 0
    hits.add(new, DROPPED, 1, now=NOW)
    assert hits.of("192.0.2.2").dropped == 1  # type: ignore[union-attr]


def test_new_source_begins_at_nothing(hits: Hits) -> None:
    """Even where the place has a count of one that had the same tag."""
    place = hits.place(pack("192.0.2.1"), Origin.FEED, Details, now=NOW)
    assert place is not None
    hits.add(place, DROPPED, 7, now=NOW)
    hits.words[place[0]] = 0  # it lost the place
    count(hits, "192.0.2.1")
    hit = hits.of("192.0.2.1")
    assert hit is not None
    assert hit.dropped == 1


@settings(max_examples=300)
@given(st.integers(64, 255), st.integers(0, 255))
def test_damaged_description_is_not_shown(at: int, byte: int) -> None:
    """A place that is just being written is told of wholly or not at all."""
    hits = Hits.unnamed(now=NOW)
    count(hits, "192.0.2.1")
    place = hits.place(pack("192.0.2.1"), None, Details, now=NOW)
    assert place is not None
    view = memoryview(hits._mapped)
    whole = view[place[0] * 8 + at] == byte
    view[place[0] * 8 + at] = byte
    assert bool(hits.all()) is whole


def _child(hits: Hits, seconds: float, seed: int) -> int:
    """Meet sources without end in a process of its own, as workers under a flood do."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        end = time.monotonic() + seconds
        number = seed
        while time.monotonic() < end:
            number = number * 1_103_515_245 + 12_345 & 0x7FFF_FFFF
            source = f"203.0.113.{number >> 16 & 255}"
            # In time that flies each source may take the place of any other one.
            count(hits, source, now=NOW + number)
        status = 0
    finally:
        os._exit(status)


def test_reader_never_sees_half_of_another_source(hits: Hits) -> None:
    """Processes that take each other's places: each line that is read is its source's own."""
    children = [_child(hits, 1.0, seed) for seed in (1, 2, 3)]
    seen = 0
    running = set(children)
    while running:
        for hit in hits.all():
            seen += 1
            assert hit.line == f"OPTIONS sip:{hit.source} SIP/2.0"
            assert hit.source.startswith("203.0.113.")
        for child in tuple(running):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                running.discard(child)
                assert status == 0
    assert seen > 100


# The file --------------------------------------------------------------------------------------


def test_file_is_made_and_opened_for_reading(tmp_path: Path) -> None:
    """Not for others than the group, whole on the disk; who opens it cannot write."""
    path = tmp_path / "hits"
    made = Hits.create(path, now=NOW)
    opened = Hits.open(path)
    count(made, "192.0.2.1")
    assert opened.of("192.0.2.1") is not None
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_blocks * 512 >= path.stat().st_size > 1 << 20
    with pytest.raises(TypeError):
        count(opened, "192.0.2.2")
    assert Hits(os.dup(made.handle)).of("192.0.2.1") is not None


def test_new_file_is_empty(tmp_path: Path) -> None:
    """A start of Kamailio begins anew; who has the old one open keeps it."""
    old = Hits.create(tmp_path / "hits", now=NOW)
    count(old, "192.0.2.1")
    assert Hits.create(tmp_path / "hits", now=NOW).all() == []
    assert Hits.open(tmp_path / "hits").all() == []
    assert len(old.all()) == 1


@pytest.mark.parametrize("content", [None, b"", b"x" * 100, bytes(1 << 21)])
def test_what_is_no_such_table_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """In one line, and without a traceback."""
    path = tmp_path / "hits"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BoardError) as caught:
        Hits.open(path)
    assert "\n" not in str(caught.value)


# The tally -------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 200), min_size=1, max_size=40))
def test_samples_add_up_to_what_was_dropped(steps: list[int]) -> None:
    """Whenever a worker is asked, what it counted is all that there was until then."""
    hits = Hits.unnamed(now=NOW)
    tally = Tally(hits, now=lambda: NOW)
    tally.begin(1, 1000, would_drop=False)
    total, exact = 1000, 0
    for number, step in enumerate(steps):
        if step % 5 == 0:
            total += 1
            exact += 1
            tally.met("192.0.2.9", Origin.FEED, Details, would_drop=False, counted=True)
        total += step
        due = tally.sample(f"192.0.2.{number % 3}", total)
        assert total < due <= total + 128
    counts = {hit.source: hit.dropped for hit in hits.all()}
    assert counts.get("192.0.2.9", 0) == exact
    assert sum(counts.values()) == total - 1000


def test_what_was_not_sampled_yet_outlives_a_change_of_the_list() -> None:
    """The same counter goes on; another one begins where it stands."""
    hits = Hits.unnamed(now=NOW)
    tally = Tally(hits, now=lambda: NOW)
    tally.begin(1, 1000, would_drop=False)
    tally.begin(1, 1030, would_drop=False)
    tally.sample("192.0.2.1", 1031)
    tally.begin(2, 500, would_drop=True)
    tally.sample("192.0.2.1", 501)
    (hit,) = hits.all()
    assert (hit.dropped, hit.would_drop) == (31, 1)


def test_first_of_a_minute_is_told() -> None:
    """So that who says first drops asks once a minute, not for each packet."""
    hits, clock = Hits.unnamed(now=NOW), [NOW]
    tally = Tally(hits, now=lambda: clock[0])

    def met(source: str = "192.0.2.1") -> bool:
        return tally.met(source, Origin.LOCAL, Details, would_drop=False, counted=False)

    assert [met(), met(), met("192.0.2.2"), met()] == [True, False, True, False]
    clock[0] += 60
    assert [met(), met()] == [True, False]


def test_source_without_a_place_is_met_for_the_first_time_always(hits: Hits) -> None:
    """When all places are in use it is not counted, and nothing else happens."""
    tally = Tally(hits, now=lambda: NOW)
    for number in range(20_000):
        tally.met(address(number), Origin.FEED, Details, would_drop=False, counted=False)
    told = {hit.source for hit in hits.all()}
    missing = next(address(n) for n in range(20_000) if address(n) not in told)
    assert tally.met(missing, Origin.FEED, Details, would_drop=False, counted=False)
    assert tally.sample(missing, 100) > 100
    assert hits.of(missing) is None
