"""The settings of a process that runs: read again when the file changes; good ones stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from apiban.clock import Clock
from apiban.errors import SettingsError
from apiban.log import Log
from apiban.settings import FileWatch, Settings, load_settings

__all__ = ["LiveSettings"]

_RETRY: Final = 2.0


class LiveSettings:
    """Holds settings that are good.

    Raises:
        SettingsError: those of the start are not.

    """

    def __init__(self, path: Path, environ: Mapping[str, str], *, clock: Clock, log: Log) -> None:
        self._path = path
        self._environ = environ
        self._clock = clock
        self._log = log
        self._watch = FileWatch(path)
        self._must_exist = path.exists()
        self._settled = True
        self._refused = ""
        self._retry_from = 0.0
        self.now = load_settings(path, environ, must_exist=self._must_exist)

    @property
    def refused(self) -> str:
        """Why the file's settings are not in force; empty when they are."""
        return self._refused

    def look(self) -> None:
        """Read them when the file was changed and nobody writes to it any more."""
        if self._watch.changed():
            self._settled = False  # an editor may still be writing: look again at the next tick
            return
        again = bool(self._refused) and self._clock.uptime() >= self._retry_from
        if not self._settled or again:
            self.read()

    def read(self) -> None:
        """Read them now."""
        self._settled = True
        self._retry_from = self._clock.uptime() + _RETRY
        try:
            new = load_settings(self._path, self._environ, must_exist=self._must_exist)
        except SettingsError as error:
            if str(error) != self._refused:
                self._refused = str(error)
                effect = "the last good settings stay in force"
                self._log("settings-refused", reason=error, effect=effect)
            return
        if self._refused:
            self._refused = ""
            self._log("settings", state="good again")
        self._must_exist = self._path.exists()
        if new == self.now:
            return
        restart = "paths" if new.paths != self.now.paths else "nothing"
        kept: Settings = replace(new, paths=self.now.paths)
        if kept != self.now or restart != "nothing":
            self._log("settings", state="changed", file=self._path, needs_restart=restart)
        self.now = kept
