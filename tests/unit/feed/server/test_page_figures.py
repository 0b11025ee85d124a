from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from apiban.address import parse_network
from apiban.feed.server import numbers
from apiban.feed.server.claims import MANUAL, Wanted
from apiban.feed.server.notes import write_note
from apiban.feed.server.page.chart import Amount
from apiban.feed.server.page.figures import Figures, Mirror, SlowCounts, figures_at
from apiban.feed.server.page.records import Case, Trace, case_of, records
from apiban.feed.server.report import Report

from tests.support.filled import HOSTILE, SOURCE, FilledFeed, sighting

DAY = 86400


@pytest.fixture
def feed(database_url: str) -> Iterator[FilledFeed]:
    """Give a feed with something of everything."""
    with closing(FilledFeed(database_url)) as feed:
        yield feed


@pytest.fixture
def empty(database_url: str) -> Iterator[FilledFeed]:
    """Give a feed with nothing in it."""
    with closing(FilledFeed(database_url, fill=False)) as feed:
        yield feed


def figures(feed: FilledFeed, slow: SlowCounts | None = None) -> Figures:
    """Read the figures as of now."""
    with feed.database.read() as connection:
        return figures_at(connection, feed.clock.now(), slow or SlowCounts())


def case(feed: FilledFeed, address: str) -> Case:
    """Read what is known of an address."""
    with feed.database.read() as connection:
        return case_of(connection, address)


def put(feed: FilledFeed, ago: float, **values: int) -> None:
    """Set counts of an earlier hour; ``listed_new`` is the count "new" of the series "listed"."""
    with feed.database.write() as connection:
        named = {tuple(name.split("_", 1)): value for name, value in values.items()}
        numbers.put(connection, feed.clock.now() - ago, named)  # type: ignore[arg-type]


def test_what_was_reported_is_counted(feed: FilledFeed) -> None:
    """By method, tool and transport, in messages; the unproven apart."""
    found = figures(feed)
    assert found.methods == (Amount("REGISTER", 41), Amount("INVITE", 1))
    assert found.tools == (Amount("sipvicious", 41), Amount("sipcli", 1))
    assert found.transports == (Amount("udp", 41), Amount("tcp", 1))
    assert (found.counts.unproven, found.unproven_messages) == (1, 5)


def test_claims_are_counted_by_source(feed: FilledFeed) -> None:
    """Lists of one's own are "file", since a file's name may tell something."""
    assert set(figures(feed).counts.sources) == {
        Amount("honeypot", 2),
        Amount("manual", 1),
        Amount("file", 1),
    }


def test_an_empty_feed_has_figures(empty: FilledFeed) -> None:
    """Zeros, and nothing to draw."""
    found = figures(empty)
    assert found.active == (Amount("sip", 0), Amount("http", 0))
    assert [one.points for one in (*found.history, *found.changes)] == [()] * 5
    assert (found.mirror, found.honeypots, found.methods, found.keys) == (None, (), (), ())


def test_active_is_what_the_curator_counted(feed: FilledFeed) -> None:
    """The count of this hour, or the last hour's just after the turn of the hour."""
    assert figures(feed).active == (Amount("sip", 1240), Amount("http", 7))
    feed.clock.tick(3600)
    assert figures(feed).active == (Amount("sip", 1240), Amount("http", 7))


def test_active_is_counted_when_the_curator_does_not(feed: FilledFeed) -> None:
    """A count of hours ago is not shown as today's."""
    feed.clock.tick(2 * 3600)
    assert figures(feed).active == (Amount("sip", 2), Amount("http", 1))


def test_history_is_by_the_hour_in_order(feed: FilledFeed) -> None:
    """Each hour's value at its beginning, for 30 days."""
    put(feed, 29 * DAY, active_sip=3)
    put(feed, 31 * DAY, active_sip=4)
    sip, http = figures(feed).history
    assert (sip.label, http.label) == ("sip", "http")
    assert len(sip.points) == 49
    assert sip.points[0] == (feed.clock.now() - 29 * DAY, 3)
    assert sip.points[-2:] == ((feed.clock.now() - 3600, 1239), (feed.clock.now(), 1240))


def test_changes_are_by_the_day_in_utc(empty: FilledFeed) -> None:
    """The hours of a day add up; a day without any is 0; before the first there is nothing."""
    put(empty, 3 * DAY, listed_new=5)
    put(empty, 3 * DAY + 3600, listed_new=6)
    put(empty, DAY, listed_ended=2)
    new, reactivated, ended = figures(empty).changes
    midnight = empty.clock.now() // DAY * DAY
    assert [at for at, _ in new.points] == [midnight - DAY * days for days in (3, 2, 1, 0)]
    assert [value for _, value in new.points] == [11, 0, 0, 0]
    assert [value for _, value in reactivated.points] == [0, 0, 0, 0]
    assert [value for _, value in ended.points] == [0, 0, 2, 0]


def test_sightings_are_of_the_last_week(empty: FilledFeed) -> None:
    """Older hours are in the database for the charts of a month."""
    put(empty, 6 * DAY, method_INVITE=4)
    put(empty, 8 * DAY, method_INVITE=100)
    assert figures(empty).methods == (Amount("INVITE", 4),)


def test_many_labels_are_cut_to_a_dozen(empty: FilledFeed) -> None:
    """The smallest add up to one bar, so that nothing is missing from the sum."""
    put(empty, 0, **{f"tool_t{number:02}": number for number in range(1, 31)})
    tools = figures(empty).tools
    assert len(tools) == 12
    assert tools[0] == Amount("t30", 30)
    assert tools[-1].label == "all others"
    assert sum(one.value for one in tools) == sum(range(1, 31))


def test_a_honeypot_is_alive_for_a_quarter_of_an_hour(feed: FilledFeed) -> None:
    """Its queues add up; the last report of any counts."""
    report = Report("q2", [sighting(1, feed.clock.now())])
    feed.reports.take("pot-north", report)
    began = feed.clock.now()
    feed.clock.tick(899)
    (pot,) = figures(feed).honeypots
    assert (pot.name, pot.sightings, pot.last_report, pot.alive) == ("pot-north", 3, began, True)
    feed.clock.tick(1)
    (pot,) = figures(feed).honeypots
    assert not pot.alive


def test_the_mirror_is_as_it_noted(feed: FilledFeed) -> None:
    """State, size, and the time of its last complete pass."""
    now = feed.clock.now()
    assert figures(feed).mirror == Mirror("synced", 900, now - 120, now)


@pytest.mark.parametrize(
    "values",
    [{"state": "x"}, {"state": "x", "entries": "many", "complete_at": 1, "at": 1},
     {"state": "x", "entries": 1, "complete_at": [], "at": 1}],
)  # fmt: skip
def test_a_note_that_makes_no_sense_is_no_mirror(empty: FilledFeed, values: dict[str, Any]) -> None:
    """The rest of the page does not fall with it."""
    with empty.database.write() as connection:
        write_note(connection, "mirror", values, now=0.0)
    assert figures(empty).mirror is None


def test_a_mirror_that_was_never_complete(empty: FilledFeed) -> None:
    """It has a state, and no time."""
    with empty.database.write() as connection:
        values = {"state": "failing", "entries": 0, "complete_at": None, "at": 5.0}
        write_note(connection, "mirror", values, now=0.0)
    assert figures(empty).mirror == Mirror("failing", 0, None, 5.0)


def test_keys_are_counted_while_in_force(feed: FilledFeed) -> None:
    """A revoked one no longer."""
    assert figures(feed).keys == (Amount("read", 1), Amount("report", 1))
    feed.keys.revoke("client-west")
    assert figures(feed).keys == (Amount("report", 1),)


def test_slow_counts_are_taken_once_a_minute(feed: FilledFeed) -> None:
    """In between all who ask get the same; a clock set back does not freeze them."""
    slow = SlowCounts()
    before = figures(feed, slow).counts
    feed.reports.take("pot-north", Report("q1", [sighting(9, feed.clock.now(), "198.51.100.9")]))
    feed.clock.tick(59)
    assert figures(feed, slow).counts == before
    feed.clock.tick(1)
    assert Amount("honeypot", 3) in figures(feed, slow).counts.sources
    feed.clock.set_wall(feed.clock.now() - DAY)
    with feed.database.write() as connection:
        feed.claims.withdraw(connection, MANUAL, [("192.0.9.0/24", "http")])
    assert "manual" not in {one.label for one in figures(feed, slow).counts.sources}


def test_the_latest_listings_come_first_with_claims_and_evidence(feed: FilledFeed) -> None:
    """Each with who wants it listed, and a word on what it did."""
    with feed.database.read() as connection:
        latest = records(connection).latest
    assert [one.listing.address for one in latest] == ["192.0.9.0/24", "198.51.100.8", SOURCE]
    assert [claim.reason for claim in latest[0].claims] == ["a farm"]
    assert latest[0].trace is None
    assert [claim.source for claim in latest[2].claims] == ["file:secret-partner", "honeypot"]
    assert latest[2].trace == Trace(messages=41, ways=1, user_agent=HOSTILE)


def test_keys_come_in_the_order_of_their_last_use(feed: FilledFeed) -> None:
    """Unused ones last; the chart has the most used first."""
    for number in range(14):
        feed.keys.create(f"key-{number}")
    with feed.database.write() as connection:
        connection.exec_driver_sql("UPDATE key SET used = id, last_used = id WHERE id > 12")
    with feed.database.read() as connection:
        shown = records(connection)
    assert [one.name for one in shown.keys][:5] == ["key-13", "key-12", "key-11", "key-10",
                                                   "pot-north"]  # fmt: skip
    assert shown.key_count == len(shown.keys) == 16
    assert shown.key_use[0] == Amount("key-13", 16)
    assert len(shown.key_use) == 12


def test_the_records_are_bounded(feed: FilledFeed) -> None:
    """However many keys, lines and listings there are."""
    now = feed.clock.now()
    for number in range(210):
        feed.keys.create(f"key-{number}")
    with feed.database.write() as connection:
        wanted = [Wanted(parse_network(f"192.0.4.{n}"), now, now + 9) for n in range(60)]
        feed.claims.make(connection, MANUAL, wanted)
    with feed.database.read() as connection:
        shown = records(connection)
    assert (len(shown.keys), shown.key_count) == (200, 212)
    assert (len(shown.actions), len(shown.latest)) == (30, 50)


def test_a_case_has_all_that_is_known(feed: FilledFeed) -> None:
    """Listing, claims, and each way of probing with the names that were tried."""
    found = case(feed, SOURCE)
    assert [(one.dataset, one.address) for one in found.listings] == [("sip", SOURCE)]
    assert {one.source for one in found.claims} == {"honeypot", "file:secret-partner"}
    (probe,) = found.probes
    assert (probe.honeypot, probe.method, probe.count) == ("pot-north", "REGISTER", 41)
    assert (probe.user_agent, probe.users) == (HOSTILE, ("100", HOSTILE))
    assert (found.suspects, found.ended, found.kept_off_until) == ((), None, None)


def test_an_unproven_source_is_a_suspect_alone(feed: FilledFeed) -> None:
    """What may be forged is never among the evidence."""
    found = case(feed, "203.0.113.9")
    assert (found.listings, found.claims, found.probes) == ((), (), ())
    assert [(one.honeypot, one.count, one.method) for one in found.suspects] == [
        ("pot-north", 5, "OPTIONS")
    ]


def test_a_delisted_address_tells_why(feed: FilledFeed) -> None:
    """And when its listing ended."""
    now = feed.clock.now()
    with feed.database.write() as connection:
        networks = [parse_network(SOURCE)]
        feed.claims.delist(connection, networks, until=now + DAY, reason="a customer")
    found = case(feed, SOURCE)
    assert (found.listings, found.claims, found.ended) == ((), (), now)
    assert (found.kept_off_until, found.kept_off_for) == (now + DAY, "a customer")


def test_ways_of_probing_are_bounded(feed: FilledFeed) -> None:
    """What a source makes up is one way among the methods that SIP has."""
    first = sighting(10, feed.clock.now())
    made_up = [replace(first, sequence=10 + n, method=f"M{n}") for n in range(250)]
    feed.reports.take("pot-north", Report("q1", made_up))
    found = case(feed, SOURCE)
    assert found.probe_count == len(found.probes) == 2
    assert {one.method: one.count for one in found.probes}["other"] == 250


def test_nothing_is_known_of_others(feed: FilledFeed) -> None:
    """An address that nobody ever saw."""
    assert case(feed, "192.0.2.77") == Case("192.0.2.77", (), (), (), 0, (), None, None, "")
