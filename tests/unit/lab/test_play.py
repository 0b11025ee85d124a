"""What came of a situation is held against what must have come."""

from __future__ import annotations

from dataclasses import replace

from apiban.lab.play import play
from apiban.lab.services import Services
from apiban.lab.situation import Expect, Situation

from tests.unit.lab.parts import CALLS, GOOD, PLAN, RESULT, outcome, report


def test_nothing_wrong() -> None:
    """A flood without an answer and calls that went well are no failure."""
    assert report(outcome(), outcome(CALLS, GOOD), expect=Expect(drops=1.0)).failures == ()


def test_one_lost_call_is_a_failure() -> None:
    """A good call that failed is said."""
    lost = replace(GOOD, calls_succeeded=99)
    (failure,) = report(outcome(), outcome(CALLS, lost)).failures
    assert "calls: 99 of 100" in failure


def test_drops_are_a_share_of_what_was_sent() -> None:
    """Less than the share fails; loads that may be answered do not count."""
    expect = Expect(drops=0.98)
    newcomer = outcome(replace(PLAN, answers="any"))
    assert report(outcome(), newcomer, expect=expect, dropped=4900).failures == ()
    (failure,) = report(outcome(), newcomer, expect=expect, dropped=4899).failures
    assert failure == "4899 dropped of 5000 packets of listed sources"


def test_events() -> None:
    """An event that must be there and is not, and one that must not be and is, are failures."""
    expect = Expect(events=("event=pass-held",))
    assert report(outcome(), expect=expect, events=("event=pass-held number=1",)).failures == ()
    assert report(outcome(), expect=expect).failures == ("the log has no event=pass-held",)
    fault = "event=fault what=gate"
    assert report(outcome(), events=(fault, fault)).failures == (f"the log has {fault}",)


def test_an_event_that_must_come_once() -> None:
    """None, and two, are failures."""
    expect, trouble = Expect(once=("event=feed-trouble",)), "event=feed-trouble state=outage"
    assert report(outcome(), expect=expect, events=(trouble,)).failures == ()
    for events in ((), (trouble, trouble)):
        (failure,) = report(outcome(), expect=expect, events=events).failures
        assert failure == f"the log has event=feed-trouble {len(events)} times, not once"


def test_a_kamailio_that_is_down_is_a_failure() -> None:
    """It is a row of the table, with nothing sent; the next situation is played."""
    situation = Situation("try", "a try", 1, (PLAN,), (), (), Expect())
    played = play(situation, Services(["false"], "no-project"))
    assert len(played.failures) == 1
    assert played.failures[0].startswith("false ps -a")


def test_the_time_limit() -> None:
    """What takes too long is a failure."""
    (failure,) = report(outcome(), expect=Expect(limit=5.0)).failures
    assert failure == "it took 6 s, more than 5"


def test_troubles_come_first() -> None:
    """A step that failed is said before what came of it."""
    found = report(outcome(result=replace(RESULT, messages_received=3)), troubles=("no feed",))
    assert found.failures[0] == "no feed"
    assert len(found.failures) == 2
