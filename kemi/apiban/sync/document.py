"""JSON documents that one process writes and others read, in the runtime folder."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

__all__ = ["put_document"]


def put_document(path: Path, document: Any) -> None:
    """Put a document in its place whole, for the group to read.

    Raises:
        OSError: it cannot be written; what was there stays.

    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o640)
            json.dump(document, file)
        scratch.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise
