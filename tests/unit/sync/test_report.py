import json
import os
import stat
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from apiban.settings import Mode, Secret, Settings, load_settings
from apiban.sync.report import (
    keep_settings,
    kept_path,
    kept_settings,
    read_report,
    report_path,
    write_report,
)
from apiban.sync.reporter import Reporter

from tests.support.clock import ManualClock
from tests.support.reports import sync_report

KEY = "a-key-that-nobody-may-see"
_REPORT = sync_report(
    pid=17,
    at=1_800_000_000.5,
    entries=3,
    complete_at=1_800_000_000.0,
    pass_number=2,
    pass_seen=3,
    pass_ended=1_799_999_000.0,
    position=9,
)


def test_report_comes_back_as_it_was(tmp_path: Path) -> None:
    """Each field, None as well; nothing else is left beside it."""
    path = report_path(tmp_path)
    assert write_report(path, _REPORT)
    assert read_report(path) == _REPORT
    assert write_report(path, replace(_REPORT, pid=18, error="down"))
    assert read_report(path) == replace(_REPORT, pid=18, error="down")
    assert [one.name for one in tmp_path.iterdir()] == ["sync.json"]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_report_is_for_the_group_alone(tmp_path: Path, umask: int) -> None:
    """Whatever the umask."""
    before = os.umask(umask)
    try:
        assert write_report(report_path(tmp_path), _REPORT)
    finally:
        os.umask(before)
    assert stat.S_IMODE(report_path(tmp_path).stat().st_mode) == 0o640


def test_report_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """The sync goes on without it, and the one before stays."""
    assert not write_report(report_path(tmp_path / "gone"), _REPORT)
    obstacle = report_path(tmp_path)
    obstacle.mkdir()
    assert not write_report(obstacle, _REPORT)
    assert [one.name for one in tmp_path.iterdir()] == ["sync.json"]


_GOOD = json.dumps(asdict(_REPORT))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        _GOOD.encode()[:-20],
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b"[" * 60_000,
        json.dumps({**asdict(_REPORT), "pid": "1"}).encode(),
        json.dumps({**asdict(_REPORT), "pid": True}).encode(),
        json.dumps({**asdict(_REPORT), "at": None}).encode(),
        json.dumps({**asdict(_REPORT), "feed": 5}).encode(),
        json.dumps({**asdict(_REPORT), "held_since": []}).encode(),
        b" " * (1 << 16) + _GOOD.encode(),
    ],
    ids=range(13),
)
def test_what_is_no_report_is_none(tmp_path: Path, content: bytes) -> None:
    """Torn, of another program, of another version, or far too long: never an error."""
    path = report_path(tmp_path)
    path.write_bytes(content)
    assert read_report(path) is None


def test_missing_report_is_none(tmp_path: Path) -> None:
    """No sync ran here."""
    assert read_report(report_path(tmp_path)) is None


def test_report_of_a_later_version_is_read(tmp_path: Path) -> None:
    """What it says beyond ours is left out."""
    report_path(tmp_path).write_text(json.dumps({**asdict(_REPORT), "later": 1}), encoding="utf-8")
    assert read_report(report_path(tmp_path)) == _REPORT


# The last good settings ------------------------------------------------------------------------


def _settings(folder: Path) -> Settings:
    """Give settings in which nothing is the default that can be another thing."""
    environ = {
        "APIBAN_MODE": "shadow",
        "APIBAN_KEY": KEY,
        "APIBAN_FEED_URL": "http://127.0.0.1:8080/api/",
        "APIBAN_FEED_BAN_FOR": "77.5",
        "APIBAN_FEED_WIDEST_IPV6": "48",
        "APIBAN_FEED_ACCEPT_PRIVATE": "true",
        "APIBAN_ALLOW_NETWORKS": "192.0.2.0/24,2001:db8::/48",
        "APIBAN_ALLOW_FROM_KAMAILIO": "dispatcher",
        "APIBAN_ALLOW_PERMISSIONS_GROUPS": "1,7",
        "APIBAN_NODE_PEERS": "203.0.113.5,2001:db8::5",
        "APIBAN_EDGE_UPSTREAMS": "sip:203.0.113.9,sip:[2001:db8::9]:5061;transport=tls",
        "APIBAN_DETECT_AGENTS": "evilscan",
        "APIBAN_PATHS_STATE": str(folder / "state"),
    }
    return load_settings(folder / "none.toml", environ)


def test_settings_come_back_without_the_key(tmp_path: Path) -> None:
    """All else is as it was; the file is for the group."""
    settings, path = _settings(tmp_path), kept_path(tmp_path)
    assert keep_settings(path, settings)
    text = path.read_text(encoding="utf-8")
    assert KEY not in text
    assert [name for name in json.loads(text) if "key" in name] == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    keyless = replace(settings, feed=replace(settings.feed, key=Secret()))
    assert kept_settings(path) == keyless != settings


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'"mode"', b'{"mode": "perhaps"}', b'{"node.peers": "x"}', b"\xff", None],
)
def test_settings_that_cannot_be_read_are_not_known(tmp_path: Path, content: bytes | None) -> None:
    """A half of them would be worse than none."""
    if content is not None:
        kept_path(tmp_path).write_bytes(content)
    assert kept_settings(kept_path(tmp_path)) is None


def test_settings_are_kept_when_they_are_new_or_gone(tmp_path: Path) -> None:
    """And not written each second."""
    settings, path, reporter = _settings(tmp_path), kept_path(tmp_path), Reporter(ManualClock())
    reporter.keep(path, settings)
    first = path.stat().st_ino
    reporter.keep(path, settings)
    assert path.stat().st_ino == first
    path.unlink()
    reporter.keep(path, settings)
    assert kept_settings(path) is not None
    reporter.keep(path, replace(settings, mode=Mode.OFF))
    kept = kept_settings(path)
    assert kept is not None
    assert kept.mode is Mode.OFF
