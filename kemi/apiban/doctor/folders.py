"""The folders of state and of runtime files, and the room on their disks."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from typing import Final

from apiban.doctor.finding import Finding, fail, ok, warn
from apiban.doctor.process import User

__all__ = ["check_folder", "check_room", "free_bytes"]

_MODE: Final = 0o2770
_SCARCE: Final = 256 << 20
_TOO_LITTLE: Final = 16 << 20


def check_folder(name: str, path: Path, user: User | None) -> Finding:
    """Tell whether a folder is there, for Kamailio's user and its group to work in.

    ``user`` is Kamailio's, None when that is not known.
    """
    check = f"{name} folder"
    make = f"install -d -o kamailio -g kamailio -m 2770 {path}"
    try:
        status = path.stat()
    except OSError as error:
        return fail(check, f"{path}: {error.strerror}", make)
    if not path.is_dir():
        return fail(check, f"{path} is no folder", f"move it away, and {make}")
    mode = status.st_mode & 0o7777
    owner = f"{_user_name(status.st_uid)}:{_group_name(status.st_gid)}"
    if user is not None and not user.may(status, 7):
        return fail(
            check,
            f"{path} ({owner}, {mode:o}) is not writable for Kamailio's user"
            f" ({_user_name(user.uid)})",
            f"chown {_user_name(user.uid)} {path}; chmod 2770 {path}",
        )
    if mode & 0o007:
        return warn(check, f"{path} is open to others (mode {mode:o})", f"chmod 2770 {path}")
    if mode != _MODE:
        return warn(
            check,
            f"{path} has mode {mode:o}: what a member of the group makes in it is not for Kamailio",
            f"chmod 2770 {path}",
        )
    return ok(check, f"{path} ({owner}, {mode:o})")


def check_room(path: Path, free: int, *, list_size: int) -> Finding:
    """Tell whether so many free bytes are enough beside a list and a store of ``list_size``."""
    shown = f"{free / (1 << 20):,.0f} MB free at {path}"
    mend = "make room on that disk"
    if free < max(_TOO_LITTLE, list_size):
        return fail("room", shown, mend)
    if free < max(_SCARCE, 3 * list_size):
        return warn("room", shown, mend)
    return ok("room", shown)


def free_bytes(path: Path) -> int:
    """Give what is left for users that are not root."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
