import os
import subprocess
import sys
from pathlib import Path

import pytest
from apiban.settings.__main__ import main

from tests.unit.settings.samples import KEY


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give the path of a settings file that only its owner and group can read."""
    path = tmp_path / "apiban.toml"
    path.touch(0o640)
    return path


def test_good_settings(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0, and one line that names the file."""
    file.write_text(f'feed.key = "{KEY}"\n', encoding="ascii")
    assert main([str(file)]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (f"{file}: good\n", "")


def test_missing_key_is_said_but_good(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A node without a key runs on its own lists; the operator is told."""
    assert main([str(file)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{file}: good\n"
    assert "no key" in err
    assert "APIBAN_KEY" in err


def test_bad_settings(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1, every mistake on its own line of stderr, and nothing that says good."""
    file.write_text(f'mode = "on"\nfeed.key = "{KEY}"\nfeed.interval = 0\n', encoding="ascii")
    assert main([str(file)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert [text.partition(" ")[0] for text in err.splitlines()] == ["mode", "feed.interval"]
    assert KEY not in err


def test_file_of_the_environment(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an argument it is APIBAN_SETTINGS, and the other variables count."""
    monkeypatch.setenv("APIBAN_SETTINGS", str(file))
    monkeypatch.setenv("APIBAN_MODE", "on")
    assert main([]) == 1
    assert capsys.readouterr().err.startswith("APIBAN_MODE = on: ")


def test_argument_beats_the_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file on the command line is the one that is checked."""
    monkeypatch.setenv("APIBAN_SETTINGS", str(tmp_path / "none"))
    assert main([str(file)]) == 0


def test_missing_file_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that was named and is not there is a mistake, never defaults."""
    assert main([str(tmp_path / "none")]) == 1
    assert "there is no file" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "status"), [("", 0), ("mode = 5", 1)])
def test_program_ends_with_the_status(file: Path, text: str, status: int) -> None:
    """What a systemd unit sees of ``python -m apiban.settings``."""
    file.write_text(text, encoding="ascii")
    environ = {name: text for name, text in os.environ.items() if not name.startswith("APIBAN")}
    command = [sys.executable, "-m", "apiban.settings", str(file)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert (done.stdout == f"{file}: good\n") == (status == 0)
    assert "Traceback" not in done.stderr
