from dataclasses import replace
from typing import Any

import pytest
from apiban.address import parse_network
from apiban.feed.server.database.schema import unproven
from apiban.feed.server.listings import View
from apiban.feed.server.report import Report, Sighting, Unproven
from apiban.feed.server.service import Service
from sqlalchemy import select

from tests.support.clock import ManualClock
from tests.unit.feed.server.conftest import MakeService

QUEUE = "0" * 32
DAY = 86400.0


def sighting(service: Service, number: int, source: str = "198.51.100.1", **more: Any) -> Sighting:
    """Give a sighting of now."""
    plain = Sighting(
        sequence=number,
        at=service.now(),
        source=parse_network(source),
        transport="udp",
        method="REGISTER",
        proof="nonce",
    )
    return replace(plain, **more)


def active(service: Service) -> set[str]:
    """Give what is listed."""
    return set(service.listings.whole(View("all", blocks=True, ipv6=True)))


def seen(service: Service, address: str = "198.51.100.1") -> list[dict[str, Any]]:
    """Give the evidence of an address."""
    with service.database.read() as connection:
        return service.evidence.of(connection, address)


def test_sighting_is_listed_with_its_evidence(service: Service, clock: ManualClock) -> None:
    """Who saw it, when, and how it probed."""
    receipt = service.reports.take(
        "pot",
        Report(
            QUEUE,
            [
                sighting(service, 1, count=3, users=("100", "101"), tool="sipvicious"),
                sighting(service, 2, method="INVITE", dialled="0044", users=("101",)),
            ],
        ),
    )
    assert (receipt.accepted, receipt.repeated, receipt.refused) == (2, 0, [])
    assert active(service) == {"198.51.100.1"}
    by_method = {row["method"]: row for row in seen(service)}
    assert by_method["REGISTER"]["count"] == 3
    assert by_method["REGISTER"]["users"] == ["100", "101"]
    assert by_method["REGISTER"]["honeypot"] == "pot"
    assert by_method["REGISTER"]["last_seen"] == clock.now()
    assert by_method["INVITE"]["dialled"] == "0044"


def test_repeated_report_counts_once(service: Service) -> None:
    """Its answer got lost: the honeypot sends it again, with more behind it."""
    first = [sighting(service, 1), sighting(service, 2)]
    service.reports.take("pot", Report(QUEUE, first))
    again = service.reports.take("pot", Report(QUEUE, [*first, sighting(service, 3)]))
    assert (again.accepted, again.repeated) == (1, 2)
    assert seen(service)[0]["count"] == 3


def test_number_that_comes_twice_in_a_report_counts_once(service: Service) -> None:
    """A honeypot that is wrong about its numbers gains nothing by it."""
    receipt = service.reports.take(
        "pot", Report(QUEUE, [sighting(service, 1), sighting(service, 1)])
    )
    assert (receipt.accepted, receipt.repeated) == (1, 1)


def test_another_queue_begins_anew(service: Service) -> None:
    """A honeypot that lost its disk numbers from one again; so does another honeypot."""
    for name, queue in (("pot", QUEUE), ("pot", "1" * 32), ("other", QUEUE)):
        receipt = service.reports.take(name, Report(queue, [sighting(service, 1)]))
        assert receipt.accepted == 1


@pytest.mark.parametrize(
    ("source", "ago", "reason"),
    [
        ("10.1.2.3", 0, "private or reserved"),
        ("8.8.8.8", 0, "on the never-list"),
        ("198.51.100.1", 7 * DAY + 1, "older than 604800 s"),
        ("198.51.100.1", -301, "from the future: the honeypot's clock is wrong"),
    ],
)
def test_refused_alone(
    service: Service, clock: ManualClock, source: str, ago: float, reason: str
) -> None:
    """The others of the report are taken, and its number does not come back."""
    bad = sighting(service, 1, source, at=clock.now() - ago)
    receipt = service.reports.take("pot", Report(QUEUE, [bad, sighting(service, 2, "203.0.113.1")]))
    assert receipt.refused == [(1, reason)]
    assert receipt.accepted == 1
    assert active(service) == {"203.0.113.1"}
    assert seen(service, source) == []


def test_clock_that_is_a_little_ahead(service: Service, clock: ManualClock) -> None:
    """It counts as now: a listing does not last longer for it."""
    service.reports.take("pot", Report(QUEUE, [sighting(service, 1, at=clock.now() + 300)]))
    clock.tick(7 * DAY)
    assert active(service) == set()


def test_late_report_lists_for_what_is_left(service: Service, clock: ManualClock) -> None:
    """The days count from the sighting, not from its report."""
    service.reports.take("pot", Report(QUEUE, [sighting(service, 1, at=clock.now() - 6 * DAY)]))
    assert active(service) == {"198.51.100.1"}
    clock.tick(DAY)
    assert active(service) == set()


def test_thresholds(make_service: MakeService, clock: ManualClock) -> None:
    """Enough sightings, of enough honeypots, in time."""
    service = make_service(curation__sightings=4, curation__honeypots=2, curation__within=3600)
    take = service.reports.take
    take("one", Report(QUEUE, [sighting(service, 1, count=3)]))
    take("one", Report(QUEUE, [sighting(service, 2, count=9)]))
    assert active(service) == set()
    clock.tick(3700)
    take("two", Report(QUEUE, [sighting(service, 1, count=4)]))
    assert active(service) == set()  # the other honeypot's are too old
    take("one", Report(QUEUE, [sighting(service, 3)]))
    assert active(service) == {"198.51.100.1"}


def test_active_one_is_renewed_below_the_thresholds(
    make_service: MakeService, clock: ManualClock
) -> None:
    """Once listed, one sighting is enough to stay."""
    service = make_service(curation__sightings=2, curation__within=60)
    take = service.reports.take
    take("pot", Report(QUEUE, [sighting(service, 1, count=2)]))
    clock.tick(6 * DAY)
    take("pot", Report(QUEUE, [sighting(service, 2)]))
    clock.tick(6 * DAY)
    assert active(service) == {"198.51.100.1"}


def test_unproven_is_kept_apart(service: Service, clock: ManualClock) -> None:
    """Never listed, whatever its number, and bounded by the oldest that go."""
    for number in range(11):
        clock.tick(1)
        sources = [
            Unproven(parse_network(f"198.51.{number}.{at % 250}"), "OPTIONS", 0, clock.now(), 5)
            for at in range(250)
        ]
        service.reports.take("pot", Report(QUEUE, [], sources, unproven_not_kept=7))
    assert active(service) == set()


def test_evidence_lives_as_long_as_its_listing(service: Service, clock: ManualClock) -> None:
    """And goes with it, at the curator's round."""
    service.reports.take("pot", Report(QUEUE, [sighting(service, 1)]))
    clock.tick(6 * DAY)
    service.reports.take("pot", Report(QUEUE, [sighting(service, 2, method="INVITE")]))
    clock.tick(6 * DAY)
    service.curator.round()
    assert {row["method"] for row in seen(service)} == {"REGISTER", "INVITE"}
    clock.tick(DAY + 1)
    service.curator.round()
    assert seen(service) == []


def test_counts_of_an_unproven_source_add_up(service: Service, clock: ManualClock) -> None:
    """However many ways of probing a report has of it."""
    source, now = parse_network("203.0.113.9"), clock.now()
    found = [
        Unproven(source, "OPTIONS", now - 9, now - 5, 5),
        Unproven(source, "REGISTER", now - 3, now - 1, 7),
    ]
    service.reports.take("pot", Report(QUEUE, [], found))
    with service.database.read() as connection:
        rows = connection.execute(select(unproven)).mappings().all()
    assert [(row["count"], row["first_seen"], row["last_seen"]) for row in rows] == [
        (12, now - 9, now - 1)
    ]


def test_one_ipv6_network_does_not_fill_the_list(make_service: MakeService) -> None:
    """Sixteen of its hosts are listed, then the network; there is room for others."""
    service = make_service(curation__max_listed=100)
    for batch in range(4):
        first = batch * 500
        sightings = [
            sighting(service, first + n + 1, f"2001:db8:0:7::{first + n:x}", transport="tcp")
            for n in range(1, 500)
        ]
        receipt = service.reports.take("pot", Report(QUEUE, sightings))
        assert (receipt.accepted, receipt.refused) == (499, [])
    assert len(active(service)) == 17
    assert "2001:db8:0:7::/64" in active(service)
    assert len(seen(service, "2001:db8:0:7::/64")) == 1
    again = service.reports.take(
        "pot", Report("1" * 32, [sighting(service, 1, "2001:db8:0:7::1"), sighting(service, 2)])
    )
    assert again.accepted == 2
    assert "198.51.100.1" in active(service)


def test_full_list_keeps_no_evidence(make_service: MakeService) -> None:
    """What finds no room leaves nothing; what is listed goes on."""
    service = make_service(curation__max_listed=2)
    sources = [f"198.51.100.{n}" for n in range(1, 6)]
    receipt = service.reports.take(
        "pot", Report(QUEUE, [sighting(service, n, one) for n, one in enumerate(sources, 1)])
    )
    assert (receipt.accepted, len(receipt.refused)) == (2, 3)
    assert [len(seen(service, one)) for one in sources] == [1, 1, 0, 0, 0]


def test_old_sighting_beside_a_fresh_one(make_service: MakeService, clock: ManualClock) -> None:
    """The address is listed for the fresh one, and nothing is refused."""
    service = make_service(curation__active_for=3600)
    old = sighting(service, 1, at=clock.now() - 7200)
    receipt = service.reports.take("pot", Report(QUEUE, [old, sighting(service, 2)]))
    assert (receipt.accepted, receipt.refused) == (2, [])
    assert active(service) == {"198.51.100.1"}


def test_delisted_source_is_refused_and_says_so(service: Service, clock: ManualClock) -> None:
    """The honeypot learns why, and the report is settled."""
    with service.database.write() as connection:
        service.claims.delist(
            connection,
            [parse_network("198.51.100.1")],
            until=clock.now() + DAY,
            reason="a customer",
        )
    receipt = service.reports.take("pot", Report(QUEUE, [sighting(service, 1)]))
    assert receipt.refused == [(1, "delisted by the operator")]
    assert active(service) == set()
