"""What is read from /proc, from a /proc of the test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from apiban.doctor.process import (
    User,
    children,
    command_line,
    loaded_modules,
    lock_holder,
    parent,
    same_network,
)

LOCKS = """1: POSIX  ADVISORY  WRITE 71 08:01:4711 0 EOF
2: FLOCK  ADVISORY  WRITE 72 08:01:14711 0 EOF
3: FLOCK  ADVISORY  WRITE 73 08:01:4711 0 EOF
4: FLOCK  ADVISORY  WRITE -1 08:01:4712 0 EOF
5: FLOCK  ADVISORY  WRITE 74 08:02:4714 0 EOF
6: FLOCK  ADVISORY  WRITE 75 08:01:4714 0 EOF
7: FLOCK  ADVISORY  WRITE 76 00:2a:4715 0 EOF
"""


@pytest.mark.parametrize(
    ("inode", "holder"), [(4711, 73), (4712, 0), (4713, None), (4714, 75), (4715, 76)]
)
def test_lock_holder(inode: int, holder: int | None) -> None:
    """The lock of this file, of its kind and on its disk; a holder that cannot be seen is 0.

    Where no lock names this disk, it may be one whose number the kernel shows differently.
    """
    status = os.stat_result((0o100660, inode, os.makedev(8, 1), 1, 5, 6, 0, 0, 0, 0))
    assert lock_holder(status, LOCKS) == holder


@pytest.mark.parametrize(
    ("user", "mode", "may"),
    [
        (User(0, frozenset()), 0o000, True),
        (User(5, frozenset()), 0o700, True),
        (User(5, frozenset({6})), 0o070, False),  # the owner's rights are all that the owner has
        (User(7, frozenset({6})), 0o070, True),
        (User(7, frozenset({8})), 0o770, False),
        (User(7, frozenset({8})), 0o007, True),
        (User(7, frozenset({6})), 0o050, False),
    ],
)
def test_rights(user: User, mode: int, may: bool) -> None:  # noqa: FBT001 - a table's column
    """They are the owner's, else the group's, else the others', as in the kernel."""
    status = os.stat_result((0o40000 | mode, 1, 1, 1, 5, 6, 0, 0, 0, 0))
    assert user.may(status, 7) is may


def test_own_process() -> None:
    """Of a process that is there, all is known."""
    user = User.of_process(os.getpid())
    assert user is not None
    assert user.uid == os.geteuid()
    assert os.getegid() in user.groups
    assert parent(os.getpid()) == os.getppid()
    assert os.getpid() in children(os.getppid())
    assert any("python" in word for word in command_line(os.getpid()))
    assert same_network(os.getpid()) is True


def test_process_that_is_gone(tmp_path: Path) -> None:
    """Of one that is gone nothing is known, and nothing fails."""
    assert User.of_process(1, tmp_path) is None
    assert parent(1, tmp_path) is None
    assert children(1, tmp_path) == []
    assert command_line(1, tmp_path) == []
    assert loaded_modules(1, tmp_path) is None
    assert same_network(1, tmp_path) is None


def test_loaded_modules(tmp_path: Path) -> None:
    """The modules that a process has mapped, and no other library."""
    (tmp_path / "9").mkdir()
    (tmp_path / "9" / "maps").write_text(
        "7f-8f r-xp 0 08:01 1  /usr/lib/x86_64-linux-gnu/kamailio/modules/rtimer.so\n"
        "7f-8f r--p 0 08:01 1  /usr/lib/x86_64-linux-gnu/kamailio/modules/rtimer.so\n"
        "7f-8f r-xp 0 08:01 2  /usr/lib/x86_64-linux-gnu/libc.so.6\n"
    )
    assert loaded_modules(9, tmp_path) == {"rtimer"}
