import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from apiban.address import parse_network
from apiban.errors import StoreError
from apiban.feed.answer import EndOfList, Page
from apiban.feed.server.claims import HONEYPOT, Wanted
from apiban.feed.server.database.schema import claim as claim_table
from apiban.feed.server.database.schema import listing
from apiban.feed.server.listings import View
from apiban.feed.server.mirror import NOTE, Mirror
from apiban.feed.server.notes import read_note
from apiban.feed.server.service import Service
from sqlalchemy import delete

from tests.support.clock import ManualClock
from tests.support.exchange import ManualExchange
from tests.support.feeds import ListFeed
from tests.unit.feed.server.conftest import MakeService

ALL = View("all", blocks=True, ipv6=True)


@pytest.fixture
def service(make_service: MakeService, tmp_path: Path) -> Service:
    """Give a feed that has an upstream."""
    return make_service(
        mirror__url="https://upstream.example/api/",
        mirror__key="the-upstream-s-key",
        mirror__state=tmp_path / "mirror",
        mirror__requests=1000,
    )


class Upstream:
    """A mirror under test, its upstream, and the clock of both."""

    def __init__(self, service: Service, clock: ManualClock) -> None:
        self.feed = ListFeed(size=3)
        self.clock = clock
        self.service = service
        self.start()

    def start(self) -> None:
        """Start a mirror, as after a restart of the process."""
        self.mirror = Mirror(
            self.service,
            clock=self.clock,
            make_feed=lambda _: self.feed,
            exchange=ManualExchange(),
            jitter=lambda: 0.5,
        )

    def run(self, seconds: float) -> None:
        """Let time pass, with a tick a second."""
        for _ in range(int(seconds)):
            self.clock.tick(1)
            self.mirror.tick()

    def listed(self) -> set[str]:
        """Give what our clients see."""
        return set(self.service.listings.whole(ALL))


@pytest.fixture
def upstream(service: Service, clock: ManualClock) -> Iterator[Upstream]:
    """Give an upstream with seven addresses, and a mirror that has not asked yet."""
    upstream = Upstream(service, clock)
    upstream.feed.add(*(f"198.51.100.{number}" for number in range(1, 8)))
    yield upstream
    upstream.mirror.close()


def claim(service: Service, address: str) -> None:
    """Let our own honeypots list an address."""
    now = service.now()
    with service.database.write() as connection:
        wanted = [Wanted(parse_network(address), now, now + 30 * 86400)]
        service.claims.make(connection, HONEYPOT, wanted)


def test_merged_with_our_own(upstream: Upstream, service: Service) -> None:
    """What either lists is listed, each once."""
    claim(service, "203.0.113.1")
    claim(service, "198.51.100.1")
    upstream.run(20)
    assert upstream.listed() == {*(f"198.51.100.{n}" for n in range(1, 8)), "203.0.113.1"}
    assert len(service.listings.after(0, ALL)) == 8


def test_new_ones_come_with_the_next_poll(upstream: Upstream) -> None:
    """And nothing else is asked for."""
    upstream.run(20)
    asked = len(upstream.feed.cursors)
    upstream.feed.add("203.0.113.9")
    upstream.run(130)
    assert "203.0.113.9" in upstream.listed()
    assert len(upstream.feed.cursors) <= asked + 3


def test_delisted_upstream(upstream: Upstream, service: Service) -> None:
    """Gone after the next full pass, unless our own honeypots saw it."""
    claim(service, "198.51.100.2")
    upstream.run(20)
    upstream.feed.remove("198.51.100.1", "198.51.100.2")
    upstream.clock.tick(86400)
    upstream.run(300)
    assert "198.51.100.1" not in upstream.listed()
    assert {"198.51.100.2", "198.51.100.3"} <= upstream.listed()


def test_upstream_that_is_down(upstream: Upstream, clock: ManualClock) -> None:
    """Its list stays as a node's would: for its time, and ``stale_max`` more."""
    from apiban.errors import FeedOutage

    upstream.run(20)
    upstream.feed.error = FeedOutage("down")
    clock.tick(13 * 86400)
    upstream.run(5)
    assert len(upstream.listed()) == 7
    clock.tick(2 * 86400)
    upstream.run(5)
    assert upstream.listed() == set()


def test_note_tells_of_it(upstream: Upstream, service: Service) -> None:
    """For the status page: how it is, how long the list, when it was complete."""
    from apiban.errors import FeedUnauthorized

    upstream.run(40)
    with service.database.read() as connection:
        note = read_note(connection, NOTE)
    assert (note["state"], note["entries"]) == ("ok", 7)
    assert note["complete_at"] is not None
    upstream.feed.error = FeedUnauthorized("no")
    upstream.run(200)
    with service.database.read() as connection:
        assert read_note(connection, NOTE)["state"] == "unauthorized"


def test_database_that_fails_in_between(
    upstream: Upstream, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that could not be carried over is, once the database is back."""
    upstream.run(1)
    with monkeypatch.context() as patch:

        def fail(*_: object, **__: object) -> None:
            raise StoreError("gone")

        patch.setattr(service.claims, "make", fail)
        for _ in range(5):
            upstream.clock.tick(1)
            with pytest.raises(StoreError):
                upstream.mirror.tick()
    upstream.run(20)
    assert len(upstream.listed()) == 7


def test_restart_finds_what_was_not_carried_over(upstream: Upstream, service: Service) -> None:
    """The mirror's own store knows it, whatever process put it there."""
    upstream.run(20)
    with service.database.write() as connection:
        for table in (claim_table, listing):  # as if the page had come just before the end
            connection.execute(delete(table).where(table.c.address == "198.51.100.3"))
        now = service.now()
        service.claims.make(
            connection, "mirror", [Wanted(parse_network("203.0.113.77"), now, now + 600)]
        )
    upstream.mirror.close()
    upstream.start()
    upstream.run(1)
    assert upstream.listed() == {f"198.51.100.{n}" for n in range(1, 8)}


def test_lost_folder_takes_nothing_away(
    upstream: Upstream, service: Service, tmp_path: Path
) -> None:
    """The mirror begins anew; what is listed stays, and what upstream dropped goes at the end."""
    upstream.run(20)
    upstream.mirror.close()
    shutil.rmtree(tmp_path / "mirror")
    upstream.feed.remove("198.51.100.1")
    upstream.start()
    upstream.run(1)
    assert len(upstream.listed()) == 7
    first = [one.number for one in service.listings.after(0, ALL)]
    upstream.run(30)
    assert upstream.listed() == {f"198.51.100.{n}" for n in range(2, 8)}
    assert [one.number for one in service.listings.after(0, ALL)] == first[1:]


def test_one_mirror_a_folder(upstream: Upstream, service: Service, clock: ManualClock) -> None:
    """Two would spend the budget twice: the second waits."""
    upstream.run(5)
    asked = len(upstream.feed.cursors)
    second = Mirror(
        service, clock=clock, make_feed=lambda _: upstream.feed, exchange=ManualExchange()
    )
    with closing(second):
        for _ in range(10):
            clock.tick(1)
            second.tick()
    assert len(upstream.feed.cursors) == asked


def test_pass_is_no_sighting(upstream: Upstream, service: Service) -> None:
    """What a full pass walks over keeps its ID, and ends in its time; a new ID renews it."""
    upstream.run(20)
    first = [one.number for one in service.listings.after(0, ALL)]
    for _ in range(8):
        upstream.clock.tick(86400)
        upstream.run(300)
    assert [one.number for one in service.listings.after(0, ALL)] == first
    upstream.feed.add("198.51.100.4")  # seen again upstream
    upstream.run(300)
    assert service.listings.after(first[-1], ALL)[0].address == "198.51.100.4"
    for _ in range(8):
        upstream.clock.tick(86400)
        upstream.run(300)
    assert upstream.listed() == {"198.51.100.4"}


def test_two_feeds_that_mirror_each_other_let_go(
    make_service: MakeService, tmp_path: Path, clock: ManualClock
) -> None:
    """One sighting at one of them lists an address at both, and not for ever."""
    services = [
        make_service(
            database__url=f"sqlite:////{(tmp_path / f'{name}.db').relative_to('/')}",
            mirror__url="https://other.example/api/",
            mirror__key="the-other-s-key",
            mirror__state=tmp_path / name,
            mirror__requests=1000,
        )
        for name in ("one", "two")
    ]
    both = [
        Mirror(
            service,
            clock=clock,
            make_feed=lambda _, other=other: ServiceFeed(other),
            exchange=ManualExchange(),
            jitter=lambda: 0.5,
        )
        for service, other in zip(services, reversed(services), strict=True)
    ]
    now = clock.now()
    with services[0].database.write() as connection:
        seen = [Wanted(parse_network("203.0.113.1"), now, now + 7 * 86400)]
        services[0].claims.make(connection, HONEYPOT, seen)
    days = {0: 0, 1: 0}
    for day in range(40):
        for _ in range(6):
            clock.tick(4 * 3600)
            for mirror in both * 4:
                clock.tick(1)
                mirror.tick()
        for at, service in enumerate(services):
            service.curator.round()
            if list(service.listings.whole(ALL)):
                days[at] = day + 1
    for mirror in both:
        mirror.close()
    assert 6 <= days[0] <= 30
    assert 6 <= days[1] <= 30


class ServiceFeed:
    """What one feed serves, as the other's client gets it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def banned(self, cursor: str = "100") -> Page | EndOfList:
        """Give a page."""
        found = self._service.listings.after(int(cursor), ALL)
        if not found:
            return EndOfList()
        return Page(tuple(parse_network(one.address) for one in found), str(found[-1].number))
