"""The lab's folder is ours, marked, and the only thing that is removed."""

from __future__ import annotations

import json
import os
from collections import namedtuple
from pathlib import Path

import pytest
from apiban.lab.command import LabError
from apiban.lab.daemon import Daemon
from apiban.lab.folder import is_there, make_folder, remove_folder, require_space
from apiban.lab.lab import ROOT, Lab, default_folder

Usage = namedtuple("Usage", "total used free")  # noqa: PYI024 - as shutil has it


def test_it_is_made_and_removed(tmp_path: Path) -> None:
    """What it stands in is left, with all else that is there."""
    folder = tmp_path / "state" / "lab"
    assert not is_there(folder)
    make_folder(folder)
    assert is_there(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder.parent / "precious").touch()
    remove_folder(folder)
    assert os.listdir(folder.parent) == ["precious"]  # noqa: PTH208
    remove_folder(folder)


def test_what_is_not_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No mark, another's, open to others, a link: one line, and nothing is removed."""
    bare = tmp_path / "bare"
    bare.mkdir(mode=0o700)
    (bare / "precious").touch()
    with pytest.raises(LabError, match="was not made by bin/lab"):
        remove_folder(bare)
    with pytest.raises(LabError, match="File exists"):
        make_folder(bare)
    ours = tmp_path / "ours"
    make_folder(ours)
    (tmp_path / "link").symlink_to(ours)
    with pytest.raises(LabError, match="not a folder of this user"):
        remove_folder(tmp_path / "link")
    ours.chmod(0o755)
    with pytest.raises(LabError, match="open to others"):
        remove_folder(ours)
    ours.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: ours.stat().st_uid + 1)
    with pytest.raises(LabError, match="not a folder of this user"):
        remove_folder(ours)
    assert (bare / "precious").exists()
    assert ours.is_dir()


def test_the_lab_stays_below_its_place(tmp_path: Path) -> None:
    """``down`` leaves what LAB_STATE named; a folder of its name without its mark stops it."""
    (tmp_path / "precious").touch()
    folder = default_folder(ROOT, {"LAB_STATE": str(tmp_path)})
    make_folder(folder)
    Lab(folder, print).down()
    assert [one.name for one in tmp_path.iterdir()] == ["precious"]
    folder.mkdir(mode=0o700)
    with pytest.raises(LabError, match="was not made by bin/lab"):
        Lab(folder, print)


def test_its_daemon_ends_whatever_compose_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When compose fails, the lab's own daemon is ended, and the folder stays for another try."""
    folder = default_folder(ROOT, {"LAB_STATE": str(tmp_path)})
    make_folder(folder)
    (folder / "made.json").write_text(
        json.dumps({"release": "trixie", "base": "b", "net4": "", "net6": "", "ports": True})
    )
    ended = []

    def fails(*_: object, **__: object) -> str:
        raise LabError("no compose")

    monkeypatch.setattr(Daemon, "answers", lambda _: True)
    monkeypatch.setattr(Daemon, "end", lambda _: ended.append(True))
    monkeypatch.setattr(Lab, "_compose", fails)
    with pytest.raises(LabError, match="no compose"):
        Lab(folder, print).down()
    assert ended == [True]
    assert is_there(folder)


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than 2 GB are too few."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(9e9, 0, 2e9))
    require_space(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(9e9, 0, 1.9e9))
    with pytest.raises(LabError, match=r"1\.9 GB free, and 2 GB are needed"):
        require_space(tmp_path)
