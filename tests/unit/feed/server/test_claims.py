from pathlib import Path

import pytest
from apiban.address import parse_network
from apiban.errors import StoreError
from apiban.feed.server.claims import HONEYPOT, MANUAL, MIRROR, Outcome, Wanted
from apiban.feed.server.listings import View
from apiban.feed.server.service import Service

from tests.support.clock import ManualClock
from tests.unit.feed.server.conftest import MakeService

DAY = 86400.0
WEEK = 7 * DAY
ALL = View("all", blocks=True, ipv6=True)


def claim(
    service: Service, *addresses: str, source: str = HONEYPOT, lasts: float = WEEK, **options: bool
) -> Outcome:
    """Claim addresses as seen now."""
    now = service.now()
    wanted = [Wanted(parse_network(one), now, now + lasts) for one in addresses]
    with service.database.write() as connection:
        return service.claims.make(connection, source, wanted, **options)


def listed(service: Service, cursor: int = 100, view: View = ALL) -> list[str]:
    """Give what a client pages from an ID, which must grow."""
    found: list[str] = []
    while page := service.listings.after(cursor, view, size=3):
        numbers = [one.number for one in page]
        assert numbers == sorted(set(numbers))
        assert numbers[0] > cursor
        cursor = numbers[-1]
        found += [one.address for one in page]
    return found


def last(service: Service) -> int:
    """Give the last ID."""
    return service.listings.after(0, ALL, size=10_000)[-1].number


def expire(service: Service) -> int:
    """Do the curator's part."""
    with service.database.write() as connection:
        return service.claims.expire(connection, limit=1000)


def test_listed_in_order(service: Service) -> None:
    """Oldest first, each once."""
    claim(service, "198.51.100.9", "198.51.100.1")
    claim(service, "198.51.100.5")
    assert listed(service) == ["198.51.100.9", "198.51.100.1", "198.51.100.5"]


def test_seen_again_soon_keeps_its_id(service: Service, clock: ManualClock) -> None:
    """A source that floods does not move through the list, but lives on."""
    claim(service, "198.51.100.1")
    before = last(service)
    clock.tick(DAY - 1)
    assert claim(service, "198.51.100.1").renewed == 1
    assert last(service) == before
    clock.tick(WEEK - 1)
    assert listed(service) == ["198.51.100.1"]
    clock.tick(1)
    assert listed(service) == []


def test_seen_again_after_a_day_gets_another_id(service: Service, clock: ManualClock) -> None:
    """Clients count from the last time that they were told."""
    claim(service, "198.51.100.1", "198.51.100.2")
    before = last(service)
    clock.tick(DAY)
    assert claim(service, "198.51.100.1").relisted == 1
    assert listed(service) == ["198.51.100.2", "198.51.100.1"]
    assert listed(service, before) == ["198.51.100.1"]


def test_what_was_seen_since_its_id_is_relisted_in_time(
    service: Service, clock: ManualClock
) -> None:
    """Also when it is not seen once more after the day is over."""
    claim(service, "198.51.100.1")
    before = last(service)
    clock.tick(3600)
    claim(service, "198.51.100.1")
    with service.database.write() as connection:
        assert service.claims.relist(connection, limit=10) == 0
    clock.tick(DAY - 3600)
    with service.database.write() as connection:
        assert service.claims.relist(connection, limit=10) == 1
        assert service.claims.relist(connection, limit=10) == 0
    assert listed(service, before) == ["198.51.100.1"]


def test_reactivation(service: Service, clock: ManualClock) -> None:
    """What had ended comes back under a new ID, whether or not the curator was there meanwhile."""
    for curated in (True, False):
        clock.tick(100 * DAY)
        expire(service)
        assert claim(service, "198.51.100.1").new == (1 if curated else 0)
        before = last(service)
        clock.tick(WEEK)
        if curated:
            assert expire(service) == 1
        assert listed(service) == []
        outcome = claim(service, "198.51.100.1")
        assert (outcome.new, outcome.reactivated) == (0, 1)
        assert listed(service, before) == ["198.51.100.1"]
        if curated:
            clock.tick(WEEK)


def test_ids_are_never_used_again(service: Service, clock: ManualClock) -> None:
    """Not even when the clock is set back, or the list was empty in between."""
    claim(service, "198.51.100.1")
    before = last(service)
    with service.database.write() as connection:
        service.claims.withdraw(connection, HONEYPOT, [("198.51.100.1", "sip")])
    clock.set_wall(clock.now() - 30 * DAY)
    claim(service, "198.51.100.1", "198.51.100.2")
    assert listed(service, before) == ["198.51.100.1", "198.51.100.2"]


def test_two_sources(service: Service, clock: ManualClock) -> None:
    """A listing stands while one of them wants it, and until the later end."""
    claim(service, "198.51.100.1", lasts=3600)
    claim(service, "198.51.100.1", source=MIRROR, lasts=7200)
    clock.tick(3600)
    assert expire(service) == 1
    assert listed(service) == ["198.51.100.1"]
    with service.database.write() as connection:
        assert service.claims.withdraw(connection, MIRROR, [("198.51.100.1", "sip")]) == 1
    assert listed(service) == []


def test_withdrawing_the_longer_claim_leaves_the_shorter(
    service: Service, clock: ManualClock
) -> None:
    """Its end is the listing's then."""
    claim(service, "198.51.100.1", lasts=3600)
    claim(service, "198.51.100.1", source=MIRROR, lasts=WEEK)
    with service.database.write() as connection:
        assert service.claims.withdraw(connection, MIRROR, [("198.51.100.1", "sip")]) == 0
    clock.tick(3599)
    assert listed(service) == ["198.51.100.1"]
    clock.tick(1)
    assert listed(service) == []


def test_late_report_does_not_shorten(service: Service, clock: ManualClock) -> None:
    """What was seen earlier says nothing of what was seen later."""
    claim(service, "198.51.100.1")
    with service.database.write() as connection:
        early = Wanted(parse_network("198.51.100.1"), clock.now() - DAY, clock.now() + 6 * DAY)
        service.claims.make(connection, HONEYPOT, [early])
    clock.tick(WEEK - 1)
    assert listed(service) == ["198.51.100.1"]


def test_operator_sets_the_time_exactly(service: Service, clock: ManualClock) -> None:
    """Also to an earlier end."""
    claim(service, "198.51.100.1", source=MANUAL, overrule=True)
    claim(service, "198.51.100.1", source=MANUAL, lasts=60, overrule=True)
    clock.tick(60)
    assert listed(service) == []


def test_delisted_stays_off(service: Service, clock: ManualClock) -> None:
    """Whoever claims it is refused, until the time is over or an operator lists it."""
    claim(service, "198.51.100.1", "198.51.100.2")
    claim(service, "198.51.100.1", source=MIRROR)
    with service.database.write() as connection:
        gone = service.claims.delist(
            connection,
            [parse_network("198.51.100.1")],
            until=clock.now() + DAY,
            reason="a customer",
        )
    assert gone == 1
    assert listed(service) == ["198.51.100.2"]
    assert claim(service, "198.51.100.1").refused == {"198.51.100.1": "delisted by the operator"}
    assert claim(service, "198.51.100.1", source=MANUAL, overrule=True).refused == {}
    assert claim(service, "198.51.100.1").refused == {}
    with service.database.write() as connection:
        service.claims.delist(
            connection, [parse_network("198.51.100.2")], until=clock.now() + DAY, reason=""
        )
    clock.tick(DAY)
    assert claim(service, "198.51.100.2").refused == {}


@pytest.mark.parametrize(
    ("delisted", "left"),
    [
        ("198.51.100.7", ["203.0.113.1", "2001:db8::/48"]),
        ("198.51.100.0/25", ["203.0.113.1", "2001:db8::/48"]),
        ("198.51.100.128/25", ["198.51.100.7", "203.0.113.1", "2001:db8::/48"]),
        ("2001:db8::1", ["198.51.100.7", "198.51.100.0/24", "203.0.113.1"]),
        ("2001:db8::/32", ["198.51.100.7", "198.51.100.0/24", "203.0.113.1"]),
    ],
)
def test_delisting_takes_all_that_touches_it(
    service: Service, clock: ManualClock, delisted: str, left: list[str]
) -> None:
    """Networks that hold it, and what it holds; and keeps both off."""
    everything = ("198.51.100.7", "198.51.100.0/24", "203.0.113.1", "2001:db8::/48")
    claim(service, *everything)
    with service.database.write() as connection:
        service.claims.delist(
            connection, [parse_network(delisted)], until=clock.now() + DAY, reason=""
        )
    assert listed(service) == left
    assert set(claim(service, *everything, source=MIRROR).refused) == {*everything} - {*left}


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.0.0.1", "private or reserved"),
        ("127.0.0.1", "private or reserved"),
        ("100.64.0.1", "private or reserved"),
        ("fe80::1", "private or reserved"),
        ("0.0.0.0/0", "on the never-list"),
        ("8.8.8.8", "on the never-list"),
        ("8.8.8.0/24", "on the never-list"),
        ("2001:4860:4860::8888", "on the never-list"),
    ],
)
def test_refused(service: Service, address: str, reason: str) -> None:
    """Whoever wants it, and an operator too."""
    for overrule in (False, True):
        assert claim(service, address, overrule=overrule).refused == {address: reason}
    assert listed(service) == []


def test_never_list_that_grows_delists(make_service: MakeService, tmp_path: Path) -> None:
    """What it has come to hold goes at the curator's next round."""
    never = tmp_path / "never.txt"
    never.write_text("# none yet\n", encoding="ascii")
    service = make_service(curation__never_file=never)
    claim(service, "198.51.100.1", "198.51.100.9", "2001:db8::/48")
    never.write_text("198.51.100.0/29\n2001:db8:0:5::1\n", encoding="ascii")
    service.curator.round()
    assert listed(service) == ["198.51.100.9"]
    never.write_text("not a network\n", encoding="ascii")
    service.curator.round()
    assert claim(service, "198.51.100.2").refused == {"198.51.100.2": "on the never-list"}


def test_never_list_of_another_time(
    make_service: MakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edited while the feed was down, or when the database failed: it is applied all the same."""
    never = tmp_path / "never.txt"
    never.write_text("# none yet\n", encoding="ascii")
    claim(make_service(curation__never_file=never), "198.51.100.1", "198.51.100.9")
    never.write_text("198.51.100.1\n", encoding="ascii")
    service = make_service(curation__never_file=never)
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise StoreError("busy")

        patch.setattr(service.claims, "drop", fail)
        with pytest.raises(StoreError):
            service.curator.round()
    service.curator.round()
    assert listed(service) == ["198.51.100.9"]


def test_full_list(make_service: MakeService) -> None:
    """What is listed lives on; what is not finds no room."""
    service = make_service(curation__max_listed=2)
    claim(service, "198.51.100.1", "198.51.100.2")
    assert claim(service, "198.51.100.3", "198.51.100.1").refused == {
        "198.51.100.3": "the list is full"
    }
    with service.database.write() as connection:
        service.claims.withdraw(connection, HONEYPOT, [("198.51.100.1", "sip")])
    assert claim(service, "198.51.100.3").new == 1


def test_views(service: Service) -> None:
    """A key sees IPv4 hosts, and what is switched on for it."""
    claim(service, "198.51.100.1", "2001:db8::1", "203.0.113.0/24", "2001:db8:1::/48")
    assert listed(service, view=View()) == ["198.51.100.1"]
    assert listed(service, view=View(ipv6=True)) == ["198.51.100.1", "2001:db8::1"]
    assert listed(service, view=View(blocks=True)) == ["198.51.100.1", "203.0.113.0/24"]
    assert len(listed(service, view=View(blocks=True, ipv6=True))) == 4
    assert list(service.listings.whole(View(ipv6=True))) == ["198.51.100.1", "2001:db8::1"]
    found = service.listings.find
    assert found(parse_network("203.0.113.7"), View()) is None
    assert found(parse_network("203.0.113.7"), View(blocks=True)) is not None
    assert found(parse_network("2001:db8:1::9"), View(blocks=True)) is None
    assert found(parse_network("2001:db8:1::9"), View(blocks=True, ipv6=True)) is not None


def test_data_sets_are_apart(service: Service, clock: ManualClock) -> None:
    """One address may be in both, and "all" holds both."""
    now = clock.now()
    one = parse_network("198.51.100.1")
    with service.database.write() as connection:
        for name in ("sip", "http"):
            service.claims.make(connection, MANUAL, [Wanted(one, now, now + 60, "", name)])
    assert [len(listed(service, view=View(name))) for name in ("sip", "http", "all")] == [1, 1, 2]
    assert list(service.listings.whole(View("all"))) == ["198.51.100.1"]
