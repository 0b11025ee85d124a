"""How the commands come to this host's node: its settings, store, counters and sync report.

They talk to files alone: no RPC, no root. Who is in the group of the state folder may do all of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

import click

from apiban.address import Network
from apiban.alive import is_alive
from apiban.cli.show import printable
from apiban.clock import Clock, SystemClock
from apiban.errors import ApibanError, BoardError, SettingsError, StoreError
from apiban.firewall.report import FirewallReport
from apiban.firewall.running import last_report, runs
from apiban.gate.board import Board
from apiban.settings import Mode, Settings, load_settings, settings_path
from apiban.settings.load import salvage_settings
from apiban.store import ModeOverride, Store
from apiban.sync.own import own_addresses
from apiban.sync.report import (
    SyncReport,
    kept_path,
    kept_settings,
    read_report,
    report_path,
)

__all__ = ["SILENT", "Host", "pass_host"]

# A sync process writes its report at least every minute.
_REPORT_LASTS: Final = 90.0
# It takes a tick several times a second: after so many without one it hangs.
SILENT: Final = 10.0


class Host:
    """The node of this host, opened part by part as a command needs it.

    ``file`` names the settings file, ``state`` and ``runtime`` other folders than the settings do.
    """

    def __init__(
        self,
        *,
        file: Path | None = None,
        state: Path | None = None,
        runtime: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._file = file
        self._state = state
        self._runtime = runtime
        self.clock: Clock = clock or SystemClock()
        self.mistake = ""  # the first one in the settings, while others are used in their place
        self._kept: Settings | None = None
        self._close: list[Callable[[], None]] = []

    def environ(self) -> dict[str, str]:
        """Give the environment with the settings file of the command line in it."""
        environ = dict(os.environ)
        if self._file is not None:
            environ["APIBAN_SETTINGS"] = str(self._file)
        return environ

    def load(self) -> Settings:
        """Read the settings, and put the folders of the command line into them.

        Raises:
            SettingsError

        """
        environ = self.environ()
        return self._in_folders(load_settings(settings_path(environ), environ))

    @cached_property
    def settings(self) -> Settings:
        """The settings; while they have a mistake the last good ones, as far as one knows them.

        An operator must be able to overrule also then, since Kamailio goes on.

        Raises:
            SettingsError: the file is closed to us, or that of the command line is not there.

        """
        try:
            return self.load()
        except SettingsError as error:
            if not self._may_go_on():
                raise
            return self._last_good(error.problems)

    def _may_go_on(self) -> bool:
        """Tell whether the mistake is one in the settings, and none of who runs the command."""
        try:
            settings_path(self.environ()).open("rb").close()
        except FileNotFoundError:
            return self._file is None
        except PermissionError:
            return False
        except OSError:
            return True
        return True

    def _last_good(self, problems: tuple[str, ...]) -> Settings:
        environ = self.environ()
        found = self._in_folders(salvage_settings(settings_path(environ), environ))
        self._kept = kept_settings(kept_path(found.paths.runtime))
        if self._kept is not None:
            runtime = found.paths.runtime  # where they were found
            found = self._in_folders(self._kept)
            found = replace(found, paths=replace(found.paths, runtime=runtime))
        self.mistake = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        known = "the last good settings are used"
        if self._kept is None:
            where = kept_path(found.paths.runtime)
            known = f"{where} has no last good ones (--state and --runtime name the node's folders)"
        said = f"{printable(problems[0])}{more}; apiban -t lists them; {known}"
        click.echo(f"apiban: {said}", err=True)
        return found

    def _in_folders(self, settings: Settings) -> Settings:
        """Put the folders of the command line before those of the settings."""
        paths = replace(
            settings.paths,
            state=self._state or settings.paths.state,
            runtime=self._runtime or settings.paths.runtime,
        )
        return replace(settings, paths=paths)

    @property
    def knows_settings(self) -> bool:
        """Whether ``settings`` are those that the node works by, as far as files tell."""
        _ = self.settings
        return not self.mistake or self._kept is not None

    def must_know_exempt(self) -> None:
        """Make sure that nobody is banned whom settings exempt that cannot be read.

        Raises:
            ApibanError: they cannot be read, and those of before are not known.

        """
        if not self.knows_settings:
            raise ApibanError(
                "nobody is banned: whom the settings exempt is not known while they have a mistake"
            )

    @property
    def store_path(self) -> Path:
        """Where the store is."""
        return self.settings.paths.state / "store.db"

    @cached_property
    def store(self) -> Store:
        """The store; a command that only reads does not make one that is not there.

        Raises:
            StoreError: there is none, or it cannot be opened.

        """
        path = self.store_path
        if not self.has_store():
            raise StoreError(
                f"{path}: there is no store yet; Kamailio's sync, or apiban sync, makes it"
            )
        if not os.access(path, os.W_OK):
            if os.statvfs(path).f_flag & os.ST_RDONLY:
                raise StoreError(f"{path}: its disk is mounted read-only")
            raise StoreError(
                f"{path}: not writable for you: be root, or a member of the group that owns it"
            )
        return self._opened(path)

    def has_store(self) -> bool:
        """Tell whether there is a store.

        Raises:
            StoreError: its folder is closed to us.

        """
        try:
            return self.store_path.exists()
        except PermissionError:
            raise StoreError(
                f"{self.store_path.parent}: closed to you: be root, or a member of the group that "
                "owns it"
            ) from None

    def store_to_write(self) -> Store:
        """Give the store, made if it is not there yet, for whoever owns its folder.

        Raises:
            StoreError: it cannot be made or opened.

        """
        path = self.store_path
        if self.has_store() or "store" in self.__dict__:
            return self.store
        folder = path.parent
        if self.mistake:
            raise StoreError(
                f"{path}: there is no store, and the settings that name its folder have a mistake: "
                "--state names it, too"
            )
        if not folder.is_dir():
            raise StoreError(f"{folder}: there is no such folder; paths.state names it")
        store = self._opened(path)
        self.__dict__["store"] = store
        return store

    @cached_property
    def board(self) -> Board | None:
        """The shared counters of the running Kamailio; None when none runs here."""
        try:
            board = Board.open(self.settings.paths.runtime / "counters")
        except BoardError:
            return None
        return board if any(is_alive(slot.pid) for slot in board.slots()) else None

    def report(self) -> SyncReport | None:
        """Give what the running sync process says of itself; None when none runs."""
        report = read_report(report_path(self.settings.paths.runtime))
        if report is None or not is_alive(report.pid):
            return None
        return report if self.clock.now() - report.at < _REPORT_LASTS else None

    def firewall_report(self) -> FirewallReport | None:
        """Give what a firewall client said last; None where none left anything in the kernel."""
        return last_report(self.settings.paths.runtime, self.clock.now())

    def firewall(self) -> FirewallReport | None:
        """Give what the running firewall client says of itself; None when none runs."""
        report = self.firewall_report()
        return report if report is not None and runs(report, self.clock.now()) else None

    def silence(self) -> float | None:
        """Give for how many seconds the sync process took no tick; None when that is not known."""
        beaten = None if self.board is None else self.board.beaten
        return None if beaten is None else max(self.clock.uptime() - beaten, 0.0)

    @cached_property
    def own(self) -> tuple[Network, ...]:
        """The host's own addresses."""
        return own_addresses()

    def mode(self) -> Mode:
        """Give the mode in force: the operator's, else the settings'."""
        override = self.override()
        return self.settings.mode if override is None else override.mode

    def override(self) -> ModeOverride | None:
        """Give the operator's mode, if it goes before that of the settings.

        A change of the settings ends it: where no sync runs that does so, the next start will.
        """
        if not self.has_store():
            return None
        found = self.store.mode(self.clock.now())
        if found is not None and self.report() is None:
            noted = self.store.state("mode") if self.knows_settings else None
            return found if noted in {None, str(self.settings.mode)} else None
        return found

    def known(self) -> int:
        """Give up to which number of the store's journal the published list knows it."""
        board, report = self.board, self.report()
        position = 0 if board is None else board.position
        return max(position, report.position) if position and report is not None else position

    def other_store(self) -> str:
        """Say that the sync process that runs here works with another store; empty when not."""
        board, report = self.board, self.report()
        if not self.has_store():
            return ""
        known = 0 if board is None else board.position
        other = report is not None and report.store not in {0, self.store_path.stat().st_ino}
        # No list knows more of a store than there is in it.
        if other or known > self.store.position():
            return f"the sync process that runs here has another store than {self.store_path}"
        return ""

    def close(self) -> None:
        """Close what was opened."""
        while self._close:
            self._close.pop()()

    def _opened(self, path: Path) -> Store:
        store = Store(path)
        self._close.append(store.close)
        return store


pass_host = click.make_pass_decorator(Host)
