"""Settings: one TOML file, environment overrides, built once, checked whole, frozen."""

from apiban.settings.explain import Explained, explain_settings, warnings
from apiban.settings.load import DEFAULT_PATH, load_settings, settings_path
from apiban.settings.model import Mode, Settings, Upstream
from apiban.settings.secret import Secret
from apiban.settings.watch import FileWatch

__all__ = [
    "DEFAULT_PATH",
    "Explained",
    "FileWatch",
    "Mode",
    "Secret",
    "Settings",
    "Upstream",
    "explain_settings",
    "load_settings",
    "settings_path",
    "warnings",
]
