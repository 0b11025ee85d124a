import itertools
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.feed.conftest import DATABASES, Make, Makers, Template
from tests.support.feedservice import (
    MALFORMED,
    NOT_LISTED,
    QUEUE,
    FeedService,
    host,
    hosts,
    sighting,
)
from tests.support.node import wait_for
from tests.support.postgres import Postgres

OTHER_QUEUE = QUEUE[::-1]
# What shares a service has sequences and queues of its own.
SEQUENCES = itertools.count(1_000)


@pytest.fixture
def feed(make: Make, database: str) -> FeedService:
    """Give a started feed without an address."""
    return make(database).start()


def is_listed(service: FeedService, address: str) -> bool:
    """Tell what ``check`` says."""
    return service.check(1, service.keys["every"], address).status == 200


def becomes_listed(service: FeedService, *addresses: str) -> None:
    """Wait until all are listed."""
    for address in addresses:
        wait_for(lambda one=address: is_listed(service, one), f"{address} listed", 5)


def never_listed(service: FeedService, *addresses: str) -> None:
    """After another, later sighting was curated, these are not listed."""
    beacon = host(900_000 + next(SEQUENCES))
    service.report(
        service.keys["pot"],
        [sighting(beacon, n, method="OPTIONS") for n in (1, 2, 3)],
        beacon_queue(),
    )
    becomes_listed(service, beacon)
    assert [one for one in addresses if is_listed(service, one)] == []


def beacon_queue() -> str:
    """Name a queue that no other report has."""
    return f"{next(SEQUENCES):032x}"


def settled(
    service: FeedService, sightings: list[Any], queue: str = QUEUE, key: str = "pot"
) -> Any:
    """Report, and give the receipt."""
    answer = service.report(service.keys[key], sightings, queue)
    assert answer.status == 200, answer
    receipt = answer.document
    assert set(receipt) == {"accepted", "repeated", "refused"}
    return receipt


@pytest.fixture(scope="module", params=DATABASES)
def taker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, template: Template
) -> Iterator[FeedService]:
    """Give a feed for reports whose good sightings do not matter to another test."""
    makers = Makers(
        tmp_path_factory.mktemp("taker"), template, lambda: request.getfixturevalue("postgres")
    )
    yield makers(request.param).start()
    makers.end()


@pytest.fixture(scope="module")
def choosy(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Iterator[FeedService]:
    """Give a feed with a never-list of the operator's, which changes once it has run for a bit."""
    makers = Makers(tmp_path_factory.mktemp("choosy"), template, Postgres)
    feed = makers()
    feed.write_settings(curation__never_file=str(feed.folder / "never.txt"), curation__every=0.2)
    never = f"# own\n{host(1)}\n45.81.0.0/16\n2a0e:1bc0::/32 # ours\n"
    (feed.folder / "never.txt").write_text(never, encoding="ascii")
    yield feed.start()
    makers.end()


def test_never_list_of_the_operator(choosy: FeedService) -> None:
    """Addresses and networks; then it is changed, and ``test_changed_never_list`` looks again."""
    kept = [host(1), "45.81.200.3", "2a0e:1bc0::9", "::ffff:45.81.0.1"]
    receipt = settled(choosy, [sighting(one, n) for n, one in enumerate([*kept, host(2)], 1)])
    assert [one["sequence"] for one in receipt["refused"]] == [1, 2, 3, 4]
    becomes_listed(choosy, host(2))
    (choosy.folder / "never.txt").write_text(f"{host(2)}\n", encoding="ascii")


def test_a_sighting_lists(feed: FeedService) -> None:
    """By a nonce or by a connection, IPv4 and IPv6, in the order of the report."""
    sources = [host(1), host(2), "2a0e:1bc0::5"]
    receipt = settled(
        feed,
        [
            sighting(sources[0], 1),
            sighting(sources[1], 2, proof="connection", transport="tcp", method="INVITE"),
            sighting(sources[2], 3, proof="connection", transport="tls", count=7, users=[]),
        ],
    )
    assert receipt == {"accepted": 3, "repeated": 0, "refused": []}
    becomes_listed(feed, *sources)
    assert feed.listed(feed.keys["every"]) == sources


def test_retry_of_a_batch_changes_nothing(feed: FeedService) -> None:
    """What comes again is repeated, and what is new in it is taken; also after a crash."""
    batch = [sighting(host(n), n) for n in range(1, 6)]
    assert settled(feed, batch)["accepted"] == 5
    feed.kill()
    feed.start()
    assert settled(feed, batch) == {"accepted": 0, "repeated": 5, "refused": []}
    more = [*batch, sighting(host(6), 6)]
    assert settled(feed, more) == {"accepted": 1, "repeated": 5, "refused": []}
    becomes_listed(feed, *hosts(6, 1))
    assert feed.listed(feed.keys["reader"]) == hosts(6, 1)


def test_queues_are_apart(feed: FeedService) -> None:
    """The same sequence in another queue, or of another honeypot, is another sighting."""
    assert settled(feed, [sighting(host(1), 5)])["accepted"] == 1
    assert settled(feed, [sighting(host(2), 5)], OTHER_QUEUE)["accepted"] == 1
    assert settled(feed, [sighting(host(3), 5)], key="pot2")["accepted"] == 1
    becomes_listed(feed, *hosts(3, 1))


def test_accepted_survives_a_crash(feed: FeedService) -> None:
    """A receipt is a promise: killed in the same moment, the service lists it afterwards."""
    sources = hosts(200)
    assert settled(feed, [sighting(one, n) for n, one in enumerate(sources, 1)])["accepted"] == 200
    feed.kill()
    feed.start()
    becomes_listed(feed, *sources[-3:])
    assert set(feed.listed(feed.keys["reader"])) == set(sources)


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "10.0.0.1"},
        {"source": "127.0.0.1"},
        {"source": "192.168.7.7"},
        {"source": "169.254.1.1"},
        {"source": "100.64.0.1"},
        {"source": "224.0.0.1"},
        {"source": "0.0.0.0"},
        {"source": "255.255.255.255"},
        {"source": "::1"},
        {"source": "fe80::1"},
        {"source": "fd00::1"},
        {"source": "::ffff:10.0.0.1"},
        {"source": "::ffff:127.0.0.1"},
        {"source": "8.8.8.8"},
        {"source": "1.1.1.1"},
        {"source": "2001:4860:4860::8888"},
        {"source": "::ffff:8.8.8.8"},
        {"source": "45.80.0.0/24"},
        {"source": "nonsense"},
        {"source": ""},
        {"source": None},
        {"source": 17},
        {"source": ["45.80.0.1"]},
        {"source": "45.80.0.1\x00"},
        {"source": "fe80::1%eth0"},
        {"source": "x" * 100_000},
        {"at": 0},
        {"at": -1},
        {"at": None},
        {"at": "now"},
        {"at": 1e300},
        {"at": True},
        {"at": [1]},
        {"proof": "none"},
        {"proof": None},
        {"proof": True},
        {"proof": "Nonce"},
        {"sequence": None},
        {"sequence": "1"},
        {"sequence": -1},
        {"sequence": 1.5},
        {"sequence": True},
        {"sequence": 2**63},
        {"sequence": 10**400},
        {"count": 0},
        {"count": -1},
        {"count": "3"},
        {"count": 10**400},
        {"users": {"a": [[]]}},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_poison_is_refused_alone(taker: FeedService, changes: dict[str, Any]) -> None:
    """One bad sighting is named with a reason; those around it are taken."""
    queue, good = beacon_queue(), [next(SEQUENCES), next(SEQUENCES)]
    bad = {**sighting(host(500_000), next(SEQUENCES)), **changes}
    batch = [sighting("45.200.0.1", good[0]), bad, sighting("45.200.0.2", good[1])]
    receipt = settled(taker, batch, queue)
    assert receipt["accepted"] == 2
    assert [set(one) for one in receipt["refused"]] == [{"sequence", "reason"}]
    reason = receipt["refused"][0]["reason"]
    assert isinstance(reason, str)
    assert 0 < len(reason) < 300
    assert not is_listed(taker, host(500_000))


def test_sightings_that_are_no_objects(taker: FeedService) -> None:
    """Each is refused alone, or the report as a whole is malformed; nothing is listed."""
    for odd in (None, 5, "x", [], [[]], True):
        answer = taker.report(taker.keys["pot"], [odd], beacon_queue())
        assert answer.shown == MALFORMED or answer.document["accepted"] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"queue": None},
        {"queue": "x"},
        {"queue": "0" * 33},
        {"queue": "G" * 32},
        {"queue": "0" * 31 + "\n"},
        {"queue": 5},
        {"sightings": None},
        {"sightings": {}},
        {"sightings": "x"},
        {"unproven": 5},
        {"unproven": {"a": 1}},
        {"unproven_not_kept": -1},
        {"unproven_not_kept": "many"},
        {"unproven_not_kept": 10**400},
        {"sightings": [{}] * 1001},
    ],
    ids=lambda change: str(change)[:40],
)
def test_malformed_report(taker: FeedService, change: dict[str, Any]) -> None:
    """Nothing of it is taken."""
    body = {"queue": beacon_queue(), "sightings": [], "unproven": [], **change}
    assert taker.post("report", taker.keys["pot"], body).shown == MALFORMED


HOSTILE = [
    "\x00",
    "a\x00b",
    "\x1b[2J\x1b]0;x\x07",
    "a\r\nSet-Cookie: x\napiban: event=feed-start",
    "'; DROP TABLE listings; --",
    '<script>alert("x")</script>',
    "{{7*7}}{%raw%}",
    "\u202eevil\u2028",
    "%s%n%(x)s{0}",
    "\U0001f4a9" * 50,
    "a" * 1000,
    " ",
    "",
]


FIELDS = ["user_agent", "dialled", "tool", "users", "method", "transport"]


def test_hostile_texts(feed: FeedService) -> None:
    """Taken or refused one by one, never a fault; nothing prints them as they are."""
    for field in FIELDS:
        batch = [
            sighting(host(n), n, **{field: [text] if field == "users" else text})
            for n, text in enumerate(HOSTILE, 1)
        ]
        batch.append(sighting(host(999), 999))
        receipt = settled(feed, batch, beacon_queue())
        assert receipt["accepted"] + len(receipt["refused"]) == len(batch)
        if field in {"user_agent", "dialled", "users"}:  # these are as attackers sent them
            assert receipt["refused"] == [], field
    becomes_listed(feed, host(999))
    for number in range(1, 5):
        shown = feed.cli("show", host(number))
        assert set(shown) & {*map(chr, range(32)), "\x7f", "\u202e", "\u2028"} <= {"\n"}
    assert "<script>alert" not in feed.ask("GET", "/").body.decode()
    assert feed.output().count("event=feed-start") == 1


def test_half_a_surrogate_does_not_hold_up_the_batch(taker: FeedService) -> None:
    """JSON can carry it, text cannot: that sighting alone is refused, or cleaned."""
    batch = [sighting("45.200.0.1", 1), sighting("45.200.0.1", 2, user_agent="\ud800")]
    receipt = settled(taker, [*batch, sighting("45.200.0.1", 3)], beacon_queue())
    assert receipt["accepted"] >= 2
    assert receipt["accepted"] + len(receipt["refused"]) == 3


def test_ages(make: Make) -> None:
    """Older than the setting, or more than five minutes ahead: refused; just within: taken."""
    feed = make(curation__oldest=3600).start()
    now = time.time()
    receipt = settled(
        feed,
        [
            sighting(host(1), 1, at=now - 3700),
            sighting(host(2), 2, at=now - 3500),
            sighting(host(3), 3, at=now + 400),
            sighting(host(4), 4, at=now + 200),
        ],
    )
    assert receipt["accepted"] == 2
    assert [one["sequence"] for one in receipt["refused"]] == [1, 3]
    becomes_listed(feed, host(2), host(4))
    never_listed(feed, host(1), host(3))


def test_active_is_counted_from_when_it_was_seen(make: Make) -> None:
    """A late report of an old sighting lists for the rest of the time alone."""
    feed = make(curation__active_for=60, curation__oldest=3600, curation__relist_after=60).start()
    now = time.time()
    settled(feed, [sighting(host(1), 1, at=now - 100), sighting(host(2), 2, at=now - 56)])
    becomes_listed(feed, host(2))
    never_listed(feed, host(1))
    wait_for(lambda: not is_listed(feed, host(2)), "an end of the activity", 6)
    assert host(2) not in feed.listed(feed.keys["reader"])
    assert host(2).encode() not in feed.ask("GET", f"/ipset/{feed.keys['reader']}/list").body


def test_a_time_ahead_does_not_make_a_long_listing(make: Make) -> None:
    """The activity of a sighting from the future is counted from now."""
    feed = make(curation__active_for=60, curation__relist_after=60).start()
    settled(feed, [sighting(host(1), 1, at=time.time() + 250), sighting(host(2), 2)])
    becomes_listed(feed, host(1), host(2))
    ends = json.loads(feed.cli("show", host(1), "--json"))
    told = [value for value in numbers_in(ends) if value > time.time()]
    assert all(value <= time.time() + 61 for value in told), ends


def numbers_in(document: Any) -> list[float]:
    """Give every number in a document."""
    if isinstance(document, dict | list):
        values = document.values() if isinstance(document, dict) else document
        return [number for value in values for number in numbers_in(value)]
    return [document] if isinstance(document, int | float) else []


def test_unproven_is_never_listed(feed: FeedService) -> None:
    """However often it comes; it is shown apart."""
    now = time.time()
    unproven = [
        {"source": host(n), "method": "OPTIONS", "first": now - 9, "last": now, "count": 10**6}
        for n in range(900)
    ]
    for _ in range(3):
        answer = feed.report(feed.keys["pot"], [], unproven=unproven, unproven_not_kept=77)
        assert answer.shown == (200, {"accepted": 0, "repeated": 0, "refused": []})
    never_listed(feed, host(0), host(899))
    assert len(feed.listed(feed.keys["reader"])) == 1


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"source": "x"},
        {"source": "45.80.0.1", "method": "\x00\ud800", "first": 1, "last": 2, "count": 1},
        {"source": "45.80.0.1", "method": None, "first": None, "last": "x", "count": -1},
        {"source": "45.80.0.1", "method": "A", "first": 1e300, "last": -1e300, "count": 10**400},
        {"source": "10.0.0.1", "method": "A" * 9999, "first": 5, "last": 1, "count": 2**63},
    ],
    ids=lambda odd: str(odd)[:40],
)
def test_odd_unproven_does_not_hold_up_sightings(taker: FeedService, odd: Any) -> None:
    """A report whose unproven part is poisoned is settled, else the honeypot retries for ever."""
    body = [sighting("45.200.0.9", next(SEQUENCES))]
    answer = taker.report(taker.keys["pot"], body, beacon_queue(), unproven=[odd])
    assert answer.status == 200
    assert answer.document["accepted"] == 1


def test_number_of_sightings_that_it_takes(make: Make, database: str) -> None:
    """Three sightings of an address list it: in one report, in several, not the same one thrice."""
    feed = make(database, curation__sightings=3).start()
    settled(feed, [sighting(host(1), n) for n in (1, 2, 3)])
    settled(feed, [sighting(host(2), n) for n in (4, 5)])
    for _ in range(3):
        settled(feed, [sighting(host(3), 6)])
    becomes_listed(feed, host(1))
    never_listed(feed, host(2), host(3))
    settled(feed, [sighting(host(2), 7)])
    becomes_listed(feed, host(2))


def test_number_of_honeypots_that_it_takes(make: Make, database: str) -> None:
    """Two queues of one key are one honeypot; another key is another."""
    feed = make(database, curation__honeypots=2).start()
    settled(feed, [sighting(host(1), n) for n in range(1, 9)])
    settled(feed, [sighting(host(1), 9)], OTHER_QUEUE)
    settled(feed, [sighting(host(2), 10)])
    settled(feed, [sighting(host(2), 1)], key="pot2")
    becomes_listed(feed, host(2))
    assert not is_listed(feed, host(1))


def test_time_within_which_they_must_come(make: Make) -> None:
    """Two sightings that are further apart than that do not add up."""
    feed = make(curation__sightings=2, curation__within=600).start()
    now = time.time()
    apart = [sighting(host(1), 1, at=now - 1000), sighting(host(1), 2, at=now)]
    near = [sighting(host(2), 3, at=now - 500), sighting(host(2), 4, at=now)]
    settled(feed, apart + near)
    becomes_listed(feed, host(2))
    assert not is_listed(feed, host(1))


def test_private_addresses_of_a_lab(make: Make) -> None:
    """Listed when it is set, and only then."""
    feed = make(curation__accept_private=True).start()
    assert settled(feed, [sighting("127.0.0.9", 1), sighting("10.1.1.1", 2)])["refused"] == []
    becomes_listed(feed, "127.0.0.9", "10.1.1.1")


def test_cap_of_active_addresses(make: Make) -> None:
    """A report is settled at the cap too, and nothing beyond it is listed."""
    feed = make(curation__max_listed=10).start()
    receipt = settled(feed, [sighting(host(n), n + 1) for n in range(20)])
    assert receipt["accepted"] + len(receipt["refused"]) == 20
    wait_for(lambda: len(feed.listed(feed.keys["reader"])) >= 10, "ten listings", 5)
    assert settled(feed, [sighting(host(0), 99)])["repeated"] == 0
    assert len(feed.listed(feed.keys["reader"])) == 10


def test_same_batch_at_once(feed: FeedService) -> None:
    """Eight retries at the same time accept each sighting once."""
    batch = [sighting(host(n), n + 1) for n in range(100)]
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda _: settled(feed, batch), range(8)))
    assert sum(one["accepted"] for one in receipts) == 100
    assert sum(one["repeated"] for one in receipts) == 700
    becomes_listed(feed, host(99))
    assert sorted(feed.listed(feed.keys["reader"])) == sorted(hosts(100))


def test_evidence_is_kept(feed: FeedService) -> None:
    """``show`` tells when, which honeypot, which method, and the claim."""
    settled(feed, [sighting(host(1), 1, dialled="00442012345", users=["100", "101"])])
    becomes_listed(feed, host(1))
    shown = feed.cli("show", host(1))
    for word in ("pot", "REGISTER", "00442012345", "friendly-scanner", "sipvicious"):
        assert word in shown
    assert host(1) in json.dumps(json.loads(feed.cli("show", host(1), "--json")))
    assert feed.check(1, feed.keys["reader"], host(2)).shown == NOT_LISTED


def test_changed_never_list(choosy: FeedService) -> None:
    """In force at the curator's next round: what it holds is off the list, and stays off."""
    wait_for(lambda: not is_listed(choosy, host(2)), "what is never listed taken off")
    receipt = settled(choosy, [sighting(host(2), 100), sighting(host(1), 101)])
    assert [one["sequence"] for one in receipt["refused"]] == [100]
    becomes_listed(choosy, host(1))
    choosy.stop()
    (choosy.folder / "never.txt").write_text(f"{host(1)}\nnonsense\n", encoding="ascii")
    assert choosy.run("check").returncode > 0
