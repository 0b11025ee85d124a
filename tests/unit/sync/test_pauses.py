import pytest
from apiban.sync.pauses import Pauses

DAY = 86400.0


def test_pauses_double_up_to_the_ceiling() -> None:
    """They grow, and then stay."""
    pauses = Pauses(lambda: 0.0, first=10.0, ceiling=60.0)
    assert [pauses.after_failure() for _ in range(5)] == [10.0, 20.0, 40.0, 60.0, 60.0]


def test_success_begins_anew() -> None:
    """One good answer, and the next failure is the first again."""
    pauses = Pauses(lambda: 0.0)
    first = pauses.after_failure()
    pauses.after_failure()
    pauses.success()
    assert pauses.after_failure() == first


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("asked_for", [0.0, 5.0, 300.0, 3600.0])
def test_jitter_only_ever_lengthens(jitter: float, asked_for: float) -> None:
    """What the feed asked for is a floor; jitter adds a quarter at most."""
    pause = Pauses(lambda: jitter).after_failure(asked_for)
    floor = max(10.0, asked_for)
    assert floor <= pause <= floor * 1.25


def test_feed_cannot_send_us_away_for_longer_than_a_day() -> None:
    """An absurd Retry-After is cut."""
    assert Pauses(lambda: 0.0).after_failure(10 * DAY) == DAY


def test_very_many_failures_are_a_pause_like_the_others() -> None:
    """The power does not overflow."""
    pauses = Pauses(lambda: 0.0, failures=10_000)
    assert pauses.after_failure() == 900.0
