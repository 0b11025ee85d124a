"""The folders of state and of runtime files, made before Kamailio forks its workers.

Kamailio may start as root and change its user afterwards: what is made for the workers then belongs
to whoever owns the state folder.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["Folders"]


class Folders:
    """Makes folders and hands files over, as the owner of ``state`` needs them."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def owner(self) -> tuple[int, int] | None:
        """Give the user and group to hand things over to; None when that is not ours to do."""
        if os.geteuid() != 0:
            return None
        try:
            status = self._state.stat()
        except OSError:
            return None
        return status.st_uid, status.st_gid

    def make(self, folder: Path) -> None:
        """Make a folder if it is not there, for the group to work in."""
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True)
            folder.chmod(0o2770)  # mkdir would not set the group bit
            self.hand_over(folder)

    def hand_over(self, path: Path) -> None:
        """Let the workers' user write it."""
        owner = self.owner()
        if owner is not None:
            with contextlib.suppress(OSError):
                os.chown(path, *owner)
