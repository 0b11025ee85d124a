"""JSON documents that one process writes and others read, in the runtime folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from apiban.replace import replaced

__all__ = ["get_document", "put_document"]


def put_document(path: Path, document: Any) -> None:
    """Put a document in its place whole, for the group to read.

    Raises:
        OSError: it cannot be written; what was there stays.

    """
    with replaced(path, 0o640) as file:
        json.dump(document, file)


def get_document(path: Path, *, largest: int) -> Any:
    """Read a document of so many bytes at most.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none.

    """
    # A named pipe in its place gives nothing, and nobody waits for one who writes into it.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        return json.loads(file.read(largest))
