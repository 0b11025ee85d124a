"""The table has a row for each situation and load, and says why one failed."""

from __future__ import annotations

from dataclasses import replace

from apiban.lab.table import head, lines, verdict

from tests.unit.lab.parts import CALLS, GOOD, PLAN, RESULT, outcome, report


def test_a_row_has_its_numbers_under_their_heads() -> None:
    """Sent, dropped, good calls and the verdict stand in their columns."""
    whole, flood, calls = lines(report(outcome(), outcome(CALLS, GOOD), notes=()))
    for name, text in (("sent", "5000"), ("dropped", "5000"), ("good calls", "100/100")):
        assert whole[: head().index(name) + len(name)].endswith(text), name
    assert whole.endswith("pass in 6.0 s")
    assert flood[: head().index("rate/s") + 6].endswith("1000")
    assert calls[: head().index("answered") + 8].endswith("400")


def test_failures_and_notes_follow() -> None:
    """What was measured comes after the loads, then each failure."""
    bad = outcome(replace(PLAN, ipv6=True), replace(RESULT, messages_received=1))
    whole, flood, note, failure = lines(report(bad, notes=("enforced after 0.4 s",)))
    assert "FAIL" in whole
    assert "flood (attacker, udp6)" in flood
    assert note.strip() == "enforced after 0.4 s"
    assert failure.strip().startswith("FAILED: flood: 1 answers")


def test_a_load_without_numbers_has_a_row() -> None:
    """SIPp that left nothing is in the table, too."""
    rows = list(lines(report(outcome(result=None, trouble="it died"))))
    assert "no numbers" in rows[1]
    assert "FAILED: flood: it died" in rows[2]


def test_verdict() -> None:
    """It counts, and names what failed."""
    good, bad = report(outcome()), report(outcome(), troubles=("x",))
    assert verdict([good, good], 61.4) == "2 of 2 situations passed in 61 s"
    assert verdict([good, bad], 9.0) == "1 of 2 situations passed in 9 s; FAILED: try"
