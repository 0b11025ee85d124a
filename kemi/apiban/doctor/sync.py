"""The sync process: the lock that makes it the only one, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from apiban.doctor.finding import Finding, fail, note, ok, warn
from apiban.sync.report import SyncReport

__all__ = ["check_lock", "check_report"]

# It writes its report every minute at least.
_FRESH: Final = 90.0
# It takes a tick several times a second.
_SILENT: Final = 10.0
_RESTART = "restart Kamailio; its log says why the sync ended (event=sync-...)"
_FEED: Final = {
    "no-key": ("no key is set", "set feed.key"),
    "outage": ("the feed does not answer", "see feed below; the last list stays in force"),
    "invalid": ("the feed answers what is none of its answers", "check feed.url and feed.version"),
    "unauthorized": ("the feed refuses the key", "check feed.key"),
    "rate-limited": ("the feed says that it is asked too often", "is the key in use elsewhere?"),
}


def check_lock(holder: int | None, command: list[str], *, running: bool) -> Finding:
    """Tell who syncs this store: a process's id, 0 for one that cannot be seen, None for nobody."""
    if holder is None:
        if running:
            return fail("sync.lock", "nobody syncs this store", _RESTART)
        return note("sync.lock", "nobody syncs this store")
    if holder == 0:
        return ok("sync.lock", "held by a process of another process namespace")
    what = " ".join(command[-5:]) or "gone meanwhile"
    if "apiban" not in what:
        return warn(
            "sync.lock",
            f"held by process {holder}, which is none of ours: {what}",
            "see what it is (lslocks); end it if it must not hold this lock",
        )
    return ok("sync.lock", f"held by process {holder}")


def check_report(
    report: SyncReport | None,
    *,
    alive: bool,
    running: bool,
    now: float,
    silence: float | None = None,
) -> Iterator[Finding]:
    """Tell how the sync is.

    ``alive`` is whether the report's process is there, ``silence`` for how many seconds it took no
    tick of Kamailio's, None where that is not known.
    """
    if report is None or not alive:
        if running:
            yield fail("sync", "no sync process runs", _RESTART)
        else:
            yield note("sync", "no sync process runs")
        return
    age = now - report.at
    if not -_FRESH < age < _FRESH:
        yield fail("sync", f"process {report.pid} has said nothing for {age:,.0f} s", _RESTART)
        return
    if silence is not None and silence >= _SILENT:
        yield fail(
            "sync",
            f"the sync process hangs: it took no tick for {silence:,.0f} s, and no change comes "
            "into force",
            "Kamailio ends it after 30 s and starts another; if that does not help, restart it",
        )
    else:
        yield ok(
            "sync",
            f"process {report.pid}, {report.entries:,} entries, {report.budget_left} of"
            f" {report.budget} requests left",
        )
    if report.store_error:
        yield fail("sync", f"the store fails: {report.store_error}", "see store and folders above")
    if report.settings_error:
        yield fail(
            "sync",
            f"changed settings were refused: {report.settings_error}",
            "mend them; the last good ones are in force",
        )
    if report.feed in _FEED:
        what, mend = _FEED[report.feed]
        yield warn("sync", f"{what}{': ' if report.error else ''}{report.error}", mend)
    if report.held or report.held_back:
        yield warn(
            "sync",
            "the feed's list is held: it "
            + ("shrinks" if report.held else "grows")
            + " by more than may be",
            "apiban feed hold show; apiban feed hold accept",
        )
    if report.drift:
        yield warn(
            "sync",
            f"these disagree for a minute already: {report.drift}",
            "apiban status; event=drift in Kamailio's log",
        )
