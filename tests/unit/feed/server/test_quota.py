from apiban.feed.server import Quota
from hypothesis import given
from hypothesis import strategies as st


class Timer:
    """A timer that only a test moves."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Give the time."""
        return self.now


def test_so_many_and_no_more() -> None:
    """Five pass at once, and the sixth is told how long to wait."""
    quota = Quota(5, 120, Timer())
    assert [quota.take() for _ in range(7)] == [0, 0, 0, 0, 0, 120, 120]


def test_wait_ends_with_the_window_of_the_oldest() -> None:
    """The window slides: what was let through earliest is free first."""
    timer = Timer()
    quota = Quota(2, 120, timer)
    quota.take()
    timer.now += 50
    quota.take()
    assert quota.take() == 70
    timer.now += 69
    assert quota.take() == 1
    timer.now += 1
    assert quota.take() == 0
    assert quota.take() == 50


def test_refused_requests_do_not_count() -> None:
    """A client that knocks in vain is let in when its time has come."""
    timer = Timer()
    quota = Quota(1, 10, timer)
    quota.take()
    for _ in range(9):
        timer.now += 1
        assert quota.take() > 0
    timer.now += 1
    assert quota.take() == 0


def test_quotas_are_apart() -> None:
    """Each counts for itself."""
    timer = Timer()
    one, other = Quota(1, 10, timer), Quota(1, 10, timer)
    assert (one.take(), other.take()) == (0, 0)


# Quarters of a second are exact in binary.
@given(
    st.integers(1, 6),
    st.integers(1, 40),
    st.lists(st.integers(0, 30), max_size=60),
    st.integers(0, 10**6),
)
def test_never_more_than_the_limit_in_any_window(
    limit: int, window: int, pauses: list[int], begin: int
) -> None:
    """However the requests come, and each wait that is told is the shortest that helps."""
    timer = Timer(begin / 4)
    quota = Quota(limit, window / 4, timer)
    passed: list[float] = []
    for pause in pauses:
        timer.now += pause / 4
        recent = [one for one in passed if one > timer.now - window / 4]
        wait = quota.take()
        if wait == 0:
            passed.append(timer.now)
            assert len(recent) < limit
        else:
            assert len(recent) == limit
            assert wait == recent[0] + window / 4 - timer.now
