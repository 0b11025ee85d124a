"""Settings of a feed, and a key that is easy to find where it should not be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from apiban.settings import Secret, load_settings
from apiban.settings.model import FeedSettings

KEY = "kkeeyy-5f1c0a99-e1d7"


def feed_settings(**changes: Any) -> FeedSettings:
    """Give the defaults with a key and a made-up service, changed as told."""
    defaults = load_settings(Path("/nonexistent"), {}).feed
    return replace(defaults, **{"key": Secret(KEY), "url": "https://feed.example/api/"} | changes)
