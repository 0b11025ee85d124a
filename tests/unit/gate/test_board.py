import gc
import mmap
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from apiban.errors import BoardError
from apiban.gate import Board
from apiban.gate.board import (
    DROPPED,
    DROPPED_BY,
    DROPPED_DETECTOR,
    DROPPED_LOCAL,
    FAULTS,
    GENERATION,
    PASSED,
    SETTINGS,
    WOULD_DROP,
    Counts,
)
from apiban.snapshot import Origin

NOW = 1_800_000_000.0

# Later Pythons warn of a fork when any thread is alive: the children here do next to nothing.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def board() -> Board:
    """Give a board of this test's own."""
    return Board.unnamed(now=NOW)


def test_board_is_made_and_opened(tmp_path: Path) -> None:
    """Who opens the file sees the same words, and can change none."""
    path = tmp_path / "counters"
    made = Board.create(path, now=NOW)
    opened = Board.open(path)
    made.announce(5)
    assert opened.generation == 5
    with pytest.raises(TypeError):
        opened.announce_settings()
    assert made.words[SETTINGS] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["counters"]
    assert path.stat().st_mode & 0o007 == 0


def test_board_is_allocated_whole(tmp_path: Path) -> None:
    """A disk that fills up later cannot kill who writes a counter."""
    path = tmp_path / "counters"
    Board.create(path, now=NOW)
    status = path.stat()
    assert status.st_blocks * 512 >= status.st_size > 0


def test_new_board_begins_at_nothing(board: Board) -> None:
    """No generation, no counts, nobody signed in."""
    assert board.generation == 0
    assert board.slots() == []
    assert board.total() == Counts(0, 0, 0, 0)


def test_new_board_replaces_an_older_one_and_leaves_its_readers_alone(tmp_path: Path) -> None:
    """Whoever has the old one mapped keeps it; nothing is cut short under them."""
    path = tmp_path / "counters"
    old = Board.create(path, now=NOW)
    old.announce(5)
    new = Board.create(path, now=NOW)
    assert new.generation == 0
    assert Board.open(path).generation == 0
    assert old.generation == 5


def test_board_outlives_its_file(tmp_path: Path) -> None:
    """Removing the file changes nothing for who has it mapped."""
    path = tmp_path / "counters"
    board = Board.create(path, now=NOW)
    path.unlink()
    board.announce(3)
    assert Board(os.dup(board.handle)).generation == 3


def test_board_cannot_be_made_in_a_missing_folder(tmp_path: Path) -> None:
    """It is an error of ours, on one line."""
    with pytest.raises(BoardError, match="No such file") as caught:
        Board.create(tmp_path / "gone" / "counters", now=NOW)
    assert "\n" not in str(caught.value)


def test_full_disk_leaves_no_half_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is noticed before anybody maps it."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(BoardError, match="No space left"):
        Board.create(tmp_path / "counters", now=NOW)
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"", id="empty"),
        pytest.param(b"x" * 100, id="short"),
        pytest.param(bytes(1 << 20), id="no-magic"),
        pytest.param(b"\1\0NABIPA" + bytes(1 << 20), id="another-layout"),
    ],
)
def test_what_is_no_board_of_this_layout_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """Counters of another version are never read as if they were ours."""
    path = tmp_path / "counters"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BoardError):
        Board.open(path)


def test_refused_board_leaves_no_file_open(tmp_path: Path) -> None:
    """A tool that tries again and again does not run out of files."""
    path = tmp_path / "counters"
    path.write_bytes(bytes(1 << 20))
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(BoardError):
            Board.open(path)
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Slots -----------------------------------------------------------------------------------------


def test_each_rank_has_a_slot_of_its_own(board: Board) -> None:
    """Workers' words do not overlap, nor touch the head; the last slot is within the board."""
    at = [Board.slot_at(rank) for rank in range(512)]
    assert len(set(at)) == 512
    last = max(FAULTS, *DROPPED_BY)
    assert min(later - earlier for earlier, later in pairwise(at)) > last
    assert at[0] > 4096
    assert at[-1] + last < len(board.words)


@pytest.mark.parametrize(("rank", "same_as"), [(-4, 0), (-1, 0), (512, 511), (100_000, 511)])
def test_ranks_outside_share_the_first_or_the_last_slot(rank: int, same_as: int) -> None:
    """Main and timers see no packet; more workers than slots still have a place."""
    assert Board.slot_at(rank) == Board.slot_at(same_as)


def test_slots_tell_who_did_what(board: Board) -> None:
    """Process, rank, generation and counts."""
    board.take_slot(-1, 90)
    at = board.take_slot(3, 100)
    board.words[at + DROPPED] += 5
    board.words[at + WOULD_DROP] += 4
    board.words[at + PASSED] += 3
    board.words[at + FAULTS] += 2
    board.use(at, 7)
    timer, worker = board.slots()
    assert (timer.pid, timer.rank, timer.generation) == (90, 0, 0)
    assert (worker.pid, worker.rank, worker.generation) == (100, 3, 7)
    assert worker.counts == Counts(5, 4, 3, 2)


def test_counts_of_a_rank_go_on_with_its_next_process(board: Board) -> None:
    """A worker that is replaced, or reloaded, loses nothing."""
    at = board.take_slot(3, 100)
    board.words[at + DROPPED] = 5
    assert board.take_slot(3, 200) == at
    (slot,) = board.slots()
    assert (slot.pid, slot.counts.dropped) == (200, 5)


def test_total_is_the_sum_of_all(board: Board) -> None:
    """Over every slot, the first and the last too."""
    for rank in (0, 1, 511):
        at = board.take_slot(rank, rank + 1)
        board.words[at + DROPPED] = 10**12
        board.words[at + FAULTS] = rank
    assert board.total() == Counts(3 * 10**12, 0, 0, 512)
    assert board.total() - Counts(10**12, 0, 0, 500) == Counts(2 * 10**12, 0, 0, 12)


def test_drops_are_told_by_the_ban_that_caused_them(board: Board) -> None:
    """A slot's drops are the sum of three words; so are everybody's."""
    for rank in (0, 1):
        at = board.take_slot(rank, rank + 1)
        for word, number in ((DROPPED, 100), (DROPPED_LOCAL, 20), (DROPPED_DETECTOR, 3)):
            board.words[at + word] += number
    slot = board.slots()[1].counts
    assert (slot.dropped, slot.dropped_local, slot.dropped_detector) == (123, 20, 3)
    assert slot.dropped_feed == 100
    assert board.total() == board.front() + slot == Counts(246, 0, 0, 0, 40, 6)
    assert [DROPPED_BY[origin] for origin in Origin] == [DROPPED, DROPPED_LOCAL, DROPPED_DETECTOR]


def _in_child(work: Callable[[], int | None]) -> int:
    """Do something in a forked process, as Kamailio's workers are; give its status."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            status = work() or 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_forked_processes_share_the_words(board: Board) -> None:
    """What a worker counts is there for everybody, without a system call."""

    def count() -> None:
        at = board.take_slot(1, os.getpid())
        board.words[at + DROPPED] += 7
        board.announce(board.generation + 40)

    assert _in_child(count) == 0
    (slot,) = board.slots()
    assert slot.pid != os.getpid()
    assert (slot.rank, slot.counts.dropped) == (1, 7)
    assert board.words[GENERATION] == 40


def test_handle_gives_a_child_the_same_board(board: Board) -> None:
    """As the sync process gets it, by its number."""
    assert _in_child(lambda: Board(board.handle).announce(9)) == 0
    assert board.generation == 9


def test_programs_that_are_started_do_not_inherit_it(board: Board, tmp_path: Path) -> None:
    """Only who is given the number on purpose has it."""
    assert not os.get_inheritable(board.handle)
    assert not os.get_inheritable(Board.create(tmp_path / "counters", now=NOW).handle)


def test_words_are_a_shared_map(board: Board) -> None:
    """Not a private copy of the pages."""
    assert isinstance(board.words.obj, mmap.mmap)
    board.announce(11)
    assert int.from_bytes(os.pread(board.handle, 8, GENERATION * 8), "little") == 11


# First drops -----------------------------------------------------------------------------------


def _say(
    board: Board, fingerprint: int, now: float = NOW, *, limit: int = 10, rank: int = 1
) -> bool:
    """Do what the guard does with a source that it meets."""
    slot = Board.slot_at(rank)
    return board.claim(fingerprint, now=now, slot=slot) and board.may_say(
        fingerprint, now=now, slot=slot, interval=60.0, limit=limit
    )


def test_source_is_said_once_an_hour(board: Board) -> None:
    """Whichever worker meets it; in the next hour once more."""
    assert _say(board, 1)
    assert not _say(board, 1)
    assert not _say(board, 1, now=NOW + 1000)
    assert _say(board, 1, now=NOW + 3600)


def test_workers_share_what_was_said(board: Board) -> None:
    """Four workers that meet a source say one line."""
    said = [_in_child(lambda rank=rank: int(_say(board, 77, rank=rank))) for rank in range(1, 5)]  # type: ignore[misc]
    assert said == [1, 0, 0, 0]


def test_claims_of_the_same_moment_are_one_line(board: Board) -> None:
    """Two workers that both found the source new: the later claim is honoured alone."""
    first, second = Board.slot_at(1), Board.slot_at(2)
    assert board.claim(77, now=NOW, slot=first)
    met = board.words.tolist().index(77 << 32 | int(NOW // 3600) % 65536 << 16 | first)
    board.words[met] = 0  # as the second saw it
    assert board.claim(77, now=NOW, slot=second)
    said = [
        board.may_say(77, now=NOW, slot=slot, interval=60.0, limit=10) for slot in (first, second)
    ]
    assert said == [False, True]


def test_claim_without_a_line_is_not_counted(board: Board) -> None:
    """Only what is said takes from the limit."""
    assert board.claim(1, now=NOW, slot=Board.slot_at(1))
    assert not board.claim(1, now=NOW, slot=Board.slot_at(2))
    assert sum(_say(board, source) for source in range(100, 200)) == 10


def test_lines_of_an_interval_are_limited(board: Board) -> None:
    """A flood of sources is a handful of lines; the next interval has its own."""
    assert sum(_say(board, source) for source in range(1000)) == 10
    assert sum(_say(board, source, now=NOW + 60) for source in range(2000, 3000)) == 10


def test_limit_of_nothing_says_nothing(board: Board) -> None:
    """log.first_drops = 0 turns these lines off."""
    assert not any(_say(board, source, limit=0) for source in range(50))


def test_largest_limit_and_fingerprint_fit_their_words(board: Board) -> None:
    """No word overflows at the ends of what the settings allow."""
    assert sum(_say(board, 0xFFFF_FFFF - n, limit=1000) for n in range(4000)) == 1000
    assert _say(board, 5, now=2.0**40, limit=1)
    assert _say(board, 0, now=2.0**40 + 60, rank=511)


def test_sources_that_share_a_word_are_told_apart(board: Board) -> None:
    """They may be said again; one is never taken for the other."""
    assert _say(board, 1)
    assert _say(board, 1 + 4096)
    assert not _say(board, 1 + 4096)


def test_beat_of_the_sync_process(board: Board) -> None:
    """None before the first; it stands in the way of no other word."""
    assert board.beaten is None
    board.announce(7, position=9)
    board.beat(1234.5678)
    assert board.beaten == 1234.567
    assert (board.generation, board.position) == (7, 9)
