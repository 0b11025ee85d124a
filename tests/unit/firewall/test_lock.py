"""One client a runtime folder."""

from __future__ import annotations

import os
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
