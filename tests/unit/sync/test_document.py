"""Documents that one process writes and others read."""

import json
import os
import stat
from pathlib import Path

import pytest
from apiban.sync.document import get_document, put_document


def test_document_is_whole_and_for_the_group(tmp_path: Path) -> None:
    """The one before is there until it is replaced; nothing else is left."""
    path = tmp_path / "it.json"
    put_document(path, {"a": 1})
    put_document(path, [2])
    assert json.loads(path.read_text(encoding="utf-8")) == [2]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_document_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there stays, and no scratch file does."""
    path = tmp_path / "it.json"
    put_document(path, 1)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("apiban.sync.document.json.dump", fail)
    with pytest.raises(OSError, match="No space"):
        put_document(path, 2)
    assert path.read_text(encoding="utf-8") == "1"
    assert list(tmp_path.iterdir()) == [path]


def test_link_at_the_old_scratch_name_is_not_followed(tmp_path: Path) -> None:
    """A member of the group cannot have root overwrite another file."""
    other = tmp_path / "other"
    other.write_text("theirs", encoding="utf-8")
    (tmp_path / f".it.json.{os.getpid()}.new").symlink_to(other)
    put_document(tmp_path / "it.json", 1)
    assert other.read_text(encoding="utf-8") == "theirs"


@pytest.mark.timeout(5)
def test_named_pipe_is_no_document(tmp_path: Path) -> None:
    """Nobody waits for one who writes into it."""
    os.mkfifo(tmp_path / "it.json")
    with pytest.raises(ValueError, match="Expecting value"):
        get_document(tmp_path / "it.json", largest=100)
