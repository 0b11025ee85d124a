"""The folder of all that the lab keeps: it has our mark, or it is not removed."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Final

from apiban.lab.command import LabError

__all__ = ["is_there", "make_folder", "remove_folder", "require_space"]

MARK: Final = ".made-by-bin-lab"
SPACE: Final = 2_000_000_000  # bytes: a base image, the images, and what they are built from


def is_there(folder: Path) -> bool:
    """Tell whether there is one.

    Raises:
        LabError: what is there was not made by us, or is not ours alone.

    """
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LabError(f"{folder}: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise LabError(f"{folder} is not a folder of this user: set LAB_STATE to another place")
    if found.st_mode & 0o077:
        raise LabError(f"{folder} is open to others (mode must be 0700): set LAB_STATE")
    if not (folder / MARK).is_file():
        raise LabError(f"{folder} was not made by bin/lab: remove it, or set LAB_STATE")
    return True


def make_folder(folder: Path) -> None:
    """Make it, for us alone, with its mark.

    Raises:
        LabError: it cannot be made, or is there already.

    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        (folder / MARK).touch()
    except OSError as error:
        raise LabError(f"{folder}: {error.strerror}: set LAB_STATE to another place") from None


def remove_folder(folder: Path) -> None:
    """Remove it, if there is one.

    Raises:
        LabError: it is not ours, or cannot be removed.

    """
    if is_there(folder):
        try:
            shutil.rmtree(folder)
        except OSError as error:
            (folder / MARK).touch()  # so that what is left can be removed later
            raise LabError(f"{error.filename}: {error.strerror}") from None


def require_space(folder: Path) -> None:
    """Refuse a disk that is too full.

    Raises:
        LabError: with what is free.

    """
    free = shutil.disk_usage(folder).free
    if free < SPACE:
        raise LabError(
            f"{folder} has {free / 1e9:.1f} GB free, and {SPACE / 1e9:.0f} GB are needed:"
            " set LAB_STATE to another place"
        )
