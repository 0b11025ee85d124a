"""The documentation names what there is, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from apiban.feed.server.settings import SCHEMA as SERVER_SCHEMA
from apiban.log import EVENTS
from apiban.settings.readers import Setting
from apiban.settings.schema import SCHEMA

DOCS = Path(__file__).resolve().parents[2] / "docs"


def table_names(file: str) -> set[str]:
    """Give the words that begin the rows of a document's tables."""
    return set(re.findall(r"^\| `([a-z0-9_.-]+)` \|", (DOCS / file).read_text(), re.MULTILINE))


SETTINGS = pytest.mark.parametrize(
    ("file", "schema"),
    [("settings.md", SCHEMA), ("feed.md", SERVER_SCHEMA)],
    ids=["node", "feed"],
)


@SETTINGS
def test_every_setting_is_documented(file: str, schema: Sequence[Setting]) -> None:
    """The document has a row for each setting, and no row for another."""
    assert table_names(file) == {setting.name for setting in schema}


def test_every_event_is_documented_with_its_level() -> None:
    """docs/log-lines.md has a row for each event, with the level that it has."""
    text = (DOCS / "log-lines.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (\w+) \|", text, re.MULTILINE))
    assert rows == EVENTS


def test_every_event_is_used() -> None:
    """No event is documented that the code never says."""
    code = DOCS.parent / "kemi"
    text = "\n".join(path.read_text() for path in code.rglob("*.py") if path.name != "log.py")
    assert [
        event for event in EVENTS if f'"{event}"' not in text and f"={event} " not in text
    ] == []


@SETTINGS
def test_settings_defaults_in_the_docs(file: str, schema: Sequence[Setting]) -> None:
    """The default that a row shows is the one in force."""
    text = (DOCS / file).read_text()
    for setting in schema:
        shown = re.search(rf"^\| `{re.escape(setting.name)}` \| (\S+) \|", text, re.MULTILINE)
        assert shown is not None, setting.name
        default = setting.default
        if default in (None, ""):
            assert shown[1] == "none", setting.name
        elif isinstance(default, tuple):
            assert shown[1] == "`[]`", setting.name
        elif isinstance(default, float):
            assert shown[1] == f"`{default:g}`", setting.name
        else:
            assert shown[1] == f"`{str(default).lower()}`", setting.name
