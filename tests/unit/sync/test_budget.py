import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from apiban.store import Store
from apiban.sync.budget import Budget
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.clock import ManualClock

LIMIT = 3
WINDOW = 120.0
TIMEOUT = 30.0


class _Walk:
    """A client that obeys its budget, and a server that counts in true time.

    The server counts each request at any moment between its sending and its end: the answer, the
    deadline when nobody waits any more, or the machine's own end.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.clock = ManualClock()
        self.true = 0.0
        self.counted: list[float] = []
        self.start()

    def start(self) -> None:
        self.budget = Budget(self._store, self.clock, "feed", limit=LIMIT, window=WINDOW)

    def pass_time(self, seconds: float) -> None:
        self.true += seconds
        self.clock.tick(seconds)

    def send(self, took: float, counted_after: float, *, dies_after: float | None) -> None:
        """Send if the budget has room; the answer comes after ``took``, unless we die first."""
        if self.budget.wait() > 0:
            return
        number = self.budget.spend(TIMEOUT)
        assert number is not None
        if dies_after is None:
            self.counted.append(self.true + min(counted_after, took))
            self.pass_time(took)
            self.budget.settle(number)
        else:
            self.counted.append(self.true + counted_after)
            self.pass_time(min(dies_after, took))
            self.start()

    def spend(self) -> None:
        """Send, and have the answer at once."""
        number = self.budget.spend(TIMEOUT)
        assert number is not None
        self.budget.settle(number)

    def wait_as_told(self) -> None:
        wait = self.budget.wait()
        assert 0 <= wait <= WINDOW + TIMEOUT
        self.pass_time(wait)
        assert self.budget.wait() == 0

    def reboot(self, down: float, uptime: float) -> None:
        """Lose power: what the server did not count by then it never will."""
        self.counted = [min(at, self.true) for at in self.counted]
        self.true += down + uptime
        self.clock.reboot(uptime)
        self.clock.set_wall(self.clock.now() + down)
        self.start()

    def most_in_a_window(self) -> int:
        times = sorted(self.counted)
        return max(
            (sum(start <= at < start + WINDOW for at in times) for start in times), default=0
        )


@contextmanager
def _walk() -> Iterator[_Walk]:
    with TemporaryDirectory() as folder, Store(Path(folder) / "store.db") as store:
        store._db.execute("PRAGMA synchronous=OFF")  # no power is lost here
        yield _Walk(store)


# Quarters of seconds are exact in floating point.
_seconds = st.integers(0, int(TIMEOUT) * 4).map(lambda quarters: quarters / 4)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), _seconds, _seconds),
        st.tuples(st.just("send"), _seconds, _seconds),
        st.tuples(st.just("die"), _seconds, _seconds, _seconds),
        st.tuples(st.just("wait"), st.integers(0, 600).map(lambda quarters: quarters / 4)),
        st.tuples(st.just("wait-as-told")),
        st.tuples(st.just("restart")),
        st.tuples(st.just("set-wall"), st.sampled_from([0.0, 1e9, 1.8e9 - 50, 1.8e9 + 50, 4e9])),
        st.tuples(st.just("reboot"), _seconds, _seconds),
    ),
    min_size=5,
    max_size=40,
)


def _play(walk: _Walk, steps: list[tuple[object, ...]]) -> None:
    for verb, *values in steps:
        numbers = [value for value in values if isinstance(value, float)]
        if verb == "send":
            walk.send(numbers[0], numbers[1], dies_after=None)
        elif verb == "die":
            walk.send(numbers[0], numbers[1], dies_after=numbers[2])
        elif verb == "wait":
            walk.pass_time(numbers[0])
        elif verb == "wait-as-told":
            walk.wait_as_told()
        elif verb == "restart":
            walk.start()
        elif verb == "set-wall":
            walk.clock.set_wall(numbers[0])
        else:
            walk.reboot(numbers[0], numbers[1])


@settings(max_examples=250, deadline=None)
@given(_steps)
def test_server_never_counts_more_than_the_limit_in_any_window(
    steps: list[tuple[object, ...]],
) -> None:
    """Whatever dies, restarts, reboots or is set meanwhile."""
    with _walk() as walk:
        _play(walk, steps)
        assert walk.most_in_a_window() <= LIMIT


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_seconds, _seconds, st.booleans()), min_size=8, max_size=20))
def test_server_never_counts_more_from_a_client_that_hurries(
    requests: list[tuple[float, float, bool]],
) -> None:
    """A client that sends whenever it may, and dies at times, stays within the limit too."""
    with _walk() as walk:
        for took, counted_after, dies in requests:
            walk.wait_as_told()
            walk.send(took, counted_after, dies_after=took / 2 if dies else None)
        assert len(walk.counted) == len(requests)
        assert walk.most_in_a_window() <= LIMIT


def test_model_can_fail() -> None:
    """The server of these tests does notice a client without a budget."""
    with _walk() as walk:
        walk.budget._wait = lambda _: 0.0  # type: ignore[method-assign]
        for _ in range(LIMIT + 1):
            walk.send(1.0, 0.0, dies_after=None)
        assert walk.most_in_a_window() == LIMIT + 1


@pytest.fixture
def walk() -> Iterator[_Walk]:
    """Give a walk of its own to each test."""
    with _walk() as made:
        yield made


def test_limit_is_used_to_the_full(walk: _Walk) -> None:
    """As many as are allowed go out at once, and the next when the first has left the window."""
    for _ in range(LIMIT):
        assert walk.budget.wait() == 0
        walk.spend()
    assert walk.budget.wait() == WINDOW
    walk.pass_time(WINDOW - 1)
    assert walk.budget.wait() == 1
    walk.pass_time(1)
    assert walk.budget.wait() == 0


def test_wait_ends_when_the_oldest_request_leaves_the_window(walk: _Walk) -> None:
    """Not when all of them do."""
    for _ in range(LIMIT):
        walk.spend()
        walk.pass_time(10)
    for wait in (WINDOW - 10 * LIMIT, 10, 10):
        assert walk.budget.wait() == wait
        walk.wait_as_told()
        walk.spend()


def test_unanswered_request_counts_from_its_deadline(walk: _Walk) -> None:
    """The feed may count a request whose sender died as late as its deadline."""
    for _ in range(LIMIT):
        walk.budget.spend(TIMEOUT)
    walk.start()
    assert walk.budget.wait() == WINDOW + TIMEOUT


def test_wall_clock_frees_nothing(walk: _Walk) -> None:
    """Setting the clock by years either way changes no wait."""
    for _ in range(LIMIT):
        walk.spend()
    for wall in (0.0, 1e12):
        walk.clock.set_wall(wall)
        assert walk.budget.wait() == WINDOW


def test_reboot_waits_for_a_window_of_uptime(walk: _Walk) -> None:
    """After a reboot an older request is taken to be as young as the boot allows."""
    for _ in range(LIMIT):
        walk.spend()
    walk.reboot(down=0.0, uptime=20.0)
    assert walk.budget.wait() == WINDOW - 20
    walk.pass_time(WINDOW - 20)
    assert walk.budget.wait() == 0


def test_requests_out_of_the_window_are_forgotten(walk: _Walk) -> None:
    """The store holds no more than what still counts."""
    for _ in range(50):
        walk.wait_as_told()
        walk.send(1.0, 0.0, dies_after=None)
    assert len(walk._store.requests("feed")) <= LIMIT + 1


def test_feeds_have_budgets_of_their_own(walk: _Walk) -> None:
    """What one feed was asked does not count against another."""
    for _ in range(LIMIT):
        walk.budget.spend(TIMEOUT)
    other = Budget(walk._store, walk.clock, "other", limit=LIMIT, window=WINDOW)
    assert other.wait() == 0


class _NamelessBoots(ManualClock):
    """A host that hides its boot id (such as a unit with ProcSubset=pid)."""

    def boot(self) -> str:
        return "unknown"


def test_reboot_without_a_boot_id_does_not_block_the_feed(walk: _Walk) -> None:
    """A time further ahead than any deadline is of an earlier boot, whatever its name."""
    walk.clock = _NamelessBoots(uptime=50 * 86400.0)
    walk.start()
    for _ in range(LIMIT):
        walk.spend()
    walk.clock.reboot(uptime=10.0)
    walk.start()
    assert walk.budget.wait() <= WINDOW + TIMEOUT


def test_what_is_left_is_told(walk: _Walk) -> None:
    """It comes back as the requests leave the window; what the feed asks for leaves nothing."""
    assert walk.budget.left() == LIMIT
    walk.spend()
    walk.pass_time(10)
    walk.spend()
    assert walk.budget.left() == LIMIT - 2
    walk.pass_time(WINDOW - 10)
    assert walk.budget.left() == LIMIT - 1
    walk.budget.rest(300)
    assert walk.budget.left() == 0


def test_spent_budget_gives_no_number(walk: _Walk) -> None:
    """Another process may have spent the last one since ``wait`` was asked."""
    other = Budget(walk._store, walk.clock, "feed", limit=LIMIT, window=WINDOW)
    for _ in range(LIMIT):
        assert walk.budget.wait() == 0
        assert other.spend(TIMEOUT) is not None
    assert walk.budget.spend(TIMEOUT) is None
    assert len(walk._store.requests("feed")) == LIMIT


_SPEND = """
import sys
from pathlib import Path
from apiban.clock import SystemClock
from apiban.store import Store
from apiban.sync.budget import Budget
with Store(Path(sys.argv[1])) as store:
    budget = Budget(store, SystemClock(), "feed", limit=7, window=120.0)
    print("ready", flush=True)
    sys.stdin.read()
    print(sum(budget.spend(30.0) is not None for _ in range(7)))
"""


def test_processes_at_once_never_spend_more_than_there_is(tmp_path: Path) -> None:
    """The last request goes to one of them: real processes, each of which would take all."""
    path = tmp_path / "store.db"
    Store(path).close()
    command = [sys.executable, "-c", _SPEND, str(path)]
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            for _ in range(3)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.close()
        spent = [int(child.stdout.read()) for child in children if child.stdout is not None]
    assert sum(spent) == 7
    with Store(path) as store:
        assert len(store.requests("feed")) == 7
