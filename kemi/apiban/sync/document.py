"""JSON documents that one process writes and others read, in the runtime folder."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeVar

from apiban.replace import replaced

__all__ = ["get_document", "put_document", "record"]

_T = TypeVar("_T")

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "int": (int,),
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "str": (str,),
}


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


def record(kind: type[_T], document: Any) -> _T:
    """Make a record (a dataclass) of its document; numbers and texts are checked, all are wanted.

    Raises:
        KeyError: a field is not there.
        TypeError: one is of another type, or the document is no object.

    """
    names = {field.name: _TYPES.get(str(field.type)) for field in fields(kind)}  # type: ignore[arg-type]
    values = {name: document[name] for name in names}
    for name, types in names.items():
        if types and (not isinstance(values[name], types) or isinstance(values[name], bool)):
            raise TypeError(name)
    return kind(**values)
