"""From the file and the environment to checked settings, with every mistake reported at once."""

from __future__ import annotations

import os
import re
import ssl
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from apiban.address import is_loopback
from apiban.errors import SettingsError
from apiban.log import clean
from apiban.settings.model import (
    AllowSettings,
    EdgeSettings,
    FeedSettings,
    LogSettings,
    NodeSettings,
    PathSettings,
    Settings,
)
from apiban.settings.schema import SCHEMA, Setting
from apiban.settings.secret import Secret, readable_by_others

__all__ = ["DEFAULT_PATH", "load_settings", "settings_path"]

DEFAULT_PATH: Final = Path("/etc/apiban/apiban.toml")

# kamcli's name for the key is taken beside ours.
_KEY_VARIABLES: Final = ("APIBAN_KEY", "APIBANKEY")
_SECTIONS: Final = ("FEED", "ALLOW", "NODE", "EDGE", "LOG", "PATHS")
_OTHER_VARIABLES: Final = frozenset({"APIBAN_FEED_SERVER_KEY"})
_KEY_ADVICE: Final = "use chmod o-r on it"
_LARGEST_FILE: Final = 1 << 16


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
    return _Load(path, environ, must_exist=must_exist).settings()


class _Load:
    """One reading, gathering problems as it goes."""

    def __init__(self, path: Path, environ: Mapping[str, str], *, must_exist: bool) -> None:
        self._path = path
        self._must_exist = must_exist
        self._environ = environ
        self._problems: list[str] = []
        self._values: dict[str, Any] = {setting.name: setting.default for setting in SCHEMA}

    def settings(self) -> Settings:
        document, others_can_read = self._document()
        self._take_document(document)
        if others_can_read and self._values["feed.key"]:
            self._problem(f"feed.key: others can read {self._path}, which holds it; {_KEY_ADVICE}")
        self._take_environment()
        self._values["feed.key"] = Secret(self._key())
        self._check_transport()
        self._check_ca_file()
        if self._problems:
            raise SettingsError(tuple(self._problems))
        return self._build()

    def _problem(self, text: str) -> None:
        self._problems.append(" ".join(text.split()))

    def _document(self) -> tuple[dict[str, Any], bool]:
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                raw = file.read(_LARGEST_FILE + 1)
            if len(raw) > _LARGEST_FILE:
                self._problem(f"{self._path}: over {_LARGEST_FILE} bytes is no settings file")
                return {}, False
            if not raw and self._must_exist:
                self._problem(f"{self._path}: is empty")
            return tomllib.loads(raw.decode("utf-8")), readable_by_others(status)
        except FileNotFoundError:
            if self._environ.get("APIBAN_SETTINGS"):
                self._problem(f"APIBAN_SETTINGS: there is no file {self._path}")
            elif self._must_exist:
                self._problem(f"{self._path}: is gone")
        except OSError as error:
            self._problem(f"{self._path}: cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            self._problem(f"{self._path}: is not UTF-8 text")
        except (ValueError, RecursionError) as error:
            # The parser's message gives line and column, and of the file one character at most.
            self._problem(f"{self._path}: is not TOML: {clean(error)}")
        return {}, False

    def _take_document(self, document: dict[str, Any]) -> None:
        by_name = {setting.name: setting for setting in SCHEMA}
        sections = {name.partition(".")[0] for name in by_name if "." in name}
        for top, value in document.items():
            if top in sections and isinstance(value, dict):
                for name, inner in value.items():
                    self._take(by_name, f"{top}.{name}", inner)
            elif top in sections:
                self._problem(f"{top}: must be a section, [{top}], not a value")
            else:
                self._take(by_name, top, value)

    def _take(self, by_name: dict[str, Setting], name: str, value: Any) -> None:
        setting = by_name.get(name)
        if setting is None:
            self._problem(f"{clean(name)}: no such setting; docs/settings.md lists them")
        else:
            self._read(setting, name, value)

    def _take_environment(self) -> None:
        for setting in SCHEMA:
            text = self._environ.get(setting.variable)
            if text is not None and setting.name != "feed.key":
                self._read(setting, setting.variable, text)
        known = {setting.variable for setting in SCHEMA} | _OTHER_VARIABLES
        sections = tuple(f"APIBAN_{name}_" for name in _SECTIONS)
        for name in sorted(self._environ):
            if name.startswith(sections) and name not in known:
                self._problem(f"{clean(name)}: no such setting; docs/settings.md lists them")

    def _read(self, setting: Setting, shown: str, value: Any) -> None:
        try:
            self._values[setting.name] = setting.read(value)
        except (ValueError, RecursionError) as error:
            said = _shown(setting.name, value)
            self._problem(f"{shown} = {said}: must be {_one_line(error)}")

    def _key(self) -> str:
        """Give the key: from the environment, else from the file of it, else from the settings."""
        for variable in (*_KEY_VARIABLES, "APIBAN_FEED_KEY"):
            key = self._environ.get(variable, "")
            if key:
                return self._checked_key(key, variable)
        key_file: Path | None = self._values["feed.key_file"]
        if key_file is None:
            return self._checked_key(self._values["feed.key"], "feed.key")
        if self._values["feed.key"]:
            self._problem("feed.key and feed.key_file: set one of the two, not both")
        try:
            with key_file.open("rb") as file:
                if readable_by_others(os.fstat(file.fileno())):
                    self._problem(f"feed.key_file: others can read {key_file}; {_KEY_ADVICE}")
                    return ""
                key = file.read(4096).decode("ascii").strip()
        except OSError as error:
            self._problem(f"feed.key_file = {key_file}: cannot be read: {error.strerror}")
            return ""
        except UnicodeDecodeError:
            key = "\n"
        if not key:
            self._problem(f"feed.key_file = {key_file}: is empty; it must hold the key")
        return self._checked_key(key, "feed.key_file")

    def _checked_key(self, key: str, where: str) -> str:
        if key and not (key.isascii() and key.isprintable() and " " not in key and len(key) <= 512):
            self._problem(f"{where}: must be one word of printable ASCII, at most 512 characters")
            return ""
        return key

    def _check_transport(self) -> None:
        """Refuse to send the key in clear text over a network."""
        url = urlsplit(self._values["feed.url"])
        if url.scheme == "https" or self._values["feed.allow_http"]:
            return
        if not is_loopback(url.hostname or ""):
            self._problem(
                f"feed.url = {_shown('feed.url', url.geturl())}: must be https, since the key "
                "travels in it (feed.allow_http = true permits http in a closed network)"
            )

    def _check_ca_file(self) -> None:
        path: Path | None = self._values["feed.ca_file"]
        if path is None:
            return
        try:
            ssl.create_default_context(cafile=path)
        except (OSError, ssl.SSLError):
            self._problem(f"feed.ca_file = {path}: must be a readable CA bundle in PEM format")

    def _build(self) -> Settings:
        def section(name: str) -> dict[str, Any]:
            start = name + "."
            return {
                key.removeprefix(start): value
                for key, value in self._values.items()
                if key.startswith(start)
            }

        return Settings(
            mode=self._values["mode"],
            feed=FeedSettings(**section("feed")),
            allow=AllowSettings(**section("allow")),
            node=NodeSettings(**section("node")),
            edge=EdgeSettings(**section("edge")),
            log=LogSettings(**section("log")),
            paths=PathSettings(**section("paths")),
        )


def _shown(name: str, value: Any) -> str:
    """Show a value in an error: never the key, nor a key that was pasted into the URL."""
    if name == "feed.key":
        return "********"
    if name == "feed.url":
        scheme, mark, rest = str(value).partition("://")
        host = re.split(r"[/?#]", rest, maxsplit=1)[0]
        return clean(f"{scheme}{mark}{host}/..." if mark and "@" not in rest else "(not shown)")
    if isinstance(value, bool):
        return str(value).lower()
    if name == "feed.key_file" and not str(value).startswith("/"):
        return clean("(not shown)")  # somebody may have put the key itself there
    return clean(value)


def _one_line(error: Exception) -> str:
    """Keep an error's text on one line."""
    return " ".join(str(error).split())
