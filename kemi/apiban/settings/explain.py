"""The settings as an operator looks at them: each value, and who gave it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from apiban.settings.load import build_settings, read_settings
from apiban.settings.model import Mode, Settings, Upstream
from apiban.settings.reading import Origin
from apiban.settings.schema import SCHEMA
from apiban.settings.secret import Secret

__all__ = ["Explained", "explain_settings", "from_plain", "plain", "to_plain", "warnings"]

Plain = str | int | float | bool | list[Any]

# What others than the owner of the settings may know: no key, nor where one is.
_OPEN: Final = tuple(one for one in SCHEMA if not one.name.endswith((".key", ".key_file")))


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


def to_plain(settings: Settings) -> dict[str, Plain]:
    """Give settings as a JSON document, by their names; keys are left out."""
    return {one.name: plain(attrgetter(one.name)(settings)) for one in _OPEN}


def from_plain(document: Mapping[str, Any]) -> Settings:
    """Make settings of such a document; what it lacks is the default, and so are the keys.

    Raises:
        ValueError: a value is none that is allowed.

    """
    values = {one.name: one.default for one in SCHEMA}
    values |= {one.name: one.read(document[one.name]) for one in _OPEN if one.name in document}
    return build_settings(values)


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
