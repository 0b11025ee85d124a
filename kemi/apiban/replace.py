"""A text file that is put in its place whole."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

__all__ = ["replaced"]


@contextmanager
def replaced(path: Path, mode: int) -> Iterator[TextIO]:
    """Give a file to write, which takes the place of ``path`` at the end of the block.

    Others may write in the folder, too, and root is often the one who writes here: so the file's
    name until then cannot be known before, and no link is followed, neither there nor at ``path``.

    Raises:
        OSError: it cannot be written. Whatever ends the block, what was there stays.

    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(scratch, flags, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(handle, mode)  # whatever the umask
            yield file
        scratch.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise
