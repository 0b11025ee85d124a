"""From the file and the environment to a node's checked settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from apiban.settings.model import (
    AllowSettings,
    CallSettings,
    DetectSettings,
    EdgeSettings,
    FeedSettings,
    FirewallSettings,
    HtableSettings,
    LogSettings,
    NodeSettings,
    PathSettings,
    ReportSettings,
    Settings,
)
from apiban.settings.reading import Reading
from apiban.settings.schema import SCHEMA
from apiban.settings.secret import Secret

__all__ = [
    "DEFAULT_PATH",
    "build_settings",
    "load_settings",
    "read_settings",
    "salvage_settings",
    "settings_path",
]

DEFAULT_PATH: Final = Path("/etc/apiban/apiban.toml")

# kamcli's name for the key is taken beside ours.
_KEY_VARIABLES: Final = ("APIBAN_KEY", "APIBANKEY")
_SECRETS: Final = frozenset({"feed.key", "report.key"})
_SECTIONS: Final = (
    "FEED",
    "ALLOW",
    "NODE",
    "EDGE",
    "CALLS",
    "DETECT",
    "REPORT",
    "HTABLE",
    "FIREWALL",
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
    return build_settings(read_settings(path, environ, must_exist=must_exist).values)


def salvage_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """Give what is good of settings that have mistakes, without keys; the rest is the defaults."""
    return build_settings(_reading(path, environ, must_exist=False).values)


def build_settings(values: Mapping[str, Any]) -> Settings:
    """Make settings of their values by name; what is no ``Secret`` is no key."""
    keys = {name: values.get(name) for name in _SECRETS}
    keys = {name: key if isinstance(key, Secret) else Secret() for name, key in keys.items()}
    named: dict[str, dict[str, Any]] = {}
    for name, value in {**values, **keys}.items():
        section, _, bare = name.rpartition(".")
        named.setdefault(section, {})[bare] = value
    return Settings(
        mode=named[""]["mode"],
        feed=FeedSettings(**named["feed"]),
        allow=AllowSettings(**named["allow"]),
        node=NodeSettings(**named["node"]),
        edge=EdgeSettings(**named["edge"]),
        calls=CallSettings(**named["calls"]),
        detect=DetectSettings(**named["detect"]),
        report=ReportSettings(**named["report"]),
        htable=HtableSettings(**named["htable"]),
        firewall=FirewallSettings(**named["firewall"]),
        log=LogSettings(**named["log"]),
        paths=PathSettings(**named["paths"]),
    )


def read_settings(path: Path, environ: Mapping[str, str], *, must_exist: bool = False) -> Reading:
    """Read and check as ``load_settings`` does; give the values with where each came from.

    Raises:
        SettingsError

    """
    reading = _reading(path, environ, must_exist=must_exist)
    reading.finish()
    return reading


def _reading(path: Path, environ: Mapping[str, str], *, must_exist: bool) -> Reading:
    """Read and check; the reading holds the problems."""
    reading = Reading(
        SCHEMA,
        path=path,
        environ=environ,
        named_by="APIBAN_SETTINGS",
        variables=tuple(f"APIBAN_{name}_" for name in _SECTIONS),
        known=frozenset(),
        secrets=_SECRETS,
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
    return reading
