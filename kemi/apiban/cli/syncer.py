"""Being the sync process of a store, where none runs: in this process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import tempfile
from pathlib import Path
from typing import Final

import click

from apiban.cli.host import Host
from apiban.errors import ApibanError
from apiban.gate.board import Board
from apiban.kemi.folders import Folders
from apiban.log import EVENTS, Log, line
from apiban.settings import settings_path
from apiban.sync.process import Process
from apiban.sync.report import SyncReport, read_report, report_path

__all__ = ["Syncer", "somebody_syncs"]

# What the command says in its own words, from the report.
_SAID: Final = {"feed-trouble", "feed-no-key", "pass-held", "sync-busy", "store-failed"}


def somebody_syncs(state: Path) -> bool:
    """Tell whether a process has the lock of a store's syncer."""
    try:
        handle = os.open(state / "sync.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


class Syncer:
    """The sync process itself: ``tick()`` drives it, ``report()`` is what it says of itself.

    It works as the owner of the state folder, so that Kamailio may go on with its files. The
    workers of a Kamailio that runs here hear nothing of it until their own sync process is back.
    Without ``log`` only what goes wrong is shown, and a runtime folder is done without.
    """

    def __init__(self, host: Host, log: Log | None = None) -> None:
        paths = host.settings.paths
        folders = Folders(paths.state)
        folders.make(paths.runtime)
        owner = folders.owner()
        if owner is not None and owner[0] != 0:
            _become(*owner)
        self._scratch: str | None = None
        runtime = paths.runtime
        if not os.access(runtime, os.W_OK):
            if log is not None:  # who looks for it would find nothing
                raise ApibanError(
                    f"{runtime}: not a folder that this process may write; paths.runtime names it"
                )
            self._scratch = tempfile.mkdtemp(prefix="apiban-")
            runtime = Path(self._scratch)
        self._report = report_path(runtime)
        environ = {
            **host.environ(),
            "APIBAN_PATHS_STATE": str(paths.state),
            "APIBAN_PATHS_RUNTIME": str(runtime),
        }
        self._process = Process(
            path=settings_path(environ),
            environ=environ,
            board=Board.unnamed(now=host.clock.now()),
            clock=host.clock,
            log=log or _say,
        )

    def tick(self) -> None:
        """Do what is due."""
        self._process.tick()

    @property
    def has_lock(self) -> bool:
        """Whether it is the sync process: another one may have been quicker."""
        return self._process.has_lock

    def report(self) -> SyncReport | None:
        """Give the report of this process, once it wrote one."""
        report = read_report(self._report)
        return report if report is not None and report.pid == os.getpid() else None

    def close(self) -> None:
        """Let go of the store and its lock, and take the report away: nobody syncs any more."""
        self._process.close()
        if self.report() is not None:
            with contextlib.suppress(OSError):
                self._report.unlink()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)


def _become(user: int, group: int) -> None:
    """Go on as another user, for good: what is made then is that user's."""
    try:
        os.initgroups(pwd.getpwuid(user).pw_name, group)
    except KeyError:  # a user of a container, without a name here
        os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)


def _say(event: str, **fields: object) -> None:
    """Show what goes wrong beside the walk."""
    if EVENTS[event] in ("warn", "err") and event not in _SAID:
        click.echo(line(event, fields), err=True)
