"""What the doctor says of the sync process."""

from __future__ import annotations

from typing import Any

import pytest
from apiban.doctor.sync import check_lock, check_report
from apiban.sync.report import SyncReport

from tests.support.reports import sync_report

NOW = 1_800_000_000.0
OURS = ["/usr/bin/python3.11", "-m", "apiban.sync", "--board", "7"]


def report(**changes: Any) -> SyncReport:
    """Give what a healthy sync says of itself."""
    return sync_report(**{"at": NOW - 3, **changes})


@pytest.mark.parametrize(
    ("holder", "command", "running", "level"),
    [
        (9, OURS, True, "ok"),
        (0, [], True, "ok"),
        (None, [], True, "fail"),
        (None, [], False, "note"),
        (9, ["/usr/bin/flock", "sync.lock"], True, "warn"),
    ],
)
def test_lock(holder: int | None, command: list[str], running: bool, level: str) -> None:  # noqa: FBT001
    """Somebody of ours holds it while Kamailio runs."""
    assert check_lock(holder, command, running=running).level == level


@pytest.mark.parametrize(
    ("changes", "levels", "word"),
    [
        ({}, ["ok"], "4 of 5"),
        ({"at": NOW - 91}, ["fail"], "91 s"),
        ({"at": NOW + 91}, ["fail"], "said nothing"),
        ({"store_error": "disk is full"}, ["ok", "fail"], "disk is full"),
        ({"settings_error": "mode = on"}, ["ok", "fail"], "mode = on"),
        ({"feed": "outage", "error": "no connection"}, ["ok", "warn"], "no connection"),
        ({"feed": "unauthorized"}, ["ok", "warn"], "refuses the key"),
        ({"feed": "rate-limited"}, ["ok", "warn"], "too often"),
        ({"feed": "invalid"}, ["ok", "warn"], "none of its answers"),
        ({"feed": "unknown"}, ["ok"], ""),
        ({"held": 2}, ["ok", "warn"], "shrinks"),
        ({"held_back": "growth-held"}, ["ok", "warn"], "grows"),
        ({"drift": "store-list"}, ["ok", "warn"], "store-list"),
    ],
)
def test_report(changes: dict[str, Any], levels: list[str], word: str) -> None:
    """Each trouble that the sync knows of is said."""
    found = list(check_report(report(**changes), alive=True, running=True, now=NOW))
    assert [one.level for one in found] == levels
    assert word in found[-1].what


@pytest.mark.parametrize(
    ("silence", "level"), [(None, "ok"), (0.0, "ok"), (9.9, "ok"), (10.0, "fail")]
)
def test_sync_that_takes_no_tick(silence: float | None, level: str) -> None:
    """It hangs, however fresh its report is."""
    (finding,) = check_report(report(), alive=True, running=True, now=NOW, silence=silence)
    assert finding.level == level
    assert ("hangs" in finding.what) is (level == "fail")


@pytest.mark.parametrize(("running", "level"), [(True, "fail"), (False, "note")])
@pytest.mark.parametrize("said", [None, report()])
def test_sync_that_is_gone(said: SyncReport | None, running: bool, level: str) -> None:  # noqa: FBT001
    """With a Kamailio there must be a sync process."""
    (finding,) = check_report(said, alive=False, running=running, now=NOW)
    assert finding.level == level
