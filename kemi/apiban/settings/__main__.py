"""``bin/check-settings``: says whether the settings are good, with every mistake on its line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from apiban.errors import SettingsError
from apiban.settings.explain import warnings
from apiban.settings.load import load_settings, settings_path

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check; give 0 for good settings and 1 for bad ones."""
    parser = argparse.ArgumentParser(
        prog="check-settings",
        description="Check the settings as Kamailio would read them at its start.",
    )
    parser.add_argument(
        "file", nargs="?", type=Path, help="default: $APIBAN_SETTINGS, or /etc/apiban/apiban.toml"
    )
    options = parser.parse_args(arguments)
    environ = dict(os.environ)
    if options.file is not None:
        environ["APIBAN_SETTINGS"] = str(options.file)
    path = settings_path(environ)
    try:
        settings = load_settings(path, environ)
    except SettingsError as error:
        for problem in error.problems:
            sys.stderr.write(f"{problem}\n")
        return 1
    for warning in warnings(settings):
        sys.stderr.write(f"{warning}\n")
    sys.stdout.write(f"{path}: good\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
