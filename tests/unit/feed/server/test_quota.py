from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from apiban.feed.server.database import Database
from apiban.feed.server.keys import KeyRecord, Keys
from apiban.feed.server.quota import Quota
from apiban.feed.server.service import Service
from apiban.settings import Secret
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.clock import ManualClock


def key(service: Service, name: str = "one", **quota: int) -> KeyRecord:
    """Make a key, and give its record."""
    service.keys.create(name, **quota)
    return next(record for record in service.keys.records() if record.name == name)


def quota_of(service: Service, limit: int, window: float) -> Quota:
    """Give a quota for keys that have none of their own."""
    return Quota(service.database, service.now, requests=limit, seconds=window)


def test_so_many_and_no_more(service: Service) -> None:
    """Five pass at once, and the sixth is told how long to wait."""
    quota, one = quota_of(service, 5, 120), key(service)
    assert [quota.take(one) for _ in range(7)] == [0, 0, 0, 0, 0, 120, 120]


def test_wait_ends_with_the_window_of_the_oldest(service: Service, clock: ManualClock) -> None:
    """The window slides: what was let through earliest is free first."""
    quota, one = quota_of(service, 2, 120), key(service)
    quota.take(one)
    clock.tick(50)
    quota.take(one)
    assert quota.take(one) == 70
    clock.tick(69)
    assert quota.take(one) == 1
    clock.tick(1)
    assert quota.take(one) == 0
    assert quota.take(one) == 50


def test_refused_requests_do_not_count(service: Service, clock: ManualClock) -> None:
    """A client that knocks in vain is let in when its time has come."""
    quota, one = quota_of(service, 1, 10), key(service)
    quota.take(one)
    for _ in range(9):
        clock.tick(1)
        assert quota.take(one) > 0
    clock.tick(1)
    assert quota.take(one) == 0


def test_keys_are_apart(service: Service) -> None:
    """Each counts for itself."""
    quota = quota_of(service, 1, 10)
    assert (quota.take(key(service, "one")), quota.take(key(service, "other"))) == (0, 0)


def test_count_outlives_the_process(service: Service) -> None:
    """Another process over the same database knows of the requests."""
    one = key(service)
    assert [quota_of(service, 2, 120).take(one) for _ in range(3)] == [0, 0, 120]


def test_clock_that_is_set_back_frees_nothing(service: Service, clock: ManualClock) -> None:
    """Nor does it lock a key out for longer than a window."""
    quota, one = quota_of(service, 1, 120), key(service)
    quota.take(one)
    clock.set_wall(clock.now() - 86400)
    assert quota.take(one) == 120
    clock.tick(119)
    assert quota.take(one) == 1
    clock.tick(1)
    assert quota.take(one) == 0


def test_key_with_a_quota_of_its_own(service: Service) -> None:
    """It holds instead of the default; 0 is no limit."""
    quota = quota_of(service, 1, 120)
    own, free = key(service, "own", requests=2, seconds=10), key(service, "free", requests=0)
    assert [quota.take(own) for _ in range(3)] == [0, 0, 10]
    assert [quota.take(free) for _ in range(20)] == [0] * 20


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4), (3, 3), (5, 1)])
def test_changed_quota_counts_what_was(
    service: Service, clock: ManualClock, before: int, after: int
) -> None:
    """Neither more nor fewer requests pass for it; the newest ones are those that count."""
    one = key(service)
    for _ in range(before):
        assert quota_of(service, before, 120).take(one) == 0
        clock.tick(1)
    quota = quota_of(service, after, 120)
    for _ in range(after - before):
        assert quota.take(one) == 0
    assert quota.take(one) == 120 - min(before, after)
    clock.tick(121)
    assert [quota.take(one) for _ in range(after + 1)] == [0] * after + [120]


def test_use_is_counted(service: Service, clock: ManualClock) -> None:
    """Requests that passed, and when the last one did."""
    quota = quota_of(service, 2, 120)
    one = key(service)
    for _ in range(5):
        quota.take(one)
    record = service.keys.records()[0]
    assert (record.used, record.last_used) == (2, clock.now())


def test_key_without_a_limit_is_counted_too(service: Service, clock: ManualClock) -> None:
    """Once a second, so that a busy client does not keep the database busy."""
    quota, free = quota_of(service, 2, 120), key(service, requests=0)
    for _ in range(10):
        quota.take(free)
    assert service.keys.records()[0].used == 1
    clock.tick(1)
    quota.take(free)
    record = service.keys.records()[0]
    assert (record.used, record.last_used) == (11, clock.now())


# Quarters of a second are exact in binary.
@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 6),
    st.integers(1, 40),
    st.lists(st.integers(0, 30), max_size=30),
)
def test_never_more_than_the_limit_in_any_window(
    limit: int, window: int, pauses: list[int]
) -> None:
    """However the requests come, and each wait that is told is the shortest that helps."""
    clock = ManualClock()
    with (
        TemporaryDirectory() as folder,
        Database(Secret(f"sqlite:////{Path(folder).relative_to('/')}/feed.db")) as database,
    ):
        keys = Keys(database, clock.now)
        keys.create("one")
        one = keys.records()[0]
        quota = Quota(database, clock.now, requests=limit, seconds=window / 4)
        passed: list[float] = []
        for pause in pauses:
            clock.tick(pause / 4)
            recent = [at for at in passed if at > clock.now() - window / 4]
            wait = quota.take(one)
            if wait == 0:
                passed.append(clock.now())
                assert len(recent) < limit
            else:
                assert len(recent) == limit
                assert wait == recent[0] + window / 4 - clock.now()
