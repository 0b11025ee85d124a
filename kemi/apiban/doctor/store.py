"""The store and the durable list: they open, they are whole, and their clock is ours."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from apiban.doctor.finding import Finding, fail, note, ok, warn
from apiban.errors import SnapshotError
from apiban.snapshot.file import load_snapshot
from apiban.store.migrations import MIGRATIONS

__all__ = ["check_list", "check_store", "check_store_clock"]

_BUSY: Final = 5.0
_AHEAD: Final = 60.0
_MOVE: Final = (
    "stop Kamailio, move store.db, store.db-wal and store.db-shm away, and start it: the list in"
    " force stays, and the feed fills a new store"
)


def check_store(path: Path, *, now: float) -> Iterator[Finding]:
    """Look at the store without writing to it: its version, its pages, its times."""
    if not path.exists():
        yield warn("store", f"{path}: not there", "start Kamailio: its sync makes it")
        return
    try:
        # The look is read-only: what is broken is not broken more.
        address = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=_BUSY)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                yield fail(
                    "store", f"{path} is of a newer version", "install the newer package again"
                )
                return
            (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                yield fail("store", f"{path} is damaged: {' '.join(said.split())}", _MOVE)
                return
            (entries,) = db.execute("SELECT count(*) FROM entry").fetchone()
            (latest,) = db.execute("SELECT max(at) FROM journal").fetchone()
    except (sqlite3.Error, TypeError) as error:  # no row where there must be one
        said = " ".join(str(error).split())
        if "unable to open" in said or "readonly" in said:
            yield fail(
                "store",
                f"{path}: {said}",
                "be root, or a member of the folder's group (usermod -aG kamailio NAME)",
            )
        elif "disk" in said:  # "disk I/O error", "database or disk is full": the store may be whole
            yield fail("store", f"{path}: {said}", "see room above, and the kernel's log (dmesg)")
        elif "locked" in said:
            yield fail("store", f"{path}: {said} for {_BUSY:g} s", "find who holds it: fuser -v")
        else:
            yield fail("store", f"{path}: {said}", _MOVE)
        return
    yield ok("store", f"{path} is whole (entries: {entries:,})")
    yield check_store_clock(latest, now=now)


def check_store_clock(latest: float | None, *, now: float) -> Finding:
    """Tell whether the latest change in the store lies in the future."""
    if latest is None:
        return note("store's clock", "nothing was written to the store yet")
    ahead = latest - now
    if ahead <= _AHEAD:
        return ok("store's clock", "no change lies in the future")
    return fail(
        "store's clock",
        f"its latest change is {ahead:,.0f} s in the future: the clock was set back, or is wrong",
        "set the clock (timedatectl; chronyc tracking)",
    )


def check_list(path: Path, *, now: float, lasts: float) -> Finding:
    """Tell whether the durable list would protect the next start.

    ``lasts`` is for how long a feed's entry is banned, in seconds.
    """
    if not path.exists():
        return warn(
            "list", f"{path}: not there: a restart begins without a list", "wait for the first sync"
        )
    try:
        snapshot = load_snapshot(path)
    except SnapshotError as error:
        return fail(
            "list", str(error), f"remove {path}: the sync writes it anew within a few seconds"
        )
    age = now - snapshot.created
    ipv4, ipv6 = snapshot.counts
    shown = f"generation {snapshot.generation}, {ipv4:,} IPv4 and {ipv6:,} IPv6 ranges"
    if age < -_AHEAD:
        return warn("list", f"{shown}, made {-age:,.0f} s in the future", "set the clock")
    if age > lasts:
        return warn(
            "list",
            f"{shown}, {age / 86400:.0f} days old: all that the feed listed then has ended",
            "see sync and feed below",
        )
    return ok("list", f"{shown}, {age:,.0f} s old")
