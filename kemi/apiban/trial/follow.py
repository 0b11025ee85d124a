"""Prints the module's lines of Kamailio's log as they come."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Self

from apiban.log import PREFIX

__all__ = ["Follower"]

_LOOK_EVERY = 0.1


class Follower:
    """Follows a log file that one process appends to, in a thread of its own."""

    def __init__(self, path: Path, *, quiet: bool = False) -> None:
        self._path = path
        self._quiet = quiet  # nothing is printed, and all is in ``events``
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="log", daemon=True)
        self.events: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _follow(self) -> None:
        position, ending = 0, False
        while not ending:
            ending = self._end.wait(_LOOK_EVERY)  # one more look after the end was asked for
            if not self._path.exists():
                continue
            with self._path.open("rb") as file:
                file.seek(position)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            position += len(whole)
            for text in whole.decode("utf-8", "replace").splitlines():
                _, prefix, rest = text.partition(PREFIX)
                if prefix:
                    self.events.append(rest)
                    if not self._quiet:
                        sys.stdout.write(f"{prefix}{rest}\n")
            sys.stdout.flush()
