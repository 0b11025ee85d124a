"""The guard behind the front: what it lets native code answer for."""

from __future__ import annotations

import pytest
from apiban.gate import Sweeper
from apiban.gate.board import FRONT, SWEPT
from apiban.gate.front import COUNT_BITS
from apiban.kemi import DROP, PASS
from apiban.settings import Mode
from apiban.snapshot import Origin

from tests.unit.kemi.parts import LISTED, UNLISTED, Worker, packet


def received(worker: Worker, source: str, times: int = 1) -> list[int]:
    """Let messages come by way of a route that has the front."""
    worker.ksr.variables = packet(source)
    if not worker.board.words[SWEPT]:
        Sweeper(
            worker.ksr,
            worker.board,
            worker.hits,
            now=worker.clock.now,
            uptime=worker.clock.uptime,
        ).tick()
    return [worker.guard.received(None, source) for _ in range(times)]


def put(worker: Worker) -> list[tuple[object, ...]]:
    """Give what the worker put in front: source and verdict."""
    return [args[1:] for args in worker.ksr.calls_of("htable.sht_seti")]


def test_second_packet_puts_the_verdict_in_front() -> None:
    """For a listed source and for another; each packet is counted once."""
    worker = Worker(LISTED)
    assert received(worker, LISTED) == [DROP]
    assert received(worker, UNLISTED) == [PASS]
    assert put(worker) == []
    assert received(worker, LISTED) == [DROP]
    assert received(worker, UNLISTED) == [PASS]
    assert put(worker) == [(LISTED, DROP << COUNT_BITS), (UNLISTED, PASS << COUNT_BITS)]
    assert worker.counts == (2, 0, 2, 0)
    assert worker.board.words[FRONT]


def test_first_drop_is_said_from_what_native_code_gives() -> None:
    """The line has all that it has without the front."""
    worker = Worker(LISTED)
    received(worker, LISTED)
    (said,) = worker.log.fields("first-drop")
    assert (said["source"], said["transport"], said["port"]) == (LISTED, "udp", 5062)


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.OFF])
def test_other_modes_put_nothing_in_front(mode: Mode) -> None:
    """They drop nothing, and shadow counts each packet."""
    worker = Worker(LISTED, mode=mode)
    assert received(worker, LISTED, 5) == received(worker, UNLISTED, 5) == [PASS] * 5
    assert put(worker) == []
    would_drop = 5 if mode is Mode.SHADOW else 0
    assert worker.counts == (0, would_drop, 10 - would_drop, 0)


def test_route_without_the_front_gives_no_source() -> None:
    """Then the guard asks for it, and puts nothing anywhere."""
    worker = Worker(LISTED)
    worker.ksr.variables = packet(LISTED)
    assert [worker.guard.received() for _ in range(3)] == [DROP] * 3
    assert put(worker) == []


@pytest.mark.parametrize("source", [LISTED, UNLISTED])
def test_fault_of_the_front_changes_no_verdict(source: str) -> None:
    """It is counted, and the packet is dropped or passed as it would have been."""
    worker = Worker(LISTED)

    def fails(*_: object) -> int:
        raise RuntimeError("no such table")

    worker.ksr.on("htable.sht_seti", fails)
    assert received(worker, source, 3) == [DROP if source == LISTED else PASS] * 3
    assert worker.counts[3] > 0


def test_new_list_is_in_force_with_the_next_message() -> None:
    """What reaches Python is judged by the list of now, whatever was put in front."""
    worker = Worker(LISTED)
    received(worker, LISTED, 2)
    received(worker, UNLISTED, 2)
    worker.publish(UNLISTED)
    assert received(worker, LISTED) == [PASS]
    assert received(worker, UNLISTED) == [DROP]


def test_list_that_changes_between_verdict_and_front() -> None:
    """The verdict is not put in: the rtimer process may have emptied the table before it."""
    worker = Worker(LISTED)
    received(worker, LISTED)

    def waits(*_: object) -> int:
        worker.publish()
        return 1

    worker.ksr.on("htable.sht_lock", waits)
    assert received(worker, LISTED) == [DROP]
    assert put(worker) == []
    assert received(worker, LISTED) == [PASS]


def test_worker_that_could_not_load_the_list_answers_for_itself_alone() -> None:
    """What it says by its old list stays out of the front."""
    worker = Worker(LISTED)
    received(worker, LISTED, 2)
    assert len(put(worker)) == 1
    worker.publish(UNLISTED, whole=False)
    assert received(worker, LISTED, 3) == [DROP] * 3
    assert received(worker, UNLISTED, 3) == [PASS] * 3
    assert len(put(worker)) == 1


@pytest.mark.parametrize("origin", list(Origin))
def test_ban_of_any_origin_goes_in_front_with_it(origin: Origin) -> None:
    """The second packet puts it there, each packet counts once for origin and source."""
    worker = Worker()
    worker.publish(LISTED, origin=origin)
    assert received(worker, LISTED, 2) == [DROP] * 2
    assert put(worker) == [(LISTED, DROP + origin << COUNT_BITS)]
    counts = worker.board.total()
    assert counts.dropped == 2
    by = (counts.dropped_feed, counts.dropped_local, counts.dropped_detector)
    assert by == tuple(2 if one is origin else 0 for one in Origin)
    hit = worker.hits.of(LISTED)
    assert hit is not None
    assert (hit.dropped, hit.origin, hit.exact) == (2, origin, True)


def test_worker_counts_for_sources_when_the_front_takes_no_more() -> None:
    """The sum is right but for what was not sampled yet, and it says that it is an estimate."""
    worker = Worker(LISTED)
    worker.ksr.on("htable.sht_seti", lambda *_: -1)
    received(worker, LISTED, 5000)
    hit = worker.hits.of(LISTED)
    assert hit is not None
    assert 5000 - 128 <= hit.dropped <= 5000
    assert not hit.exact
    assert worker.counts[0] == 5000
