"""One client a runtime folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from apiban.errors import FirewallError
from apiban.firewall.lock import alone, lock_path, who_runs


def test_one_at_a_time(tmp_path: Path) -> None:
    """The second is told who the first is, and may when that one has gone."""
    assert who_runs(tmp_path) is None
    with alone(tmp_path):
        assert who_runs(tmp_path) == os.getpid()
        with pytest.raises(FirewallError, match=rf"process {os.getpid()}: .*firewall\.lock"):
            alone(tmp_path).__enter__()
    assert who_runs(tmp_path) is None
    with alone(tmp_path):
        pass


def test_a_shorter_number_than_the_last(tmp_path: Path) -> None:
    """Nothing is left of the process id before."""
    lock_path(tmp_path).write_text("99999999999\n")
    with alone(tmp_path):
        assert who_runs(tmp_path) == os.getpid()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """One line names the setting."""
    with pytest.raises(FirewallError, match=r"paths\.runtime"):
        alone(tmp_path / "nowhere").__enter__()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A member of the group cannot have root change or empty another file; one line says why."""
    other = tmp_path / "other"
    other.write_text("theirs")
    other.chmod(0o600)
    lock_path(tmp_path).symlink_to(other)
    with pytest.raises(FirewallError, match=r"firewall\.lock: is a link"):
        alone(tmp_path).__enter__()
    assert who_runs(tmp_path) is None
    assert (other.read_text(), stat.S_IMODE(other.stat().st_mode)) == ("theirs", 0o600)


def test_a_link_that_comes_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the opening none is followed either."""
    other = tmp_path / "other"
    other.write_text("theirs")
    monkeypatch.setattr("apiban.firewall.lock.make_shared", lambda path: path.symlink_to(other))
    with pytest.raises(FirewallError, match=r"firewall\.lock: "):
        alone(tmp_path).__enter__()
    assert other.read_text() == "theirs"


@pytest.mark.timeout(5)
def test_a_named_pipe_is_no_lock(tmp_path: Path) -> None:
    """Nobody waits for one who writes into it."""
    os.mkfifo(lock_path(tmp_path))
    assert who_runs(tmp_path) is None
    with pytest.raises(FirewallError, match=r"firewall\.lock: is no file"):
        alone(tmp_path).__enter__()


def test_a_folder_that_is_a_link(tmp_path: Path) -> None:
    """It may be one: the administrator made it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with alone(tmp_path / "link"):
        assert who_runs(tmp_path / "real") == os.getpid()
