"""What the doctor says of folders, and of the room in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from apiban.doctor.folders import check_folder, check_room, free_bytes
from apiban.doctor.process import User

SELF = User(os.geteuid(), frozenset(os.getgroups()))
NOBODY = User(65534, frozenset({65534}))


@pytest.mark.parametrize(
    ("mode", "level"), [(0o2770, "ok"), (0o770, "warn"), (0o700, "warn"), (0o2771, "warn")]
)
def test_mode(tmp_path: Path, mode: int, level: str) -> None:
    """2770 alone lets a group work together, and nobody else."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(mode)
    finding = check_folder("state", folder, SELF)
    assert finding.level == level
    assert ("chmod 2770" in finding.mend) == (level == "warn")
    assert ("open to others" in finding.what) == bool(mode & 7)


def test_missing_folder(tmp_path: Path) -> None:
    """The command that makes it is said."""
    finding = check_folder("runtime", tmp_path / "none", SELF)
    assert finding.level == "fail"
    assert f"install -d -o kamailio -g kamailio -m 2770 {tmp_path / 'none'}" in finding.mend


def test_file_in_its_place(tmp_path: Path) -> None:
    """A file is no folder."""
    (tmp_path / "state").touch()
    assert check_folder("state", tmp_path / "state", SELF).level == "fail"


def test_folder_of_another(tmp_path: Path) -> None:
    """Kamailio's user cannot write it: its name and the mend are said."""
    tmp_path.chmod(0o2770)
    finding = check_folder("state", tmp_path, NOBODY)
    assert finding.level == "fail"
    assert "nobody" in finding.what
    assert "chown nobody" in finding.mend


@pytest.mark.parametrize(
    ("free", "size", "level"),
    [
        (1 << 30, 0, "ok"),
        (100 << 20, 0, "warn"),
        (10 << 20, 0, "fail"),
        (1 << 30, 600 << 20, "warn"),
        (1 << 30, 2 << 30, "fail"),
    ],
)
def test_room(free: int, size: int, level: str) -> None:
    """There must be room for one more of what is there."""
    assert check_room(Path("/x"), free, list_size=size).level == level


def test_free_bytes(tmp_path: Path) -> None:
    """It is the disk's own figure."""
    assert 0 < free_bytes(tmp_path) < 1 << 60
