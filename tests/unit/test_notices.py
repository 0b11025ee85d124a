"""The lines from the workers, through the keeper's pipe, to the sync process."""

from __future__ import annotations

import os
import select
import sys
from unittest.mock import patch

import pytest
from apiban import ticks
from apiban.gate import Board
from apiban.kemi.keeper import Keeper
from apiban.notices import Notices, read_notice
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clock import ManualClock
from tests.support.log import MemoryLog
from tests.unit.kemi.parts import eventually


def test_lines_of_several_processes_stay_whole() -> None:
    """Each worker writes by itself; nobody's line is mixed with another's."""
    notices = Notices()
    children = []
    for number in range(4):
        child = os.fork()
        if not child:
            for count in range(20):
                notices.send("detected", {"by": number, "count": count, "fill": "x" * 500})
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    told = [read_notice(line) for line in notices.take()]
    assert len(told) == 80
    for number in range(4):
        assert [f["count"] for _, f in told if f["by"] == number] == list(range(20))


def test_full_pipe_keeps_nobody_waiting() -> None:
    """What does not fit is said to be lost; a line that is too long always is."""
    notices = Notices()
    sent = 0
    while notices.send("good", {"fill": "x" * 3000}):
        sent += 1
    assert sent >= 10
    assert not notices.send("good", {"fill": "x" * select.PIPE_BUF})
    lines = []
    while more := notices.take():
        lines += more
    assert len(lines) == sent
    assert notices.send("good", {})
    assert not notices.send("good", {"fill": "x" * select.PIPE_BUF})


def test_line_that_is_read_in_parts_is_one() -> None:
    """As where the kernel's pipe holds more than is read at once."""
    notices = Notices()
    notices.send("good", {"a": 1})
    notices.send("good", {"a": 2})
    lines = []
    with patch.object(sys.modules["apiban.notices"], "_CHUNK", 10):
        for _ in range(5):
            lines += notices.take()
    assert [read_notice(line) for line in lines] == [("good", {"a": 1}), ("good", {"a": 2})]


def test_pipe_goes_on_after_a_reload() -> None:
    """The new code takes the same one over."""
    first = Notices()
    first.send("good", {"a": 1})
    again = Notices(first.ends)
    assert [read_notice(line) for line in again.take()] == [("good", {"a": 1})]
    assert again.take() == []


def test_pipe_is_closed_with_its_last_owner() -> None:
    """Not while the code after a reload has it."""
    first = Notices()
    number = first.ends[0].number
    again = Notices(first.ends)
    del first
    assert again.send("good", {})
    del again
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


@given(st.text(), st.text())
def test_any_text_goes_through(name: str, value: str) -> None:
    """Line breaks, quotes, half surrogates aside."""
    notices = Notices()
    assert notices.send("good", {name: value})
    (line,) = notices.take()
    assert read_notice(line) == ("good", {name: value})


@pytest.mark.parametrize("line", [b"", b"good", b"good {", b"good []", b"good \xff", b"{}"])
def test_what_is_no_notice_is_refused(line: bytes) -> None:
    """With one kind of error."""
    with pytest.raises(ValueError):
        read_notice(line)


# Through the keeper ----------------------------------------------------------------------------

_CHILD = """
import sys
from apiban import ticks
ticks.run(lambda: None, effect="none", told=lambda lines: [
    ticks.say("page", told=line.decode()) for line in lines
])
"""


def test_keeper_hands_lines_on() -> None:
    """Also those that came before its child was there, in their order."""
    notices = Notices()
    printed: list[str] = []
    keeper = Keeper(
        command=[sys.executable, "-c", _CHILD],
        environ={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        board=Board.unnamed(now=0),
        clock=ManualClock(),
        log=MemoryLog(),
        print_line=lambda _, text: printed.append(text),
        summary_every=60.0,
        notices=notices.take,
    )
    notices.send("good", {"n": 1})
    keeper.tick()
    notices.send("good", {"n": 2})
    eventually(lambda: len(printed) == 2, keeper.tick)
    child = keeper._child
    keeper.stop()
    assert child is not None
    child.wait(10)
    assert "{\\x22n\\x22: 1}" in printed[0]
    assert "{\\x22n\\x22: 2}" in printed[1]


@given(
    st.lists(st.sampled_from([b".", b"good {}\n", b'good {"a": "..."}\n']), max_size=30),
    st.integers(1, 64),
)
def test_ticks_and_lines_share_a_pipe(parts: list[bytes], chunk: int) -> None:
    """However they are cut, each line comes whole and the ticks are no part of it."""
    told: list[bytes] = []
    ends = os.pipe()
    os.write(ends[1], b"".join(parts))
    os.close(ends[1])
    with (
        os.fdopen(ends[0]) as pipe,
        patch.object(sys, "stdin", pipe),
        patch.object(ticks, "_CHUNK", chunk),
    ):
        ticks.run(lambda: None, effect="none", told=told.extend)
    assert told == [part.rstrip(b"\n") for part in parts if part != b"."]
