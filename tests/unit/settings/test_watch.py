import os
from collections.abc import Callable
from pathlib import Path

import pytest
from apiban.settings import FileWatch


def _edit(path: Path) -> None:
    path.write_text("another text, and longer", encoding="ascii")


def _replace(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    other.rename(path)


def _touch(path: Path) -> None:
    os.utime(path, ns=(0, 1))


def _remove(path: Path) -> None:
    path.unlink()


def _permit(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a file to watch."""
    path = tmp_path / "list"
    path.write_text("text", encoding="ascii")
    return path


@pytest.mark.parametrize("change", [_edit, _replace, _touch, _remove, _permit])
def test_change_is_told_once(path: Path, change: Callable[[Path], None]) -> None:
    """An edit, a rename over it (of the same text), a touch, its end: each is one change."""
    watch = FileWatch(path)
    assert not watch.changed()
    change(path)
    assert watch.changed()
    assert not watch.changed()


def test_file_that_appears_is_a_change(tmp_path: Path) -> None:
    """A watch on nothing is quiet until there is something."""
    watch = FileWatch(tmp_path / "later")
    assert not watch.changed()
    (tmp_path / "later").touch()
    assert watch.changed()


def test_reading_is_no_change(path: Path) -> None:
    """Whoever reads the file leaves it as it was."""
    watch = FileWatch(path)
    path.read_bytes()
    assert not watch.changed()


def test_link_that_is_turned_is_a_change(path: Path, tmp_path: Path) -> None:
    """A link to another file, as configuration managers do."""
    other = tmp_path / "other"
    other.write_text("text", encoding="ascii")
    link = tmp_path / "link"
    link.symlink_to(path)
    watch = FileWatch(link)
    link.unlink()
    link.symlink_to(other)
    assert watch.changed()


def test_folder_that_is_a_file_is_nothing(path: Path) -> None:
    """A path that cannot be looked at is the same as none."""
    assert not FileWatch(path / "below").changed()
