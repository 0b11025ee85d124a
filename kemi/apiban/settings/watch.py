"""Notice that a file was changed, without reading it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FileWatch"]


class FileWatch:
    """Compares a file's identity with the last look: a rename over it, an edit, its removal."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._look()

    def changed(self) -> bool:
        """Tell whether the file is another one, or another text, than at the last call."""
        look = self._look()
        changed = look != self._seen
        self._seen = look
        return changed

    def _look(self) -> tuple[int, ...]:
        try:
            status = self._path.stat()
        except OSError:
            return ()
        return (
            status.st_ino,
            status.st_dev,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
