"""The settings as an operator looks at them: each value, and who gave it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apiban.settings.load import read_settings
from apiban.settings.model import Mode, Settings, Upstream
from apiban.settings.reading import Origin
from apiban.settings.schema import SCHEMA
from apiban.settings.secret import Secret

__all__ = ["Explained", "explain_settings", "plain", "warnings"]

Plain = str | int | float | bool | list[Any]


@dataclass(frozen=True, slots=True)
class Explained:
    """One setting: its value as TOML has it, a secret masked, and who gave it."""

    name: str
    value: Plain
    origin: Origin


def explain_settings(path: Path, environ: Mapping[str, str]) -> tuple[Explained, ...]:
    """Give every setting in the order of the schema.

    Raises:
        SettingsError: as ``load_settings`` does.

    """
    reading = read_settings(path, environ)
    return tuple(
        Explained(setting.name, plain(reading.values[setting.name]), reading.origins[setting.name])
        for setting in SCHEMA
    )


def warnings(settings: Settings) -> tuple[str, ...]:
    """Give what is allowed, and hardly meant: one line each."""
    said = []
    if not settings.feed.key:
        said.append("no key is set (APIBAN_KEY): the list will not be updated")
    if settings.mode is Mode.OFF:
        said.append("mode is off: nothing is dropped")
    if settings.feed.accept_private:
        said.append("feed.accept_private: the feed may ban addresses of private networks")
    if settings.feed.url.startswith("http:") and settings.feed.allow_http:
        said.append("feed.url: the key travels in clear text")
    return tuple(said)


def plain(value: object) -> Plain:
    """Give a value as TOML and JSON have it; a secret is masked, and no path is ""."""
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    if isinstance(value, Upstream):
        return value.uri
    if value is None or isinstance(value, Mode | Secret):
        return "" if value is None else str(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, bool | int | float) else str(value)
