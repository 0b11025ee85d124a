import itertools
import random
import threading
import time
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.contract.feed.conftest import LISTED, Make
from tests.support.feedservice import (
    END,
    NOT_LISTED,
    FeedService,
    host,
    hosts,
    sighting,
)
from tests.support.node import wait_for

QUEUES = (f"{number:032x}" for number in itertools.count(1))


def id_of(service: FeedService, key: str, address: str) -> int:
    """Give the ID that a listed address has."""
    answer = service.check(2, key, address)
    assert answer.status == 200, answer
    return int(answer.document["ID"])


def test_any_id_gives_exactly_what_comes_after_it(shared: FeedService, version: int) -> None:
    """IDs of the middle of a page, between two, before the first, after the last."""
    key = shared.keys["reader"]
    ids = [id_of(shared, key, address) for address in LISTED]
    assert ids == sorted(set(ids))
    dice = random.Random(17)
    near = dice.sample(ids, 20)
    cursors = [*near, *(one - 1 for one in near), *(one + 1 for one in near)]
    cursors += [0, ids[0] - 1, ids[0], ids[-1] - 1, ids[-1], ids[-1] + 1]
    cursors += [dice.randrange(ids[0], ids[-1]) for _ in range(10)]
    for cursor in cursors:
        after = bisect_right(ids, cursor)
        answer = shared.banned(version, key, str(cursor))
        if after == len(ids):
            assert answer.shown == END
        else:
            page = LISTED[after : after + 250]
            assert answer.document["ipaddress"] == page
            assert int(answer.document["ID"]) == ids[after + len(page) - 1]


def test_whole_walk_from_any_id(shared: FeedService) -> None:
    """What a client that begins anywhere gets is the end of the whole list, without a gap."""
    key = shared.keys["reader"]
    dice = random.Random(5)
    for address in dice.sample(LISTED, 5):
        rest = LISTED[LISTED.index(address) + 1 :]
        assert shared.listed(key, str(id_of(shared, key, address))) == rest


def test_hidden_entries_make_no_gap(make: Make, database: str) -> None:
    """A key without IPv6 pages past a thousand of them, and to the end."""
    service = make(database)
    key = service.keys["reader"]
    wide = service.keys["every"]
    mixed = [
        *hosts(3),
        *(f"2a0e:1bc0::{number:x}" for number in range(1, 1001)),
        *hosts(300, 3),
        *(f"2a0e:1bc0::1:{number:x}" for number in range(300)),
    ]
    service.cli("import", "-", stdin="\n".join(mixed))
    service.start()
    assert service.listed(key) == hosts(303)
    assert service.listed(wide) == mixed


class Pager(threading.Thread):
    """A client that asks on and on; it knows each address, and the page's ID that brought it."""

    def __init__(self, service: FeedService, key: str, version: int) -> None:
        super().__init__()
        self._service, self._key, self._version = service, key, version
        self.seen: list[str] = []
        self.cursor = "100"
        self.enough = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        """Page until it is told that no more will come, and then to the end."""
        try:
            while True:
                last = self.enough.is_set()
                for cursor, page in self._service.pages(self._key, self.cursor, self._version):
                    self.cursor = str(cursor)
                    self.seen += page
                if last:
                    return
        except BaseException as error:  # noqa: BLE001 - the test raises it again
            self.error = error


def test_pagers_miss_nothing_while_reports_arrive(make: Make, database: str) -> None:
    """Five queues report batches of all sizes at once; three clients follow from the start."""
    service = make(database)
    key = service.keys["reader"]
    pots = [service.keys[name] for name in ("pot", "pot2", "pot", "pot2", "pot")]
    service.start()
    pagers = [Pager(service, key, version) for version in (1, 2, 1)]
    for pager in pagers:
        pager.start()

    def report(number: int) -> list[str]:
        dice = random.Random(number)
        told: list[str] = []
        queue = next(QUEUES)
        while len(told) < 600:
            count = dice.choice([1, 2, 5, 200])
            fresh = hosts(count, number * 10_000 + len(told))
            again = dice.sample(told, min(len(told), 3))
            batch = [
                sighting(one, len(told) * 10 + place) for place, one in enumerate(fresh + again, 1)
            ]
            receipt = service.report(pots[number], batch, queue).document
            assert receipt == {"accepted": len(batch), "repeated": 0, "refused": []}
            told += fresh
        return told

    try:
        with ThreadPoolExecutor(5) as pool:
            told = [one for each in pool.map(report, range(5)) for one in each]
        wait_for(lambda: set(told) <= set(service.listed(key)), "all of them listed", 20)
    finally:
        for pager in pagers:
            pager.enough.set()
    whole = service.listed(key)
    assert sorted(whole) == sorted(told)
    for pager in pagers:
        pager.join()
        assert pager.error is None, pager.error
        assert len(pager.seen) == len(set(pager.seen))
        assert set(told) - set(pager.seen) == set()


def test_walk_during_constant_reactivation_ends(make: Make, database: str) -> None:
    """Addresses that come again and again at the end do not keep a client walking for ever."""
    service = make(database, curation__active_for=60, curation__relist_after=1)
    key, pot = service.keys["reader"], service.keys["pot"]
    service.start()
    stop = threading.Event()
    numbers = itertools.count(1)

    def report() -> None:
        queue = next(QUEUES)
        while not stop.is_set():
            service.report(pot, [sighting(host(n), next(numbers)) for n in range(300)], queue)

    thread = threading.Thread(target=report)
    thread.start()
    try:
        wait_for(lambda: len(service.listed(key)) >= 300, "the list", 10)
        for _ in range(3):
            pairs = [
                (address, cursor)
                for cursor, page in itertools.islice(service.pages(key), 200)
                for address in page
            ]
            assert len(pairs) == len(set(pairs))
            assert {address for address, _ in pairs} == set(hosts(300))
    finally:
        stop.set()
        thread.join()


def test_reactivated_address_comes_again(make: Make, database: str, version: int) -> None:
    """Under a new, greater ID; the old ID still tells what came after it, also after restarts."""
    service = make(database, curation__active_for=60, curation__relist_after=2)
    key, pot = service.keys["reader"], service.keys["pot"]
    service.start()
    queue = next(QUEUES)
    service.report(pot, [sighting(host(1), 1, at=time.time() - 55)], queue)
    wait_for(lambda: service.check(1, key, host(1)).status == 200, "a listing", 2)
    ((first, _),) = service.pages(key, version=version)
    wait_for(lambda: service.banned(version, key).shown == END, "an end of it", 8)
    assert service.check(version, key, host(1)).shown == NOT_LISTED
    assert service.ask("GET", f"/ipset/{key}/list").body == b""
    service.kill()
    service.start()
    service.report(pot, [sighting(host(2), 2), sighting(host(1), 3)], queue)
    wait_for(lambda: service.check(1, key, host(1)).status == 200, "a listing", 5)
    seen = list(service.pages(key, str(first), version))
    assert [one for _, page in seen for one in page] == [host(2), host(1)]
    assert seen[0][0] > first


def test_relist_while_active(make: Make, database: str) -> None:
    """A new ID once the old one is old enough, not before, and never two at once."""
    service = make(database, curation__active_for=60, curation__relist_after=4)
    key, pot = service.keys["reader"], service.keys["pot"]
    service.start()
    numbers, queue = itertools.count(1), next(QUEUES)

    def see() -> None:
        service.report(pot, [sighting(host(1), next(numbers))], queue)

    began = time.monotonic()
    see()
    wait_for(lambda: service.listed(key) == [host(1)], "a listing", 5)
    first = id_of(service, key, host(1))
    see()
    assert id_of(service, key, host(1)) == first
    assert time.monotonic() - began < 4, "the machine is too slow for this test"
    wait_for(lambda: see() or id_of(service, key, host(1)) > first, "a new ID", 15)  # type: ignore[func-returns-value]
    assert service.listed(key) == [host(1)]
    assert service.listed(key, str(first)) == [host(1)]


@pytest.mark.parametrize("restart", ["none", "stop", "kill"])
def test_ids_are_never_used_again(make: Make, database: str, restart: str) -> None:
    """The newest address is taken off, the service starts again: the next one has a greater ID."""
    service = make(database)
    key = service.keys["reader"]
    service.cli("list", *hosts(5))
    service.start()
    last = id_of(service, key, host(4))
    service.cli("delist", host(4), host(3))
    wait_for(lambda: service.listed(key) == hosts(3), "the delisting", 5)
    if restart != "none":
        service.kill() if restart == "kill" else service.stop()
        service.start()
    service.cli("list", host(9))
    wait_for(lambda: host(9) in service.listed(key), "the new one", 5)
    assert id_of(service, key, host(9)) > last
    assert service.listed(key, str(last)) == [host(9)]
    service.cli("list", host(4))
    wait_for(lambda: service.listed(key, str(last)) == [host(9), host(4)], "the old one again", 5)


def test_delisted_stays_off(make: Make, database: str) -> None:
    """Neither a honeypot nor a file lists it for the time; ``list`` by hand lifts it."""
    service = make(database)
    key, pot = service.keys["reader"], service.keys["pot"]
    service.cli("list", host(1), host(2), "--reason", "by hand")
    service.cli("delist", host(1), "--for", "1h", "--reason", "a customer")
    service.cli("delist", host(2), "--for", "3s")
    delisted = time.monotonic()
    service.start()
    service.cli("import", "-", stdin=f"{host(1)}\n{host(5)}\n")
    batch = [sighting(host(1), 1), sighting(host(3), 2)]
    receipt = service.report(pot, batch, next(QUEUES)).document
    assert receipt["accepted"] == 1
    assert [one["sequence"] for one in receipt["refused"]] == [1]
    wait_for(lambda: {host(3), host(5)} <= set(service.listed(key)), "the others", 5)
    assert service.check(1, key, host(1)).shown == NOT_LISTED
    wait_for(lambda: time.monotonic() - delisted > 3.2, "the time over", 5)
    service.report(pot, [sighting(host(2), 3)], next(QUEUES))
    wait_for(lambda: service.check(1, key, host(2)).status == 200, "listed after its time", 5)
    service.cli("list", host(1))
    wait_for(lambda: service.check(1, key, host(1)).status == 200, "listed by hand", 5)
