"""Files that are put in their place whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from apiban.replace import replaced


def test_it_is_whole_and_has_its_mode(tmp_path: Path) -> None:
    """The one before is there until the end, and nothing else is afterwards."""
    path = tmp_path / "it"
    path.write_text("old")
    with replaced(path, 0o644) as file:
        file.write("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_the_one_before(tmp_path: Path) -> None:
    """Whatever the failure is; no scratch file is left."""
    path = tmp_path / "it"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), replaced(path, 0o644) as file:
        file.writelines(["new", "\ud800"])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_link_in_its_place_is_replaced(tmp_path: Path) -> None:
    """What it points to is not touched."""
    path, other = tmp_path / "it", tmp_path / "other"
    other.write_text("theirs")
    path.symlink_to(other)
    with replaced(path, 0o644) as file:
        file.write("new")
    assert (path.is_symlink(), path.read_text(), other.read_text()) == (False, "new", "theirs")


def test_name_cannot_be_known_before(tmp_path: Path) -> None:
    """Who saw one scratch file does not know the next one's name; until the end it is closed."""
    names = set()
    for _ in range(2):
        with replaced(tmp_path / "it", 0o644) as file:
            (scratch,) = (one for one in tmp_path.iterdir() if one.name.endswith(".new"))
            names.add(scratch.name)
            assert os.fstat(file.fileno()).st_ino == scratch.stat().st_ino
    assert len(names) == 2


def test_link_at_the_scratch_name_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also who guesses the name gets nothing overwritten."""
    monkeypatch.setattr("apiban.replace.secrets.token_hex", lambda _: "guessed")
    other = tmp_path / "other"
    other.write_text("theirs")
    (tmp_path / ".it.guessed.new").symlink_to(other)
    with pytest.raises(FileExistsError), replaced(tmp_path / "it", 0o644):
        pass
    assert other.read_text() == "theirs"
