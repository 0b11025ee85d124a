"""The honeypot's settings, and the document that describes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from apiban.errors import SettingsError
from apiban.honeypot.settings import SCHEMA, honeypot_settings_path, load_honeypot_settings

from tests.unit.honeypot.parts import settings

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "honeypot.md"


def test_defaults(tmp_path: Path) -> None:
    """Nobody is reported to, and the bounds are in force."""
    found = settings(tmp_path)
    assert (found.report.url, found.answers.per_source, found.unproven.keep) == ("", 10, 10_000)
    assert honeypot_settings_path({}) == Path("/etc/apiban/honeypot.toml")


def test_file_and_environment(tmp_path: Path) -> None:
    """The environment stands over the file; the key can be in a file of its own."""
    key = tmp_path / "key"
    key.write_text("secret-key\n")
    key.chmod(0o600)
    file = tmp_path / "honeypot.toml"
    file.write_text(f'[report]\nurl = "https://f/api"\nkey_file = "{key}"\n[nonce]\nlifetime = 5\n')
    environ = {"APIBAN_HONEYPOT_NONCE_LIFETIME": "7"}
    found = load_honeypot_settings(file, environ)
    assert found.report.url == "https://f/api/"
    assert found.report.key.reveal() == "secret-key"
    assert found.nonce_lifetime == 7
    assert "secret-key" not in repr(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('report.url = "http://192.0.2.1/"\nreport.key = "k"', "must be https"),
        ('report.url = "https://f/"', "report.key is not"),
        ('pbx.realm = "a\\"b"', "without quotes"),
        ("answers.per_source = -1", "0 to 10000"),
        ("what = 1", "docs/honeypot.md"),
    ],
)
def test_mistakes_are_said(tmp_path: Path, text: str, said: str) -> None:
    """Each with what is allowed."""
    file = tmp_path / "honeypot.toml"
    file.write_text(text)
    file.chmod(0o640)
    with pytest.raises(SettingsError, match=re.escape(said)):
        load_honeypot_settings(file, {})


def test_misspelt_variable_is_said(tmp_path: Path) -> None:
    """A variable that means nothing is a mistake."""
    with pytest.raises(SettingsError, match="APIBAN_HONEYPOT_REPORT_ULR"):
        load_honeypot_settings(tmp_path / "x", {"APIBAN_HONEYPOT_REPORT_ULR": "1"})


def test_document_has_a_row_for_each_setting_with_its_default() -> None:
    """And no row for another."""
    rows = re.findall(
        r"^\| `([a-z0-9_]+\.[a-z0-9_]+)` \| (.+?) \|", DOCUMENT.read_text(), re.MULTILINE
    )
    shown = {}
    for setting in SCHEMA:
        default = setting.default
        text = f"{default:g}" if isinstance(default, float) else str(default)
        is_none = default in (None, "")
        shown[setting.name] = (
            "none" if is_none else f"`{text.lower() if default is False else text}`"
        )
    assert dict(rows) == shown
