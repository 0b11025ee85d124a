"""The documentation names what there is, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest
from apiban.cli.main import apiban
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
        shown = re.search(rf"^\| `{re.escape(setting.name)}` \| (.+?) \|", text, re.MULTILINE)
        assert shown is not None, setting.name
        default = setting.default
        if default in (None, ""):
            assert shown[1] == "none", setting.name
        elif isinstance(default, tuple):
            assert shown[1] == f"`{json.dumps(default)}`", setting.name
        elif isinstance(default, float):
            assert shown[1] == f"`{default:g}`", setting.name
        else:
            assert shown[1] == f"`{str(default).lower()}`", setting.name


def commands(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Give each command that does something, with the words that name it."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, parent=context, info_name=name)
        if isinstance(command, click.Group):
            yield from commands(command, inner)
        else:
            yield inner.command_path, command


COMMANDS = dict(
    commands(apiban, click.Context(apiban, info_name="apiban", **apiban.context_settings))
)


def options(command: click.Command) -> set[str]:
    """Give every spelling of a command's options."""
    return {
        spelling
        for one in command.params
        if isinstance(one, click.Option)
        for spelling in (*one.opts, *one.secondary_opts)
    }


def documented() -> dict[str, set[str]]:
    """Give for each command of docs/cli.md the options that its section, or its row, names."""
    found = {}
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    # A section ends where the next one begins, of whatever rank.
    for section in re.split(r"^#+ ", text, flags=re.MULTILINE):
        head, _, body = section.partition("\n")
        if re.fullmatch(r"`apiban [a-z -]+`", head):
            found[head.strip("`")] = spellings(body)
    for name, cells in re.findall(r"^\| `(apiban [a-z -]+)` \|(.*)$", text, re.MULTILINE):
        found[name] = spellings(cells.partition(" | ")[0])
    return found


def spellings(text: str) -> set[str]:
    """Give the options that a text names: the first word of what stands in backquotes."""
    return set(re.findall(r"`(--?[a-zA-Z][a-z0-9-]*)", text))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_verb_and_option_is_documented(name: str) -> None:
    """docs/cli.md has each command, with all of its options and no other."""
    assert documented().get(name) == options(COMMANDS[name])


def test_no_verb_is_documented_that_is_not_there() -> None:
    """No command in docs/cli.md is gone."""
    assert set(documented()) == set(COMMANDS)


def test_global_options_are_documented() -> None:
    """So are the options that stand before the verb."""
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    before = text.partition("## Options before the verb")[2].partition("## ")[0]
    assert spellings(before) == options(apiban) | {"-h", "--help"}
