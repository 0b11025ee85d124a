"""The table that ``bin/lab check`` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from apiban.lab.loads import Outcome
from apiban.lab.play import Report

__all__ = ["head", "lines", "verdict"]


def head() -> str:
    """Give the first row."""
    return _row("situation", "sent", "answered", "dropped", "good calls", "rate/s", "result")


def lines(report: Report) -> Iterator[str]:
    """Give a situation's rows: itself, its loads, what was measured, and why it failed."""
    result = "FAIL" if report.failures else "pass"
    sent = report.silent_sent
    good = [one.result for one in report.outcomes if one.plan.good and one.result]
    calls = sum(one.calls_created for one in good)
    yield _row(
        report.situation.name,
        str(sent) if sent else "",
        "",
        str(report.dropped) if report.dropped else "",
        f"{sum(one.calls_succeeded for one in good)}/{calls}" if calls else "",
        "",
        f"{result} in {report.seconds:.1f} s",
    )
    for outcome in report.outcomes:
        yield _load(outcome)
    for note in report.notes:
        yield f"    {note}"
    for failure in report.failures:
        yield f"    FAILED: {failure}"


def verdict(reports: Sequence[Report], seconds: float) -> str:
    """Say how many passed."""
    failed = [one.situation.name for one in reports if one.failures]
    text = f"{len(reports) - len(failed)} of {len(reports)} situations passed in {seconds:.0f} s"
    return f"{text}; FAILED: {', '.join(failed)}" if failed else text


def _load(outcome: Outcome) -> str:
    plan, result = outcome.plan, outcome.result
    family = "6" if plan.ipv6 else ""
    name = f"  {plan.name} ({plan.source}, {plan.transport}{family})"
    if result is None:
        return _row(name, "", "", "", "", "", "no numbers")
    return _row(
        name,
        str(result.messages_sent),
        str(result.messages_received),
        "",
        f"{result.calls_succeeded}/{result.calls_created}" if plan.good else "",
        f"{outcome.rate:.0f}",
        "",
    )


def _row(name: str, sent: str, answered: str, dropped: str, good: str, rate: str, end: str) -> str:  # noqa: PLR0913, PLR0917 - a column each
    text = f"{name:<32}{sent:>9}{answered:>10}{dropped:>9}{good:>13}{rate:>8}  {end}"
    return text.rstrip()
