"""What the doctor says of Kamailio."""

from __future__ import annotations

from pathlib import Path

import pytest
from apiban.doctor.kamailio import (
    check_absence,
    check_allocator,
    check_modules,
    check_running,
    check_unit,
    check_version,
    installed_modules,
)

from tests.support.reports import firewall_report

ALL = {"app_python3", "rtimer", "pv", "htable", "statistics"}


def test_running() -> None:
    """Since when, and with how many workers."""
    (finding,) = check_running(86400.0, 4, faults=0)
    assert finding.level == "ok"
    assert "1970-01-02 00:00:00 UTC" in finding.what
    assert "4 SIP workers" in finding.what


def test_not_running() -> None:
    """Nothing is protected by a Kamailio that is not there."""
    (finding,) = check_running(None, 0, faults=0)
    assert finding.level == "fail"


def test_absence() -> None:
    """Where the kernel alone goes by the list that is as it should be."""
    assert check_absence(firewall_report()).level == "note"
    assert "the kernel drops" in check_absence(firewall_report()).what
    assert "the kernel counts" in check_absence(firewall_report(mode="shadow")).what


def test_faults_are_said() -> None:
    """A message that a fault of ours let through is not hidden."""
    assert [one.level for one in check_running(1.0, 4, faults=3)] == ["ok", "warn"]


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("version: kamailio 5.6.3 (x86_64/linux) \nflags: USE_TCP", "ok"),
        ("version: kamailio 6.0.1 (x86_64/linux)", "ok"),
        ("version: kamailio 5.5.9 (x86_64/linux)", "fail"),
        ("", "note"),
    ],
)
def test_version(text: str, level: str) -> None:
    """5.6 and newer will do."""
    assert check_version(text).level == level


def test_all_modules() -> None:
    """With all of them there is one line."""
    assert [one.level for one in check_modules(ALL.__contains__, loaded=True)] == ["ok"]


@pytest.mark.parametrize("missing", ["app_python3", "rtimer", "pv"])
def test_missing_module(missing: str) -> None:
    """The package and the line to add are said."""
    found = list(check_modules((ALL - {missing}).__contains__, loaded=True))
    assert [one.level for one in found] == ["fail"]
    assert missing in found[0].what
    assert "apt-get install kamailio" in found[0].mend
    assert f'loadmodule "{missing}.so"' in found[0].mend


def test_without_the_front() -> None:
    """It works without the front's modules, and costs more."""
    found = list(check_modules({"app_python3", "rtimer", "pv"}.__contains__, loaded=True))
    assert [one.level for one in found] == ["ok", "note"]
    assert "APIBAN_WITH_FRONT" in found[1].mend


def test_installed_modules(tmp_path: Path) -> None:
    """They are found where Debian's packages, and a build of one's own, put them."""
    for folder in ("usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/local/lib64"):
        modules = tmp_path / folder / "kamailio" / "modules"
        modules.mkdir(parents=True)
        (modules / f"m{len(folder)}.so").touch()
    assert installed_modules(tmp_path) == {"m24", "m9", "m15"}


@pytest.mark.parametrize(
    ("command", "level"),
    [
        (["kamailio", "-m", "64", "-x", "tlsf"], "ok"),
        (["kamailio", "-xtlsf"], "ok"),
        (["kamailio", "-x", "fm"], "warn"),
        (["kamailio", "-x"], "warn"),
        (["kamailio", "tlsf"], "warn"),
        ([], "note"),
    ],
)
def test_allocator(command: list[str], level: str) -> None:
    """The option is found in either spelling."""
    assert check_allocator(command).level == level


@pytest.mark.parametrize(
    ("restart", "level"), [("always", "ok"), ("on-failure", "warn"), ("no", "warn"), (None, "note")]
)
def test_unit(restart: str | None, level: str) -> None:
    """Kamailio may end with status 0 when a process of its fails."""
    assert check_unit(restart).level == level
