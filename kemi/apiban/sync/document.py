"""JSON documents that one process writes and others read, in the runtime folder."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

__all__ = ["get_document", "put_document"]


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


def get_document(path: Path, *, largest: int) -> Any:
    """Read a document of so many bytes at most.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none.

    """
    with path.open("rb") as file:
        return json.loads(file.read(largest))
