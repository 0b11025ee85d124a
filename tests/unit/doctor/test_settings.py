"""What the doctor says of settings and of their files."""

from __future__ import annotations

from pathlib import Path

import pytest
from apiban.doctor.process import User
from apiban.doctor.settings import (
    check_key,
    check_mode,
    check_problems,
    check_readable,
    check_settings,
)
from apiban.settings import Mode, load_settings
from apiban.store import ModeOverride

NOBODY = User(65534, frozenset({65534}))


def test_each_problem_fails_with_the_file_to_mend() -> None:
    """Every mistake is a line of its own."""
    found = check_problems(Path("/etc/x.toml"), ["mode = 5: must be ...", "feed.interval = 0: ..."])
    assert [one.level for one in found] == ["fail", "fail"]
    assert all("/etc/x.toml" in one.mend for one in found)


@pytest.mark.parametrize(
    ("environ", "levels"),
    [
        ({}, ["ok"]),
        ({"APIBAN_MODE": "off"}, ["ok"]),  # it has a check of its own
        ({"APIBAN_FEED_ACCEPT_PRIVATE": "yes"}, ["ok", "warn"]),
    ],
)
def test_settings_that_are_hardly_meant(
    tmp_path: Path, environ: dict[str, str], levels: list[str]
) -> None:
    """Good settings may still be a warning."""
    settings = load_settings(tmp_path / "none", environ)
    assert [one.level for one in check_settings(tmp_path / "none", settings)] == levels


@pytest.mark.parametrize(
    ("mode", "override", "level", "mend"),
    [
        ("enforce", None, "ok", ""),
        ("shadow", None, "warn", 'mode = "enforce"'),
        ("off", None, "warn", 'mode = "enforce"'),
        ("off", ModeOverride(Mode.ENFORCE, 1.0, None), "ok", ""),
        ("enforce", ModeOverride(Mode.SHADOW, 1.0, None), "warn", "apiban mode settings"),
        ("enforce", ModeOverride(Mode.OFF, 1.0, 9.0), "warn", "wait for its end"),
    ],
)
def test_mode_in_force(
    tmp_path: Path, mode: str, override: ModeOverride | None, level: str, mend: str
) -> None:
    """Whoever set it, a mode that drops nothing is a warning, with the way back."""
    settings = load_settings(tmp_path / "none", {"APIBAN_MODE": mode})
    finding = check_mode(settings, override)
    assert finding.level == level
    assert mend in finding.mend


@pytest.mark.parametrize(("environ", "level"), [({}, "warn"), ({"APIBAN_KEY": "k"}, "ok")])
def test_key(tmp_path: Path, environ: dict[str, str], level: str) -> None:
    """A node without a key works, and gets no new list."""
    assert check_key(load_settings(tmp_path / "none", environ)).level == level


@pytest.mark.parametrize(("mode", "level"), [(0o644, "ok"), (0o600, "fail")])
def test_file_that_kamailio_must_read(mode: int, level: str) -> None:
    """A file that root alone can read stops the start of a Kamailio that is not root."""
    path = Path("/tmp") / f"apiban-readable-{mode:o}"
    path.touch()
    try:
        path.chmod(mode)
        (finding,) = check_readable([path], NOBODY)
    finally:
        path.unlink()
    assert finding.level == level


def test_folder_on_the_way_to_a_file(tmp_path: Path) -> None:
    """A folder above it that others cannot enter is as bad."""
    path = tmp_path / "apiban.toml"
    path.touch()
    path.chmod(0o644)
    tmp_path.chmod(0o700)
    (finding,) = check_readable([path], NOBODY)
    assert finding.level == "fail"


def test_settings_that_are_closed_to_us() -> None:
    """There is nothing in them to mend."""
    (finding,) = check_problems(Path("/etc/x.toml"), ["/etc/x.toml: Permission denied"])
    assert "group" in finding.mend
