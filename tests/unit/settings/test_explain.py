"""Each setting with who gave it; no secret among them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from apiban.errors import SettingsError
from apiban.settings import Secret, explain_settings, load_settings, warnings
from apiban.settings.explain import Explained, plain
from apiban.settings.reading import Origin
from apiban.settings.schema import SCHEMA

from tests.unit.settings.samples import KEY


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give the path of a settings file that others cannot read."""
    path = tmp_path / "apiban.toml"
    path.touch(0o640)
    return path


def explain(file: Path, **environ: str) -> dict[str, Explained]:
    """Give the explained settings by name."""
    return {one.name: one for one in explain_settings(file, environ)}


def test_every_setting_is_explained(file: Path) -> None:
    """Without a file all of them are defaults, in the schema's order."""
    found = explain(file)
    assert list(found) == [setting.name for setting in SCHEMA]
    assert {one.origin for one in found.values()} == {Origin("default")}


def test_origins(file: Path) -> None:
    """The environment goes before the file, and that before the default."""
    file.write_text('mode = "shadow"\n[feed]\ninterval = 30\ntimeout = 9\n', encoding="ascii")
    found = explain(file, APIBAN_FEED_INTERVAL="40")
    assert found["mode"] == Explained("mode", "shadow", Origin("file", str(file)))
    assert found["feed.interval"].value == 40
    assert found["feed.interval"].origin == Origin("environment", "APIBAN_FEED_INTERVAL")
    assert found["feed.timeout"].origin == Origin("file", str(file))
    assert found["feed.window"].origin == Origin("default")


@pytest.mark.parametrize("variable", ["APIBAN_KEY", "APIBANKEY", "APIBAN_FEED_KEY"])
def test_key_of_the_environment(file: Path, variable: str) -> None:
    """Which of its variables it was is told, and the key is not."""
    found = explain(file, **{variable: KEY})
    assert found["feed.key"] == Explained("feed.key", "********", Origin("environment", variable))
    assert KEY not in repr(found)


def test_key_of_the_file(file: Path) -> None:
    """A key that stands in the settings is the file's."""
    file.write_text(f'feed.key = "{KEY}"\n', encoding="ascii")
    assert explain(file)["feed.key"].origin == Origin("file", str(file))


def test_key_of_a_file_of_its_own(file: Path) -> None:
    """A key file is named."""
    key = file.with_name("key")
    key.touch(0o640)
    key.write_text(KEY, encoding="ascii")
    file.write_text(f'feed.key_file = "{key}"\n', encoding="ascii")
    found = explain(file)
    assert found["feed.key"] == Explained("feed.key", "********", Origin("key file", str(key)))
    assert found["feed.key_file"].origin == Origin("file", str(file))


def test_key_of_the_environment_before_a_key_file(file: Path) -> None:
    """The variable wins, and is named."""
    found = explain(file, APIBAN_KEY=KEY, APIBAN_FEED_KEY_FILE="/nonexistent")
    assert found["feed.key"].origin == Origin("environment", "APIBAN_KEY")


def test_bad_settings(file: Path) -> None:
    """There is nothing to explain of settings that cannot be used."""
    with pytest.raises(SettingsError):
        explain(file, APIBAN_MODE="on")


def test_values_are_what_toml_has(file: Path) -> None:
    """Read again as a file they mean the same, but for the keys."""
    text = (
        'mode = "off"\nallow.networks = ["192.0.2.0/24", "2001:db8::1"]\n'
        'edge.upstreams = ["sip:[2001:db8::9]:5070;transport=tls"]\nfeed.interval = 2.5\n'
        'allow.permissions_groups = [1, 2]\nfeed.accept_private = true\nhtable.mirror = "mine"\n'
    )
    file.write_text(text, encoding="ascii")
    before = load_settings(file, {})
    lines = [
        f"{name} = {json.dumps(one.value)}"
        for name, one in explain(file).items()
        if one.origin.kind == "file"
    ]
    assert len(lines) == 7
    tomllib.loads("\n".join(lines))
    file.write_text("\n".join(lines), encoding="ascii")
    assert load_settings(file, {}) == before


@pytest.mark.parametrize(
    ("value", "shown"),
    [(Secret("x"), "********"), (Secret(), ""), (None, ""), (True, True), (2.5, 2.5), (60.0, 60)],
)
def test_plain_values(value: object, shown: object) -> None:
    """No float where there is no fraction; a flag stays one."""
    assert plain(value) == shown
    assert type(plain(value)) is type(shown)


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        ({}, "no key"),
        ({"APIBAN_KEY": "k", "APIBAN_MODE": "off"}, "nothing is dropped"),
        ({"APIBAN_KEY": "k", "APIBAN_FEED_ACCEPT_PRIVATE": "yes"}, "private"),
        (
            {
                "APIBAN_KEY": "k",
                "APIBAN_FEED_URL": "http://192.0.2.1/",
                "APIBAN_FEED_ALLOW_HTTP": "yes",
            },
            "clear text",
        ),
    ],
)
def test_warnings(file: Path, environ: dict[str, str], word: str) -> None:
    """What is allowed and hardly meant is one warning."""
    (warning,) = warnings(load_settings(file, environ))
    assert word in warning


def test_no_warning(file: Path) -> None:
    """A node with a key has none."""
    assert warnings(load_settings(file, {"APIBAN_KEY": "k"})) == ()
