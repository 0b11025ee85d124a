import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest
from apiban.gate import Board
from apiban.gate.board import DROPPED, FAULTS, PASSED
from apiban.kemi.keeper import ChildKeeper, Keeper
from apiban.log import Level

from tests.support.clock import ManualClock
from tests.support.log import MemoryLog
from tests.unit.kemi.parts import eventually

Make = Callable[..., "_Kept"]

# Children speak when they are spoken to: each read is a tick. One that is told to end may have a
# tick to answer that nobody hears any more.
_ECHO = """
import os
try:
    while data := os.read(0, 4096):
        os.write(1, b"info apiban: event=page ticks=%d\\n" % len(data))
except BrokenPipeError:
    pass
"""
_MUTE = "import os\nwhile os.read(0, 4096): pass"


class _Kept:
    """A keeper of a small program."""

    def __init__(self, script: str, command: list[str] | None = None) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog()
        self.board = Board.unnamed(now=0)
        self.printed: list[tuple[Level, str]] = []
        self.keeper = Keeper(
            command=command or [sys.executable, "-I", "-S", "-c", script],
            environ={"PATH": os.environ["PATH"], "GIVEN": "yes"},
            board=self.board,
            clock=self.clock,
            log=self.log,
            print_line=lambda level, text: self.printed.append((level, text)),
            summary_every=60.0,
        )

    def until(self, true: Callable[[], bool]) -> None:
        eventually(true, self.keeper.tick)

    def texts(self) -> list[str]:
        return [text for _, text in self.printed]

    def end(self) -> None:
        """Let the child go, and wait for it."""
        child = self.keeper._child
        self.keeper.stop()
        if child is not None:
            child.wait(10)
            if child.stdout is not None:
                child.stdout.close()


@pytest.fixture
def keep() -> Iterator[Make]:
    """Make keepers whose children end with the test."""
    made: list[_Kept] = []

    def make(script: str, command: list[str] | None = None) -> _Kept:
        made.append(_Kept(script, command))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_ticks_arrive_and_lines_are_printed(keep: Make) -> None:
    """At the level that the child names, without its word for it."""
    kept = keep(_ECHO)
    kept.until(lambda: len(kept.printed) >= 3)
    assert {level for level, _ in kept.printed} == {"info"}
    assert all(text.startswith("apiban: event=page ticks=") for text in kept.texts())
    assert kept.log.names() == []


def test_child_has_the_board_and_the_environment_given(keep: Make) -> None:
    """The last arguments name the board's open file, which is the same memory."""
    kept = keep(
        "import os, sys\n"
        "fd = int(sys.argv[sys.argv.index('--board') + 1])\n"
        "os.pwrite(fd, (41).to_bytes(8, sys.byteorder), 8)\n"
        "print('info apiban: event=page', os.environ['GIVEN'], os.getcwd(), flush=True)\n" + _MUTE
    )
    kept.until(lambda: bool(kept.printed))
    assert kept.board.generation == 41
    assert kept.texts() == ["apiban: event=page yes /"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"Traceback (most recent call last):", id="stranger"),
        pytest.param(b"info forged=line", id="no-prefix"),
        pytest.param(b"shout apiban: event=x", id="unknown-level"),
        pytest.param(b"\x1b[2J\xff\xfe\x00 binary", id="binary"),
        pytest.param(b"", id="empty"),
    ],
)
def test_garbage_is_passed_on_as_garbage(keep: Make, data: bytes) -> None:
    """What is no line of ours is said as the child's output, escaped and cut."""
    kept = keep(f"import os\nos.write(2, {data!r} + b'\\n')\n" + _MUTE)
    kept.until(lambda: bool(kept.log.entries or kept.printed))
    assert kept.printed == []
    assert kept.log.names() == ["sync-output"]


def test_line_without_an_end_is_bounded(keep: Make) -> None:
    """A child that never breaks its line does not fill Kamailio's memory."""
    kept = keep("import os\nfor _ in range(15): os.write(1, b'x' * 4000)\n" + _MUTE)
    kept.until(lambda: bool(kept.keeper._rest))
    for _ in range(100):
        kept.keeper.tick()
        assert len(kept.keeper._rest) <= 1000
    assert kept.log.names() == []


def test_flood_of_lines_is_cut_a_tick(keep: Make) -> None:
    """One tick prints a few lines at most."""
    kept = keep("import os\nos.write(1, b'info apiban: event=page\\n' * 2000)\n" + _MUTE)
    most = 0

    def tick() -> None:
        nonlocal most
        before = len(kept.printed)
        kept.keeper.tick()
        most = max(most, len(kept.printed) - before)

    eventually(lambda: most > 0, tick)
    assert most <= 20


def test_busy_child_does_not_hold_up_the_tick(keep: Make) -> None:
    """A pipe that is full is not waited for."""
    kept = keep("import time\ntime.sleep(60)")
    for _ in range(70_000):
        kept.keeper.tick()
    child = kept.keeper._child
    assert child is not None
    child.kill()


def test_killed_child_is_started_again_after_a_pause(keep: Make) -> None:
    """Not before; and the new one is ticked."""
    kept = keep(_ECHO)
    kept.until(lambda: bool(kept.printed))
    first = kept.keeper.pid
    assert first is not None
    os.kill(first, 9)
    kept.until(lambda: kept.keeper.pid is None)
    assert kept.log.fields("sync-ended") == [{"status": -9, "next_try_in": 0.5}]
    for _ in range(20):
        kept.keeper.tick()
    assert kept.keeper.pid is None
    kept.clock.tick(0.5)
    kept.printed.clear()
    kept.until(lambda: bool(kept.printed))
    assert kept.keeper.pid != first


def _pauses(kept: _Kept, times: int, lived: float = 0.0) -> list[object]:
    """Let the child end some times; give the pauses that were said."""
    while len(kept.log.fields("sync-ended")) < times:
        before = len(kept.log.fields("sync-ended"))
        kept.keeper.tick()
        kept.clock.tick(lived)
        kept.until(lambda before=before: len(kept.log.fields("sync-ended")) > before)  # type: ignore[misc]
        kept.clock.tick(60)
    return [said["next_try_in"] for said in kept.log.fields("sync-ended")]


def test_pause_grows_up_to_a_minute_for_a_child_that_fails(keep: Make) -> None:
    """A child that cannot work is not started all the time."""
    kept = keep("raise SystemExit(1)")
    assert _pauses(kept, 9) == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert {said["status"] for said in kept.log.fields("sync-ended")} == {1}


def test_pause_of_a_child_that_is_killed_stays_short(keep: Make) -> None:
    """Nothing is wrong with it."""
    kept = keep("import os\nos.kill(os.getpid(), 9)")
    assert _pauses(kept, 5) == [0.5, 1.0, 2.0, 2.0, 2.0]


def test_pause_is_short_again_after_a_good_time(keep: Make) -> None:
    """A child that worked for a while begins with the shortest pause."""
    kept = keep("import os\nos.read(0, 1)\nraise SystemExit(1)")
    assert _pauses(kept, 3, lived=11.0) == [0.5, 0.5, 0.5]


def test_command_that_does_not_exist_is_said_and_tried_again(keep: Make) -> None:
    """With the same pauses; the tick raises nothing."""
    kept = keep("", ["/no-such-folder/python3"])
    for _ in range(100):
        kept.keeper.tick()
    assert len(kept.log.fields("sync-ended")) == 1
    assert kept.keeper.pid is None
    for _ in range(3):
        kept.clock.tick(60)
        kept.keeper.tick()
    assert [said["next_try_in"] for said in kept.log.fields("sync-ended")] == [0.5, 1.0, 2.0, 4.0]


def test_half_a_line_of_a_child_is_not_joined_to_the_next_ones(keep: Make) -> None:
    """What a killed child did not end is no part of what the next one says."""
    kept = keep("import os\nos.write(1, b'whole\\nhalf')")
    _pauses(kept, 3)
    assert {said["text"] for said in kept.log.fields("sync-output")} == {"whole"}


def test_last_words_are_printed(keep: Make) -> None:
    """What a child wrote before it ended is not lost."""
    kept = keep("print('err apiban: event=fault what=last-words')")
    kept.until(lambda: bool(kept.log.fields("sync-ended")))
    assert kept.printed == [("err", "apiban: event=fault what=last-words")]


def test_burst_of_lines_is_printed_over_the_next_ticks(keep: Make) -> None:
    """Lines of ours are put off, or their number is said; they do not vanish."""
    kept = keep(
        "import os\nlines = [b'info apiban: event=page n=%d\\n' % n for n in range(60)]\n"
        "os.write(1, b''.join(lines))\n" + _MUTE
    )
    kept.until(lambda: bool(kept.printed))
    for _ in range(100):
        kept.keeper.tick()
    assert len(kept.printed) == 60


def test_stop_ends_the_child(keep: Make) -> None:
    """Its input ends, and so does it."""
    kept = keep(_ECHO)
    kept.until(lambda: bool(kept.printed))
    child = kept.keeper._child
    assert child is not None
    kept.keeper.stop()
    assert kept.keeper.pid is None
    assert child.wait(10) == 0
    assert child.stdout is not None
    child.stdout.close()


def test_stop_without_a_child_is_nothing(keep: Make) -> None:
    """Every process but rtimer's has none."""
    kept = keep(_ECHO)
    kept.keeper.stop()
    kept.keeper.stop()


# A child that hangs ------------------------------------------------------------------------------


def _seconds(kept: _Kept, seconds: int, each: Callable[[], object] = lambda: None) -> None:
    """Tick once a second for a while."""
    for _ in range(seconds):
        kept.clock.tick(1)
        each()
        kept.keeper.tick()


def test_child_that_is_silent_is_killed_and_started_again(keep: Make) -> None:
    """After half a minute of ticks, with one line that says so."""
    kept = keep(_MUTE)
    kept.keeper.tick()
    first = kept.keeper.pid
    _seconds(kept, 29)
    assert kept.keeper.pid == first
    assert kept.log.names() == []
    _seconds(kept, 1)
    kept.until(lambda: kept.keeper.pid is None)
    said = {"status": -9, "next_try_in": 0.5, "reason": "silent"}
    assert kept.log.fields("sync-ended") == [said]
    _seconds(kept, 29)  # the next one has as long
    assert kept.keeper.pid not in {None, first}
    assert kept.log.fields("sync-ended") == [said]


def test_child_that_is_stopped_is_killed(keep: Make) -> None:
    """Which no other signal would do; what it says of its end names the reason."""
    kept = keep(_ECHO)
    kept.until(lambda: bool(kept.printed))
    assert kept.keeper.pid is not None
    os.kill(kept.keeper.pid, signal.SIGSTOP)
    _seconds(kept, 31)
    kept.until(lambda: bool(kept.log.fields("sync-ended")))
    assert kept.log.fields("sync-ended")[0]["reason"] == "silent"


def test_child_that_says_something_now_and_then_is_let_be(keep: Make) -> None:
    """A long tick is none that hangs."""
    kept = keep(_MUTE)
    kept.keeper.tick()
    for _ in range(5):
        _seconds(kept, 29)
        kept.board.beat(kept.clock.uptime())
    kept.keeper.tick()
    assert kept.log.names() == []


def test_time_in_which_nobody_ticked_is_not_the_childs(keep: Make) -> None:
    """Kamailio stood still, or the machine slept."""
    kept = keep(_MUTE)
    kept.keeper.tick()
    _seconds(kept, 20)
    kept.clock.tick(3600)
    kept.keeper.tick()
    assert not kept.keeper._was_silent
    _seconds(kept, 29)
    assert kept.log.names() == []
    _seconds(kept, 1)
    kept.until(lambda: bool(kept.log.fields("sync-ended")))


def test_child_that_hangs_does_not_outlive_a_stop(keep: Make) -> None:
    """Its lock would keep the next one from syncing; it does not see the end of its input."""
    kept = keep(_ECHO)
    kept.until(lambda: bool(kept.printed))
    child = kept.keeper._child
    assert child is not None
    os.kill(child.pid, signal.SIGSTOP)
    _seconds(kept, 16)
    kept.keeper.stop()
    assert child.wait(10) == -9
    assert child.stdout is not None
    child.stdout.close()


def test_child_of_another_kind_may_be_silent(keep: Make) -> None:
    """The honeypot's reporter says nothing on the board, and waits for its feed."""
    kept = keep(_MUTE)
    kept.keeper = ChildKeeper(  # type: ignore[assignment]
        command=[sys.executable, "-I", "-S", "-c", _MUTE],
        environ={"PATH": os.environ["PATH"]},
        board=kept.board,
        clock=kept.clock,
        log=kept.log,
        print_line=lambda *_: None,
        ended="report-ended",
        output="report-output",
    )
    kept.keeper.tick()
    child = kept.keeper._child
    assert child is not None
    _seconds(kept, 400)
    assert child.poll() is None
    child.kill()


# The summary -----------------------------------------------------------------------------------


def test_summary_says_what_is_new_an_interval(keep: Make) -> None:
    """Differences, with the total of drops; nothing when nothing happened."""
    kept = keep(_MUTE)
    at = kept.board.take_slot(1, 100)
    kept.board.words[at + DROPPED] += 5
    kept.board.words[at + PASSED] += 3
    kept.keeper.tick()
    assert kept.log.names() == []
    kept.clock.tick(60)
    kept.keeper.tick()
    kept.board.words[at + DROPPED] += 2
    kept.board.words[at + FAULTS] += 1
    kept.clock.tick(60)
    kept.keeper.tick()
    first, second = kept.log.fields("summary")
    assert (first["dropped"], first["passed"], first["faults"]) == (5, 3, 0)
    assert (second["dropped"], second["passed"], second["faults"]) == (2, 0, 1)
    assert (first["dropped_since_start"], second["dropped_since_start"]) == (5, 7)


def test_summary_of_good_calls_alone_is_none(keep: Make) -> None:
    """A quiet node is quiet in the log."""
    kept = keep(_MUTE)
    kept.board.words[kept.board.take_slot(1, 100) + PASSED] += 3
    kept.clock.tick(60)
    kept.keeper.tick()
    assert kept.log.names() == []


def test_interval_of_the_summary_can_change(keep: Make) -> None:
    """From the next summary on."""
    kept = keep(_MUTE)
    at = kept.board.take_slot(1, 100)
    kept.keeper.summary_every = 5.0
    kept.clock.tick(60)
    kept.keeper.tick()
    kept.board.words[at + DROPPED] += 1
    kept.clock.tick(5)
    kept.keeper.tick()
    assert len(kept.log.fields("summary")) == 1
