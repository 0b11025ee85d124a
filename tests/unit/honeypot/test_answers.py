"""Who proved nothing gets few answers, however many sources there are."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
from apiban.honeypot.answers import Answers, fits
from apiban.honeypot.bucket import Bucket
from apiban.honeypot.settings import AnswerSettings

from tests.support.clock import ManualClock


def budget(
    per_source: int = 10, overall: int = 200, window: int = 60
) -> tuple[Answers, ManualClock]:
    """Give a budget and its clock."""
    clock = ManualClock()
    return Answers(AnswerSettings(per_source, overall, window), clock.uptime), clock


def test_source_has_its_answers_in_a_window() -> None:
    """Then none, until the next window."""
    answers, clock = budget()
    assert [answers.take("192.0.2.1") for _ in range(12)] == [True] * 10 + [False] * 2
    assert answers.take("192.0.2.2")
    clock.tick(60)
    assert answers.take("192.0.2.1")


def test_all_sources_share_a_second() -> None:
    """However many they are."""
    answers, clock = budget()
    assert sum(answers.take(f"10.0.{n >> 8}.{n & 255}") for n in range(1000)) == 200
    clock.tick(1)
    assert answers.take("10.9.9.9")


def test_refused_answer_costs_others_nothing() -> None:
    """A source that has had its answers does not use up those of all."""
    answers, _ = budget(per_source=1, overall=3)
    assert sum(answers.take("192.0.2.1") for _ in range(100)) == 1
    assert answers.take("192.0.2.2")


def test_ipv6_network_is_one_source() -> None:
    """Of 64 bits: who has one has all of its addresses."""
    answers, _ = budget(per_source=2)
    took = [answers.take(f"2001:db8::{n:x}") for n in range(4)]
    assert took == [True, True, False, False]
    assert answers.take("2001:db8:0:1::1")


def test_memory_is_fixed() -> None:
    """A hundred thousand sources take what one takes."""
    answers, _ = budget()
    before = os.fstat(answers.handle).st_size
    for n in range(100_000):
        answers.take(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    assert os.fstat(answers.handle).st_size == before < 1 << 20


def test_counts_go_on_after_a_reload() -> None:
    """New code with the same memory knows what was answered."""
    answers, clock = budget(per_source=1)
    assert answers.take("192.0.2.1")
    again = Answers(answers.settings, clock.uptime, os.dup(answers.handle))
    assert not again.take("192.0.2.1")


def _by_four(answers: Answers, more: Callable[[int], bool]) -> int:
    """Let four processes ask for answers to one source; give how many they had together."""
    children = []
    for _ in range(4):
        ours, theirs = os.pipe()
        pid = os.fork()
        if not pid:
            asked = taken = 0
            while more(asked):
                asked += 1
                taken += answers.take("192.0.2.1")
            os.write(theirs, taken.to_bytes(4, "big"))
            os._exit(0)
        os.close(theirs)
        children.append((pid, ours))
    total = 0
    for pid, ours in children:
        os.waitpid(pid, 0)
        total += int.from_bytes(os.read(ours, 4), "big")
        os.close(ours)
    return total


def test_workers_at_once_take_no_more_than_there_is() -> None:
    """Four processes that ask for the same share it exactly."""
    answers, _ = budget(per_source=500, overall=1000)
    total = _by_four(answers, lambda asked: asked < 2000)
    assert total == 500


def test_workers_at_once_keep_to_each_second() -> None:
    """Also where one second ends and the next begins, on the real clock."""
    answers = Answers(AnswerSettings(10**6, 50, 60), time.monotonic)
    began = time.monotonic()
    total = _by_four(answers, lambda _: time.monotonic() < began + 3)
    assert 50 <= total <= 50 * (int(time.monotonic()) - int(began) + 1)


@pytest.mark.parametrize(("answer", "fitting"), [(1, True), (450, True), (451, False)])
def test_answer_is_no_larger_than_half_as_much_again(answer: int, *, fitting: bool) -> None:
    """As what was asked, of 300 bytes here."""
    assert fits(answer, 300) == fitting


def test_bucket() -> None:
    """Gives a second's worth at once, then as many as time passes; nothing at a rate of 0."""
    clock = ManualClock()
    bucket = Bucket(5.0, clock.uptime)
    assert sum(bucket.take() for _ in range(20)) == 5
    clock.tick(0.5)
    assert sum(bucket.take() for _ in range(20)) == 2
    clock.tick(1000)
    assert sum(bucket.take() for _ in range(20)) == 5
    assert not Bucket(0.0, clock.uptime).take()
