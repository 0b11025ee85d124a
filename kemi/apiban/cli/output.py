"""Where a command writes many lines: the standard output, or a file that is there whole."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from apiban.cli.show import reader_may_leave, stdout
from apiban.errors import ApibanError
from apiban.replace import replaced

__all__ = ["put_lines"]

_MODE: Final = 0o644


def put_lines(lines: Iterable[str], path: Path | None) -> None:
    """Write lines as they come: to the standard output, or into a file for everybody to read.

    Raises:
        ApibanError: the file cannot be written; what was there stays.

    """
    if path is None:
        with reader_may_leave():
            stdout().writelines(f"{line}\n" for line in lines)
        return
    try:
        with replaced(path, _MODE) as file:
            file.writelines(f"{line}\n" for line in lines)
    except OSError as error:
        raise ApibanError(f"{path}: {error.strerror}") from None
