"""From the file and the environment to a node's checked settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from apiban.settings.model import (
    AllowSettings,
    CallSettings,
    DetectSettings,
    EdgeSettings,
    FeedSettings,
    HtableSettings,
    LogSettings,
    NodeSettings,
    PathSettings,
    ReportSettings,
    Settings,
)
from apiban.settings.reading import Reading
from apiban.settings.schema import SCHEMA

__all__ = ["DEFAULT_PATH", "load_settings", "read_settings", "settings_path"]

DEFAULT_PATH: Final = Path("/etc/apiban/apiban.toml")

# kamcli's name for the key is taken beside ours.
_KEY_VARIABLES: Final = ("APIBAN_KEY", "APIBANKEY")
_SECTIONS: Final = (
    "FEED",
    "ALLOW",
    "NODE",
    "EDGE",
    "CALLS",
    "DETECT",
    "REPORT",
    "HTABLE",
    "LOG",
    "PATHS",
)


def settings_path(environ: Mapping[str, str]) -> Path:
    """Give the settings file: ``APIBAN_SETTINGS``, or /etc/apiban/apiban.toml."""
    return Path(environ.get("APIBAN_SETTINGS") or DEFAULT_PATH)


def load_settings(path: Path, environ: Mapping[str, str], *, must_exist: bool = False) -> Settings:
    """Read the file, then the environment over it.

    A missing file means defaults, unless ``APIBAN_SETTINGS`` names it or it ``must_exist``: who
    moves it away while Kamailio runs does not mean to enforce the defaults.

    Raises:
        SettingsError: with one problem for each mistake, none of which holds the key.

    """
    reading = read_settings(path, environ, must_exist=must_exist)
    return Settings(
        mode=reading.values["mode"],
        feed=FeedSettings(**reading.section("feed")),
        allow=AllowSettings(**reading.section("allow")),
        node=NodeSettings(**reading.section("node")),
        edge=EdgeSettings(**reading.section("edge")),
        calls=CallSettings(**reading.section("calls")),
        detect=DetectSettings(**reading.section("detect")),
        report=ReportSettings(**reading.section("report")),
        htable=HtableSettings(**reading.section("htable")),
        log=LogSettings(**reading.section("log")),
        paths=PathSettings(**reading.section("paths")),
    )


def read_settings(path: Path, environ: Mapping[str, str], *, must_exist: bool = False) -> Reading:
    """Read and check as ``load_settings`` does; give the values with where each came from.

    Raises:
        SettingsError

    """
    reading = Reading(
        SCHEMA,
        path=path,
        environ=environ,
        named_by="APIBAN_SETTINGS",
        variables=tuple(f"APIBAN_{name}_" for name in _SECTIONS),
        known=frozenset(),
        secrets=frozenset({"feed.key", "report.key"}),
        docs="docs/settings.md",
        must_exist=must_exist,
    )
    reading.values["feed.key"] = reading.secret("feed.key", _KEY_VARIABLES)
    reading.values["report.key"] = reading.secret("report.key")
    for section in ("feed", "report"):
        reading.check_transport(section)
        reading.check_ca_file(section)
    if reading.values["report.url"] and not reading.values["report.key"]:
        reading.problem("report.url: is set, and report.key is not: the feed would take no report")
    reading.finish()
    return reading
