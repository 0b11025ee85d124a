"""From the file and the environment to a node's checked settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from apiban.settings.model import (
    AllowSettings,
    EdgeSettings,
    FeedSettings,
    LogSettings,
    NodeSettings,
    PathSettings,
    Settings,
)
from apiban.settings.reading import Reading
from apiban.settings.schema import SCHEMA

__all__ = ["DEFAULT_PATH", "load_settings", "settings_path"]

DEFAULT_PATH: Final = Path("/etc/apiban/apiban.toml")

# kamcli's name for the key is taken beside ours.
_KEY_VARIABLES: Final = ("APIBAN_KEY", "APIBANKEY")
_SECTIONS: Final = ("FEED", "ALLOW", "NODE", "EDGE", "LOG", "PATHS")


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
    reading = Reading(
        SCHEMA,
        path=path,
        environ=environ,
        named_by="APIBAN_SETTINGS",
        variables=tuple(f"APIBAN_{name}_" for name in _SECTIONS),
        known=frozenset(),
        secrets=frozenset({"feed.key"}),
        docs="docs/settings.md",
        must_exist=must_exist,
    )
    reading.values["feed.key"] = reading.secret("feed.key", _KEY_VARIABLES)
    reading.check_transport("feed")
    reading.check_ca_file("feed")
    reading.finish()
    return Settings(
        mode=reading.values["mode"],
        feed=FeedSettings(**reading.section("feed")),
        allow=AllowSettings(**reading.section("allow")),
        node=NodeSettings(**reading.section("node")),
        edge=EdgeSettings(**reading.section("edge")),
        log=LogSettings(**reading.section("log")),
        paths=PathSettings(**reading.section("paths")),
    )
