from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from apiban import __version__
from apiban.errors import StoreError
from apiban.feed.server.metrics import Metrics
from apiban.feed.server.notes import write_note
from apiban.settings.secret import Secret
from prometheus_client.parser import text_string_to_metric_families

from tests.support.filled import CLIENT_KEY, PASSWORD, SOURCE, FilledFeed

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def feed(database_url: str) -> Iterator[FilledFeed]:
    """Give a feed with something of everything."""
    with closing(FilledFeed(database_url)) as feed:
        yield feed


def samples(text: bytes) -> Samples:
    """Read the metrics as Prometheus does."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Give one sample's value, or None when there is none."""
    return samples(metrics.text()).get((f"apiban_feed_{name}", frozenset(labels.items())))


def test_requests_are_counted_by_route_method_and_status(feed: FilledFeed) -> None:
    """Each with the time that it took."""
    for seconds in (0.002, 0.3):
        feed.metrics.observe("/api/{key}/banned", "GET", 200, seconds)
    feed.metrics.observe("/api/{key}/banned", "GET", 403, 0.001)
    route = {"route": "/api/{key}/banned"}
    for status, count in (("200", 2), ("403", 1)):
        labels = {**route, "method": "GET", "status": status}
        assert value(feed.metrics, "http_requests_total", **labels) == count
    name = "http_request_duration_seconds"
    assert value(feed.metrics, f"{name}_count", **route) == 3
    assert value(feed.metrics, f"{name}_sum", **route) == pytest.approx(0.303)
    assert value(feed.metrics, f"{name}_bucket", **route, le="0.0025") == 2


def test_a_made_up_method_makes_no_series(feed: FilledFeed) -> None:
    """A client cannot fill the memory with labels of its own."""
    for number in range(100):
        feed.metrics.observe("(none)", f"M{number}", 404, 0.001)
    labels = {"route": "(none)", "method": "other", "status": "404"}
    assert value(feed.metrics, "http_requests_total", **labels) == 100


def test_refusals_and_failures_are_counted(feed: FilledFeed) -> None:
    """Each kind from 0, so that a first one shows as an increase."""
    names = ("rate_limited", "unauthorized", "store_errors")
    before = [value(feed.metrics, f"{name}_total") for name in names]
    feed.metrics.rate_limited()
    feed.metrics.unauthorized()
    feed.metrics.unauthorized()
    feed.metrics.store_error()
    after = [value(feed.metrics, f"{name}_total") for name in names]
    assert (before, after) == ([0, 0, 0], [1, 2, 1])


def test_sightings_are_counted_by_what_became_of_them(feed: FilledFeed) -> None:
    """Accepted, repeated, refused."""
    assert value(feed.metrics, "sightings_total", outcome="refused") == 0
    feed.metrics.reports(accepted=10, repeated=4, refused=1)
    feed.metrics.reports(accepted=1, repeated=0, refused=0)
    found = {
        outcome: value(feed.metrics, "sightings_total", outcome=outcome)
        for outcome in ("accepted", "repeated", "refused")
    }
    assert found == {"accepted": 11, "repeated": 4, "refused": 1}


def test_the_database_is_read_at_each_scrape(feed: FilledFeed) -> None:
    """What is listed, who reported, and how the mirror is."""
    now = feed.clock.now()
    assert value(feed.metrics, "store_up") == 1
    assert value(feed.metrics, "listings", dataset="sip") == 1240
    assert value(feed.metrics, "listings", dataset="http") == 7
    last_report = "honeypot_last_report_timestamp_seconds"
    assert value(feed.metrics, last_report, honeypot="pot-north") == now
    assert value(feed.metrics, "mirror_state", state="synced") == 1
    assert value(feed.metrics, "mirror_entries") == 900
    assert value(feed.metrics, "mirror_last_success_timestamp_seconds") == now - 120
    assert value(feed.metrics, "build_info", version=__version__) == 1


def test_a_mirror_that_never_was_complete_has_no_time(feed: FilledFeed) -> None:
    """An absent sample is not a success in 1970."""
    note = {"state": "failing", "entries": 0, "complete_at": None, "at": 1.0}
    with feed.database.write() as connection:
        write_note(connection, "mirror", note, now=1.0)
    assert value(feed.metrics, "mirror_state", state="failing") == 1
    assert value(feed.metrics, "mirror_state", state="synced") is None
    assert value(feed.metrics, "mirror_last_success_timestamp_seconds") is None


def test_an_empty_feed_has_metrics(database_url: str) -> None:
    """Nothing listed, and no mirror."""
    with closing(FilledFeed(database_url, fill=False)) as feed:
        assert value(feed.metrics, "listings", dataset="sip") == 0
        assert value(feed.metrics, "mirror_entries") is None


def test_a_database_that_fails_leaves_the_rest(
    feed: FilledFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counts of this process are told, with the failure."""
    feed.metrics.unauthorized()

    @contextmanager
    def broken() -> Iterator[None]:
        raise StoreError("gone")
        yield

    monkeypatch.setattr(feed.database, "read", broken)
    found = samples(feed.metrics.text())
    assert found["apiban_feed_store_up", frozenset()] == 0
    assert found["apiban_feed_unauthorized_total", frozenset()] == 1
    assert "apiban_feed_listings" not in {name for name, _ in found}
    monkeypatch.undo()
    assert value(feed.metrics, "store_errors_total") == 1


def test_no_label_holds_a_key_or_an_address(feed: FilledFeed) -> None:
    """Nor the name of a client's key, nor a user agent."""
    text = feed.metrics.text().decode()
    private = (CLIENT_KEY, SOURCE, "198.51.100.8", "203.0.113.9", "client-west", "owned")
    assert [word for word in private if word in text] == []


def test_two_applications_count_apart(feed: FilledFeed) -> None:
    """Each has a registry of its own."""
    other = Metrics(feed.database, feed.clock.now)
    other.unauthorized()
    assert value(feed.metrics, "unauthorized_total") == 0


def test_metrics_are_for_the_operator(feed: FilledFeed) -> None:
    """With the password; all others get none of them."""
    feed.operator.set_password(Secret(PASSWORD))
    refused = feed.get("/metrics")
    assert (refused.status, refused.body) == (403, b"for the operator\n")
    answer = feed.get("/metrics", password=PASSWORD)
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert samples(answer.body)["apiban_feed_store_up", frozenset()] == 1
    for _ in range(5):
        assert feed.get("/metrics", password="wrong password").status == 403
    assert feed.get("/metrics", password=PASSWORD).status == 429


def test_metrics_are_for_this_machine(database_url: str) -> None:
    """Where it is trusted, a scraper on it needs no password."""
    with closing(FilledFeed(database_url, trust_loopback=True)) as feed:
        headers = {"Host": "127.0.0.1:8080"}
        assert feed.get("/metrics", client="127.0.0.1", headers=headers).status == 200
        assert feed.get("/metrics", client="192.0.2.1", headers=headers).status == 403
