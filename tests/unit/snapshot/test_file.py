import errno
import os
from pathlib import Path

import pytest
from apiban.errors import SnapshotError
from apiban.snapshot import load_snapshot, map_snapshot, write_snapshot

from tests.unit.snapshot.parts import END, only, sample


def test_written_file_is_read_back_either_way(tmp_path: Path) -> None:
    """What is written is what the workers map and what the start loads."""
    path = tmp_path / "snapshot"
    write_snapshot(path, sample())
    for snapshot in (map_snapshot(path), load_snapshot(path)):
        assert snapshot.generation == 7
        assert snapshot.expires("192.0.2.1") == END
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot"]


def test_others_cannot_read_the_file(tmp_path: Path) -> None:
    """Only the owner and the group read the list."""
    path = tmp_path / "snapshot"
    write_snapshot(path, sample())
    assert path.stat().st_mode & 0o777 == 0o440


def _full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("owner", "name"),
    [(os, "fchmod"), (os, "fsync"), (Path, "replace")],
    ids=["fchmod", "fsync", "rename"],
)
def test_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    """A full disk at any step leaves the old list, and no scratch file."""
    path = tmp_path / "snapshot"
    write_snapshot(path, only("192.0.2.1"))
    monkeypatch.setattr(owner, name, _full)
    with pytest.raises(SnapshotError, match="No space left"):
        write_snapshot(path, only("192.0.2.2"))
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot"]
    assert load_snapshot(path).expires("192.0.2.1") == END


def test_bad_content_is_never_put_in_place(tmp_path: Path) -> None:
    """What comes back damaged from the disk does not replace a good file."""
    path = tmp_path / "snapshot"
    write_snapshot(path, only("192.0.2.1"))
    damaged = bytearray(only("192.0.2.2"))
    damaged[-1] ^= 1
    with pytest.raises(SnapshotError):
        write_snapshot(path, bytes(damaged))
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot"]
    assert load_snapshot(path).expires("192.0.2.1") == END


def test_missing_folder_is_said(tmp_path: Path) -> None:
    """A folder that is not there is an error of ours, on one line with the path."""
    path = tmp_path / "gone" / "snapshot"
    with pytest.raises(SnapshotError) as caught:
        write_snapshot(path, sample())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [map_snapshot, load_snapshot])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"", id="empty"),
        pytest.param(sample()[:40], id="part-of-a-header"),
        pytest.param(sample()[:-8], id="truncated"),
        pytest.param(sample() + b"x", id="longer"),
        pytest.param(b"\0" * 4096, id="zeros"),
    ],
)
def test_unusable_file_is_refused(tmp_path: Path, read: object, content: bytes | None) -> None:
    """Whoever reads it, a file that is no snapshot is a SnapshotError."""
    path = tmp_path / "snapshot"
    if content is not None:
        path.write_bytes(content)
    assert callable(read)
    with pytest.raises(SnapshotError):
        read(path)


@pytest.mark.parametrize("read", [map_snapshot, load_snapshot])
def test_folder_in_its_place_is_refused(tmp_path: Path, read: object) -> None:
    """A folder of that name is a SnapshotError too."""
    assert callable(read)
    with pytest.raises(SnapshotError):
        read(tmp_path)


def test_load_finds_a_damaged_body_that_map_lets_be(tmp_path: Path) -> None:
    """The start verifies every byte; a worker never waits for that."""
    path = tmp_path / "snapshot"
    content = bytearray(sample())
    content[-1] ^= 1
    path.write_bytes(content)
    map_snapshot(path)
    with pytest.raises(SnapshotError, match="checksum"):
        load_snapshot(path)


def test_loaded_copy_outlives_a_truncation_in_place(tmp_path: Path) -> None:
    """What was loaded is a copy: cutting the file short does not reach it."""
    path = tmp_path / "snapshot"
    path.write_bytes(sample())
    snapshot = load_snapshot(path)
    os.truncate(path, 0)
    assert snapshot.expires("192.0.2.1") == END
    snapshot.verify()


def test_mapped_file_outlives_its_replacement_and_removal(tmp_path: Path) -> None:
    """A worker that has the old file mapped keeps all of it."""
    path = tmp_path / "snapshot"
    write_snapshot(path, only("192.0.2.1"))
    snapshot = map_snapshot(path)
    write_snapshot(path, only("192.0.2.2"))
    path.unlink()
    assert snapshot.expires("192.0.2.1") == END
    snapshot.verify()


@pytest.mark.parametrize("read", [map_snapshot, load_snapshot])
def test_snapshot_cannot_be_written_through(tmp_path: Path, read: object) -> None:
    """No bug of a worker can change what the others read."""
    path = tmp_path / "snapshot"
    write_snapshot(path, sample())
    assert callable(read)
    assert read(path).buffer.readonly
