import threading
import time

import pytest
from apiban.errors import FeedInvalid, FeedOutage
from apiban.feed.answer import EndOfList
from apiban.sync.exchange import Answer, ThreadExchange


def _wait(exchange: ThreadExchange) -> Answer:
    end = time.monotonic() + 10
    while (answer := exchange.answer()) is None:
        assert time.monotonic() < end
        time.sleep(0.001)
    return answer


def test_answer_is_there_once_and_not_before() -> None:
    """The tick never waits, and each answer is taken once."""
    go = threading.Event()

    def question() -> EndOfList:
        assert go.wait(10)
        return EndOfList()

    exchange = ThreadExchange()
    assert exchange.answer() is None
    exchange.ask(question)
    assert exchange.answer() is None
    go.set()
    assert _wait(exchange) == EndOfList()
    assert exchange.answer() is None


def test_error_of_the_feed_comes_back_as_a_value() -> None:
    """Its type is kept."""

    def question() -> EndOfList:
        raise FeedInvalid("x")

    exchange = ThreadExchange()
    exchange.ask(question)
    assert isinstance(_wait(exchange), FeedInvalid)


def test_unforeseen_error_is_an_outage_without_its_text() -> None:
    """The text of a stranger's exception may hold the key."""

    def question() -> EndOfList:
        raise RuntimeError("https://feed/s3cret/banned")

    exchange = ThreadExchange()
    exchange.ask(question)
    answer = _wait(exchange)
    assert isinstance(answer, FeedOutage)
    assert "s3cret" not in str(answer)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_thread_that_dies_is_an_outage() -> None:
    """A question that ends its thread cannot leave the sync waiting for ever."""

    def question() -> EndOfList:
        raise SystemExit

    exchange = ThreadExchange()
    exchange.ask(question)
    assert isinstance(_wait(exchange), FeedOutage)
