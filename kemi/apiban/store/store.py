"""The durable state of one node: SQLite in WAL mode.

Every method that writes is one transaction, so that a process killed at any moment leaves either
the state before it or the state after it. Several processes may write: the one that syncs, and the
command line. Each transaction is short, and waits for another one's end for up to five seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from apiban.settings.model import Mode
from apiban.sqlite import glance
from apiban.store.allowlist import AllowList
from apiban.store.entries import Entries
from apiban.store.records import OPERATOR, ModeOverride, Task, TaskName

__all__ = ["Store", "overriding_mode"]

_TASKS_KEPT: Final = 86400.0
_MODE: Final = (
    "SELECT mode, added, expires, (SELECT value FROM state WHERE name = 'mode') FROM mode"
)


class Store(Entries, AllowList):
    """Entries, the allow list, feed states, request times, the mode, tasks, and a journal.

    Raises:
        StoreTooNew: a newer version wrote the file.
        StoreError: it cannot be opened; every method raises it when SQLite fails.

    """

    # Named values ------------------------------------------------------------------------------

    def state(self, name: str) -> str | None:
        """Give a named value, such as ``mode``."""
        with self._errors():
            row = self._db.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_state(self, name: str, value: str, *, now: float) -> None:
        """Save a named value, and note the change in the journal."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (name, value))
            self._note(now, name, "settings", value)

    # The operator's mode -----------------------------------------------------------------------

    def mode(self, now: float) -> ModeOverride | None:
        """Give the mode that overrules the settings' now, if one does."""
        with self._errors():
            return _in_force(self._db.execute(_MODE).fetchone(), now)

    def set_mode(
        self,
        mode: Mode | None,
        *,
        now: float,
        expires: float | None = None,
        over: Mode | None = None,
    ) -> None:
        """Let a mode go before the settings' until ``expires``, or for good; None: no more.

        ``over`` is the settings' mode that it goes before. Where no sync runs that could have
        noted it, a change before this one would count as one after it, and end this one.
        """
        with self._transaction():
            self._db.execute("DELETE FROM mode")
            if over is not None:
                self._db.execute("INSERT OR REPLACE INTO state VALUES ('mode', ?)", (str(over),))
            if mode is not None:
                self._db.execute("INSERT INTO mode VALUES (1, ?, ?, ?)", (str(mode), now, expires))
            self._note(now, "mode", OPERATOR, "as in the settings" if mode is None else str(mode))

    # Tasks for the sync ------------------------------------------------------------------------

    def add_task(self, name: TaskName, *, now: float) -> int:
        """Ask something of the process that syncs; give the task's number."""
        with self._transaction():
            number = self._db.execute(
                "INSERT INTO task (at, name) VALUES (?, ?)", (now, name)
            ).lastrowid
            self._note(now, "asked", OPERATOR, name)
        return int(number or 0)

    def open_tasks(self) -> list[Task]:
        """Give the tasks that were not taken yet, oldest first."""
        with self._errors():
            rows = self._db.execute(
                "SELECT id, name, at FROM task WHERE taken IS NULL ORDER BY id"
            ).fetchall()
        return [Task(*row) for row in rows]

    def take_tasks(self, numbers: list[int], *, now: float) -> None:
        """Note that tasks were taken; what was taken a day ago is forgotten."""
        with self._transaction():
            self._db.executemany(
                "UPDATE task SET taken = ? WHERE id = ?", [(now, number) for number in numbers]
            )
            self._db.execute("DELETE FROM task WHERE taken < ?", (now - _TASKS_KEPT,))

    def task_taken(self, number: int) -> bool:
        """Tell whether a task was taken."""
        return bool(self._number("SELECT count(*) FROM task WHERE id = ? AND taken > 0", number))


def overriding_mode(path: Path, now: float, settings: Mode) -> ModeOverride | None:
    """Read the mode that overrules the ``settings``', without opening the store for writing.

    None as well when the file cannot be read, and when the settings' mode is another one than the
    sync noted: then it was changed since, which ends the operator's.
    """
    row = glance(path, _MODE)
    if row is not None and row[3] not in {None, str(settings)}:
        return None
    return _in_force(row, now)


def _in_force(row: tuple[Any, ...] | None, now: float) -> ModeOverride | None:
    if row is None or str(row[0]).upper() not in Mode.__members__:
        return None
    name, added, expires, _ = row
    if expires is not None and now >= expires:
        return None
    return ModeOverride(Mode[name.upper()], added, expires)
